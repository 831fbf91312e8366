"""The loop's surroundings: a filesystem to watch, and growths that go as the test says."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Problem
from ebs_autoscale.filesystems.mounted import OpenMount
from ebs_autoscale.model import GIB, DecisionKind, Device, Reading, Stage, StepKind
from ebs_autoscale.monitor import Monitor
from ebs_autoscale.policy.forecast import Forecast
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.telemetry.events import Event, EventKind
from ebs_autoscale.telemetry.view import State, View
from tests.simulated.clock import SimulatedClock
from tests.unit.samples import reading_of

Course = Sequence[tuple[float, Event]]
"""What a growth says, each word so many seconds after its start; the last one is its end."""


def said(kind: EventKind, sentence: str = "as it is", **fields: Any) -> Event:
    """An event of a growth."""
    return Event(kind=kind, sentence=sentence, **fields)


def held() -> Course:
    """A growth that looked and saw no need."""
    hold = said(EventKind.DECIDED, "hold: 50 % available", decision=DecisionKind.HOLD)
    return [(0.5, hold)]


def done(
    seconds: float = 6.0,
    *,
    decision: DecisionKind = DecisionKind.GROW,
    stage: Stage | None = None,
) -> Course:
    """A growth that went well."""
    end = said(EventKind.GROWTH_DONE, decision=decision, seconds=seconds, stage=stage)
    return [
        (0.1, said(EventKind.DECIDED, "grow: little available", decision=decision)),
        (0.2, said(EventKind.STEP_STARTED, "attach the volume", step=StepKind.ATTACH_VOLUME)),
        (seconds, end),
    ]


def balancing() -> Event:
    """The beginning of a growth's last step."""
    step = StepKind.BALANCE_METADATA
    return said(EventKind.STEP_STARTED, "balance metadata", step=step)


def failed(cause: Cause, seconds: float = 0.5) -> Course:
    """A growth that failed for this cause."""
    sentence = f"it failed: {cause.value}"
    return [(seconds, said(EventKind.GROWTH_FAILED, sentence, cause=cause))]


def refused(limit: Cause) -> Course:
    """A growth that a limit forbade."""
    sentence = f"refused by {limit.value}"
    return [(0.5, said(EventKind.GROWTH_REFUSED, sentence, cause=limit))]


class SimulatedGrowths:
    """Growths one at a time, as the loop knows them; `course` says how the next one goes."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._unsaid: list[tuple[float, Event]] = []
        self.course: Callable[[], Course] = held
        self.starts_at: list[float] = []
        self.forecasts: list[Forecast] = []
        self.stops_at: list[float] = []
        self.attempts = 0
        self.error: EbsAutoscaleError | None = None
        self.is_closed = False
        self.step: StepKind | None = None
        self.stuck: Problem | None = None

    @property
    def running(self) -> bool:
        """Whether one has begun whose end has not been told."""
        return bool(self._unsaid)

    def start(self, forecast: Forecast) -> None:
        """Begin one; two at a time would be an error of the loop."""
        assert not self.running
        self.attempts += 1
        if self.error:
            raise self.error
        self.starts_at.append(self._clock.now_seconds())
        self.forecasts.append(forecast)
        self._unsaid = [(self.starts_at[-1] + after, event) for after, event in self.course()]

    def events(self) -> list[Event]:
        """What it has said since the last call."""
        now = self._clock.now_seconds()
        words = [event for at, event in self._unsaid if at <= now]
        self._unsaid = self._unsaid[len(words) :]
        for event in words:
            self.step = event.step if isinstance(event.step, StepKind) else self.step
        self.step = self.step if self._unsaid else None
        return words

    def stop(self) -> None:
        """End it at once."""
        self.stops_at.append(self._clock.now_seconds())
        self._unsaid = [(self.stops_at[-1], said(EventKind.GROWTH_STOPPED))]

    def close(self) -> list[Event]:
        """End it and return its last words."""
        self.is_closed = True
        if self.running:
            self.stop()
        return self.events()


@contextmanager
def open_root() -> Iterator[OpenMount]:
    """The root of this host, in the place of a filesystem that does not exist."""
    fd = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield OpenMount(fd=fd, uuid="")
    finally:
        os.close(fd)


@dataclass(slots=True)
class Watch:
    """A loop over a filesystem of 100 GiB, everything it told, and what it published last."""

    clock: SimulatedClock = field(default_factory=SimulatedClock)
    policy: GrowthPolicy = field(default_factory=GrowthPolicy)
    available_gib: float = 50
    metadata_gib: float = 50
    mountpoint: str = "/scratch"
    listed: tuple[Device, ...] = reading_of(100, 50).devices
    reserve_bytes: int = 0
    errors: list[Exception] = field(default_factory=list)
    lasting_error: Exception | None = None
    events: list[Event] = field(default_factory=list)
    view: View = field(default_factory=lambda: View(state=State.WATCHING))
    growths: SimulatedGrowths = field(init=False)
    monitor: Monitor = field(init=False)

    def __post_init__(self) -> None:
        self.growths = SimulatedGrowths(self.clock)
        self.monitor = Monitor(
            filesystem=self,
            growths=self.growths,
            policy=self.policy,
            clock=self.clock,
            emit=self.events.append,
            publish=self.publish,
        )

    def devices(self) -> tuple[Device, ...]:
        """Look at what a read-only filesystem shows, too."""
        return self.listed

    @contextmanager
    def opened(self) -> Iterator[OpenMount]:
        """Hold a mount open, or fail as asked for; the loop asks its statvfs, which any has."""
        if error := self.errors.pop(0) if self.errors else self.lasting_error:
            raise error
        with open_root() as mount:
            yield mount

    def reading(self, mount: OpenMount, statvfs: os.statvfs_result) -> Reading:  # noqa: ARG002 -- as in Watched
        """Look."""
        reading = reading_of(
            100,
            self.available_gib,
            metadata_headroom_bytes=int(self.metadata_gib * GIB),
            reserve_bytes=self.reserve_bytes,
            taken_at_seconds=self.clock.now_seconds(),
        )
        return replace(reading, devices=self.listed)

    def publish(self, view: View) -> None:
        """Keep the newest report."""
        self.view = view

    def run(self, seconds: float) -> int:
        """Let the loop run that long, then go on as if it had never stopped."""
        self.clock.start_again()
        self.clock.stop_at_seconds = self.clock.now_seconds() + seconds
        return self.monitor.run(before_tick=lambda: None, on_stop=lambda: None)

    def look_for(self, seconds: float) -> None:
        """Let it tick that long without an end."""
        until = self.clock.now_seconds() + seconds
        while self.clock.now_seconds() < until:
            self.clock.sleep(self.monitor.tick())

    def told(self, kind: EventKind) -> list[str]:
        """The lines of one kind, in order."""
        return [event.line for event in self.events if event.kind is kind]

    def causes(self, kind: EventKind) -> list[str]:
        """The causes of one kind, in order."""
        return [e.cause.value for e in self.events if e.kind is kind and e.cause]
