"""Fault injection: rules that say which calls fail, and how."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from random import Random
from threading import Lock
from typing import Any, Literal, Self

from ec2_sandbox.errors import InputInvalid

IMDS = "IMDS"


class FaultKind(StrEnum):
    """How a call fails.

    `lost_before` and `lost_after` close the connection without a response, before or after the
    effect; `stuck` starts a transition that never completes; with `ghost`, a volume is attached
    but its block device never appears, or the device of a modified volume grows only when it is
    attached again; with `failed`, a volume is created and ends in the state `error`, or its
    modification ends in the state `failed`; with `undone`, somebody detaches a volume as soon as
    it is attached, or deletes it as soon as it is created. `junk` replaces the response by the
    message of the rule, `drip` sends it byte by byte.
    """

    ERROR = "error"
    THROTTLE = "throttle"
    HTTP = "http"
    LOST_BEFORE = "lost_before"
    LOST_AFTER = "lost_after"
    DELAY = "delay"
    STUCK = "stuck"
    GHOST = "ghost"
    FAILED = "failed"
    UNDONE = "undone"
    JUNK = "junk"
    DRIP = "drip"


_STATUS = {FaultKind.HTTP: 503, FaultKind.THROTTLE: 503, FaultKind.JUNK: 200}
_CODE = {FaultKind.THROTTLE: "RequestLimitExceeded"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """One kind of fault for `action` (`*` is every EC2 action, `IMDS` the metadata service).

    The first `after` calls succeed; later ones fail with `probability`, at most `times` times.
    For errors, HTTP statuses and delays, `when` says whether the fault comes before or after
    the effect. The `seconds` of a delay, and between two bytes of a drip, are real seconds. Of the
    metadata service only paths that begin with `path` are concerned.
    """

    kind: FaultKind
    action: str = "*"
    path: str = ""
    code: str = ""
    message: str = "injected by a fault rule of the sandbox"
    status: int = 0
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    seconds: float = 0.0
    when: Literal["before", "after"] = "before"

    @classmethod
    def from_mapping(cls, wanted: Mapping[str, Any]) -> Self:
        """Read a rule from a JSON object; raises InputInvalid."""
        known = {each.name for each in fields(cls)}
        if unknown := sorted(wanted.keys() - known):
            raise InputInvalid(
                f"fault rule: unknown key {unknown[0]!r}",
                hint=f"known keys: {', '.join(sorted(known))}",
            )
        try:
            return cls(**{**wanted, "kind": FaultKind(wanted.get("kind", ""))})
        except ValueError as error:
            raise InputInvalid(
                f"fault rule: {error}", hint=f"known kinds: {', '.join(FaultKind)}"
            ) from error

    def to_mapping(self) -> dict[str, Any]:
        """Return the JSON object that `from_mapping` reads."""
        return asdict(self)

    @property
    def http_status(self) -> int:
        """The HTTP status of the response that this rule causes."""
        return self.status or _STATUS.get(self.kind, 400)

    @property
    def error_code(self) -> str:
        """The EC2 error code of the response that this rule causes."""
        return self.code or _CODE.get(self.kind, "InternalError")

    def applies_to(self, action: str, path: str) -> bool:
        """Whether calls of this action, or requests for this path, can fail by this rule."""
        if action == IMDS:
            return self.action == IMDS and path.startswith(self.path)
        return self.action in {action, "*"}


@dataclass(slots=True)
class _Counted:
    rule: FaultRule
    calls: int = 0
    faults: int = 0


class FaultRules:
    """The rules in force, in order; the first that applies decides."""

    def __init__(self, seed: int) -> None:
        self._dice = Random(f"{seed}-faults")  # noqa: S311 -- repeatable on purpose
        self._rules: list[_Counted] = []
        self._lock = Lock()

    def add(self, rule: FaultRule) -> None:
        """Append a rule."""
        with self._lock:
            self._rules.append(_Counted(rule))

    def clear(self) -> None:
        """Remove all rules; transitions that are already stuck stay stuck."""
        with self._lock:
            self._rules.clear()

    def fault_for(self, action: str, path: str = "") -> FaultRule | None:
        """Decide whether and how this call fails; to be asked once for each call."""
        with self._lock:
            candidates = [each for each in self._rules if each.rule.applies_to(action, path)]
            for each in candidates:
                each.calls += 1
            for each in candidates:
                if self._is_due(each):
                    each.faults += 1
                    return each.rule
        return None

    def listing(self) -> list[dict[str, Any]]:
        """Every rule with the number of its calls and of the faults it caused."""
        with self._lock:
            return [
                {**each.rule.to_mapping(), "calls": each.calls, "faults": each.faults}
                for each in self._rules
            ]

    def _is_due(self, each: _Counted) -> bool:
        rule = each.rule
        spent = rule.times is not None and each.faults >= rule.times
        return not spent and each.calls > rule.after and self._dice.random() < rule.probability
