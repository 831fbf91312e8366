"""Throttling of EC2 calls: a bucket of tokens for each action."""

from collections.abc import Mapping, Sequence
from threading import Lock

from ec2_sandbox.world.clock import SandboxClock


class Buckets:
    """For some actions how many calls are possible at once, and how many more in each second.

    Each call takes a token, and so does one that fails. Source: EC2 developer guide, "Request
    throttling for the Amazon EC2 API".
    """

    def __init__(self, limits: Mapping[str, Sequence[float]], clock: SandboxClock) -> None:
        self._limits = limits
        self._clock = clock
        self._left = {action: (limit[0], clock.seconds()) for action, limit in limits.items()}
        self._lock = Lock()

    def take(self, action: str) -> bool:
        """Take a token; False when there is none, so that the call must be refused."""
        if action not in self._limits:
            return True
        capacity, refill = self._limits[action]
        with self._lock:
            now = self._clock.seconds()
            tokens, at = self._left[action]
            tokens = min(capacity, tokens + (now - at) * refill)
            taken = tokens >= 1
            self._left[action] = (tokens - taken, now)
        return taken
