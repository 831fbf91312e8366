"""What goes wrong on purpose: rules that say when, and how."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from random import Random
from threading import Lock
from typing import Any, Literal, Self

from ebs_autoscale.errors import ConfigInvalid

IMDS = "IMDS"


class FaultKind(StrEnum):
    """How a call goes wrong.

    `lost_before` and `lost_after` hang up without an answer, before or after the effect;
    `stuck` starts a transition that never ends; `ghost` attaches a device that never appears.
    """

    ERROR = "error"
    THROTTLE = "throttle"
    HTTP = "http"
    LOST_BEFORE = "lost_before"
    LOST_AFTER = "lost_after"
    DELAY = "delay"
    STUCK = "stuck"
    GHOST = "ghost"


_STATUS = {FaultKind.HTTP: 503, FaultKind.THROTTLE: 503}
_CODE = {FaultKind.THROTTLE: "RequestLimitExceeded"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """One way to fail: for `action` (`*` is every EC2 action, `IMDS` the metadata service).

    Skips the first `after` matching calls, then strikes with `probability`, at
    most `times` times. `when` says for errors, HTTP statuses and delays whether the effect
    has happened before; `seconds`, of a delay, are real ones.
    """

    kind: FaultKind
    action: str = "*"
    code: str = ""
    message: str = "asked for by a fault rule of the sandbox"
    status: int = 0
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    seconds: float = 0.0
    when: Literal["before", "after"] = "before"

    @classmethod
    def from_mapping(cls, wanted: Mapping[str, Any]) -> Self:
        """Read a rule as JSON gives it; ConfigInvalid for what no rule can say."""
        known = {each.name for each in fields(cls)}
        if unknown := sorted(wanted.keys() - known):
            raise ConfigInvalid(
                f"fault rule: no key {unknown[0]!r}", hint=f"known: {', '.join(sorted(known))}"
            )
        try:
            return cls(**{**wanted, "kind": FaultKind(wanted.get("kind", ""))})
        except ValueError as error:
            raise ConfigInvalid(
                f"fault rule: {error}", hint=f"known kinds: {', '.join(FaultKind)}"
            ) from error

    def to_mapping(self) -> dict[str, Any]:
        """Say what `from_mapping` reads."""
        return asdict(self)

    @property
    def http_status(self) -> int:
        """The HTTP status of the answer, where this rule answers."""
        return self.status or _STATUS.get(self.kind, 400)

    @property
    def error_code(self) -> str:
        """The EC2 error code of the answer, where this rule answers."""
        return self.code or _CODE.get(self.kind, "InternalError")

    def concerns(self, action: str) -> bool:
        """Whether calls of this action can be struck."""
        return self.action == action or (self.action == "*" and action != IMDS)


@dataclass(slots=True)
class _Counted:
    rule: FaultRule
    seen: int = 0
    struck: int = 0


class FaultBook:
    """The rules in force, in order; the first that strikes decides."""

    def __init__(self, seed: int) -> None:
        self._dice = Random(f"{seed}-faults")  # noqa: S311 -- repeatable on purpose
        self._rules: list[_Counted] = []
        self._lock = Lock()

    def add(self, rule: FaultRule) -> None:
        """Put a rule after those there are."""
        with self._lock:
            self._rules.append(_Counted(rule))

    def clear(self) -> None:
        """Let everything go right again; what is stuck already stays so."""
        with self._lock:
            self._rules.clear()

    def striking(self, action: str) -> FaultRule | None:
        """Decide how this call goes wrong, if it does; each call asks once."""
        with self._lock:
            concerned = [each for each in self._rules if each.rule.concerns(action)]
            for each in concerned:
                each.seen += 1
            for each in concerned:
                if self._strikes(each):
                    each.struck += 1
                    return each.rule
        return None

    def listing(self) -> list[dict[str, Any]]:
        """Every rule with how often it was looked at and struck."""
        with self._lock:
            return [
                {**each.rule.to_mapping(), "seen": each.seen, "struck": each.struck}
                for each in self._rules
            ]

    def _strikes(self, each: _Counted) -> bool:
        rule = each.rule
        spent = rule.times is not None and each.struck >= rule.times
        return not spent and each.seen > rule.after and self._dice.random() < rule.probability
