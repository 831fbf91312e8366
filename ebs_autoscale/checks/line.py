"""One line of `check`: what was checked, the verdict, and what to do about it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ebs_autoscale.errors import CommandFailed, ConfigInvalid, EbsAutoscaleError

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was checked; every line that is not ok has a `hint`: what to do about it.

    `policy` is what the hint says to add to the role.
    """

    name: str
    verdict: Verdict
    sentence: str
    hint: str = ""
    policy: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The line as `check --json` prints it; only one with a policy has `statements`."""
        shown = asdict(self)
        policy = shown.pop("policy")
        return shown | ({"statements": policy["Statement"]} if policy else {})


def failed(name: str, error: EbsAutoscaleError) -> Line:
    """The line of a check that ended with this error."""
    return Line(name, "fail", error.what, hint_of(error))


def hint_of(error: EbsAutoscaleError) -> str:
    """What to do about it, also when the error itself does not say."""
    match error:
        case EbsAutoscaleError(hint=hint) if hint:
            return hint
        case ConfigInvalid():
            return "correct the file; the shipped config.yaml explains every key"
        case CommandFailed():
            return "run the command by hand and see `dmesg`"
    return "may be transient; run `ebs-autoscale check` again in a minute"
