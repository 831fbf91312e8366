"""Programs that write through a page cache to devices of limited throughput, in simulated time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ebs_autoscale.model import GIB, MIB, Reading
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import shortage_of
from ebs_autoscale.policy.sizing import next_size
from tests.simulated.life import Life

STEP_SECONDS = 0.05


class Act:
    """One thing that a program does."""


@dataclass(frozen=True, slots=True)
class Write(Act):
    """Write so many bytes, at most this fast: the page cache and the devices may be slower."""

    count: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Allocate(Act):
    """Use up space without writing to it, as fallocate does."""

    count: float


@dataclass(frozen=True, slots=True)
class Delete(Act):
    """Delete so much of what was written last; what is dirty of it is never written."""

    count: float


@dataclass(frozen=True, slots=True)
class Rest(Act):
    """Do nothing."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What takes the writes, and whether the loop is told what the devices take.

    Writes go to the page cache while it has less than `cache_bytes` of dirty data, then as fast as
    the devices take them: `device_bytes_per_second` each, or everything if that is None.
    """

    cache_bytes: int = 5 * GIB
    device_bytes_per_second: float | None = 125 * MIB
    is_told: bool = True
    growth_seconds: float = 5.0


class Host(Life):
    """A filesystem whose programs do one thing after another until one gets ENOSPC."""

    def __init__(
        self,
        acts: Sequence[Act],
        policy: GrowthPolicy,
        hardware: Hardware,
        *,
        size_bytes: int,
        used_bytes: float = 0.0,
    ) -> None:
        super().__init__(policy, size_bytes=size_bytes)
        self.used_bytes = used_bytes
        self.growth_seconds = hardware.growth_seconds
        self.cache_bytes = hardware.cache_bytes
        self._taken_bytes_per_second = hardware.device_bytes_per_second
        if hardware.is_told:
            self.device_bytes_per_second = hardware.device_bytes_per_second
        self.dirty_bytes = 0.0
        self._acts: Sequence[Act] = ()
        self._to_do = acts
        self.began_at = 0.0

    def run(self, *, rest_seconds: float = 30.0) -> None:
        """Let the programs do all of it under the loop, and watch for a while after that."""
        # The look at start-up, which tells what the devices take.
        self.live(15.0)
        self._begin()
        while self._acts:
            self.clock.sleep(self.monitor.tick())
        self.live(rest_seconds)

    def run_with(self, starts: Sequence[float]) -> bool:
        """Do it without the loop, with growths that start at these moments.

        Returns whether these are enough: no ENOSPC, and no floor that stays crossed.
        """
        self._begin()
        arrivals = [self.began_at + start + self.growth_seconds for start in starts]
        while self._acts:
            self.clock.sleep(5 * STEP_SECONDS)
            if arrivals and self.clock.now_seconds() >= arrivals[0]:
                self.volumes.append(next_size(self.read(), self.policy, Forecast()).size_bytes)
                del arrivals[0]
            if not arrivals and shortage_of(self.read(), self.policy, Forecast()):
                return False
        return not self.enospc_at

    def _begin(self) -> None:
        self._acts, self.began_at = self._to_do, self.clock.now_seconds()

    def pass_by(self, until: float) -> None:
        """Let the programs work, and growths come on, up to this moment."""
        now = self.clock.now_seconds()
        while now < until:
            at = min(until, now + STEP_SECONDS, max(now, self.growths.next_at()))
            self._work(at - now, at)
            now = at
            if self.growths.next_at() <= now:
                self.growths.happen()

    def _work(self, seconds: float, at: float) -> None:
        devices = 1 + len(self.volumes)
        taken = self._taken_bytes_per_second
        flushed = float("inf") if taken is None else taken * devices * seconds
        left = seconds
        while left > 0 and self._acts:
            act, *others = self._acts
            match act:
                case Rest(duration):
                    spent = min(left, duration)
                    rest: Act | None = Rest(duration - spent) if duration > spent else None
                case Write(count, rate):
                    room = self.cache_bytes - self.dirty_bytes + flushed
                    written = min(count, rate * left, room)
                    self._use(written, at)
                    self.dirty_bytes += written
                    spent = left if written < count else written / rate
                    rest = Write(count - written, rate) if written < count else None
                case Allocate(count):
                    self._use(count, at)
                    spent, rest = 0.0, None
                case Delete(count):
                    self.used_bytes = max(0.0, self.used_bytes - count)
                    self.dirty_bytes = max(0.0, self.dirty_bytes - count)
                    spent, rest = 0.0, None
            left -= spent
            if self.enospc_at:
                self._acts = ()
                break
            self._acts = [rest, *others] if rest else others
        self.dirty_bytes = max(0.0, self.dirty_bytes - flushed)

    def _use(self, count: float, at: float) -> None:
        if self.used_bytes + count > self.size_bytes:
            self.enospc_at.append(at)
        self.used_bytes = min(self.used_bytes + count, self.size_bytes)

    def read(self) -> Reading:
        """Look; what is dirty in the page cache is seen as well."""
        return replace(
            super().read(), dirty_bytes=int(self.dirty_bytes), cache_bytes=self.cache_bytes
        )
