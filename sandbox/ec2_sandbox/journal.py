"""The journal of the sandbox: every call and its outcome."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Any

PENDING = "pending"
OK = "ok"
LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call; `outcome` is `ok`, an error code, an HTTP status, `lost` or `pending`.

    `sequence` counts the calls in order of arrival; `fault` is the kind of the injected fault,
    or empty.
    """

    sequence: int
    clock_seconds: float
    action: str
    params: Mapping[str, Any] = field(default_factory=dict)
    outcome: str = PENDING
    fault: str = ""
    access_key: str = ""


class Journal:
    """The calls in order of arrival; a call is recorded before it has any effect."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = Lock()

    def begin(
        self, action: str, params: Mapping[str, Any], *, clock_seconds: float, access_key: str = ""
    ) -> int:
        """Record the arrival of a call; returns its sequence number."""
        with self._lock:
            call = Call(
                sequence=len(self._calls),
                clock_seconds=clock_seconds,
                action=action,
                params=params,
                access_key=access_key,
            )
            self._calls.append(call)
            return call.sequence

    def end(self, sequence: int, *, outcome: str, fault: str = "") -> None:
        """Record the outcome of a call."""
        with self._lock:
            self._calls[sequence] = replace(self._calls[sequence], outcome=outcome, fault=fault)

    def listing(self, since: int = 0) -> list[dict[str, Any]]:
        """The calls from this sequence number on, ready for JSON."""
        with self._lock:
            return [asdict(call) for call in self._calls[since:]]
