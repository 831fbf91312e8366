"""The credentials of the instance's role: which are issued, and which have expired."""

from ec2_sandbox.world.clock import SandboxClock

# EC2: new credentials are available at least five minutes before the old ones expire.
_RENEWED_BEFORE_SECONDS = 300.0


class RoleCredentials:
    """Access keys that the metadata service gives away, each valid for the same time.

    Other access keys are accepted as well: the sandbox verifies no signature.
    """

    def __init__(self, clock: SandboxClock, *, valid_seconds: float) -> None:
        self._clock = clock
        self._valid_seconds = valid_seconds
        self._renewed_before = min(_RENEWED_BEFORE_SECONDS, valid_seconds / 2)
        self._ends_at: dict[str, float] = {}

    def current(self) -> tuple[str, float]:
        """The access key that is issued now, and the seconds that it is still valid."""
        now = self._clock.seconds()
        for key, ends_at in self._ends_at.items():
            if ends_at - now > self._renewed_before:
                return key, ends_at - now
        key = f"ASIASANDBOX{len(self._ends_at):09d}"
        self._ends_at[key] = now + self._valid_seconds
        return key, self._valid_seconds

    def expire(self) -> None:
        """Let all keys expire now, whatever was said when they were issued."""
        self._ends_at = dict.fromkeys(self._ends_at, self._clock.seconds())

    def has_expired(self, access_key: str) -> bool:
        """Whether this key was valid once and is no longer."""
        return self._ends_at.get(access_key, self._clock.seconds() + 1) <= self._clock.seconds()
