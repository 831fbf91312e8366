"""The loop: read, decide, act, sleep."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from math import inf
from typing import Protocol

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Exit, LockHeld, Problem, Stopped
from ebs_autoscale.filesystems.mounted import OpenMount
from ebs_autoscale.model import DecisionKind, Device, Reading, Stage, StepKind
from ebs_autoscale.policy import (
    NEEDS_DEVICES,
    NEEDS_READING,
    Action,
    FillHistory,
    Forecast,
    GrowthPolicy,
    LoopState,
    Phase,
    Shortage,
    describe_available,
    device_problems,
    lead_time_seconds,
    missing_device,
    missing_reserve,
    next_action,
    poll_delay_seconds,
    problems_of,
    retry_delay_seconds,
    seconds_until_full,
    shortage_of,
    unused_devices,
)
from ebs_autoscale.telemetry import (
    Conditions,
    Event,
    EventKind,
    Level,
    ManagedVolumes,
    State,
    Tally,
    View,
)
from ebs_autoscale.units import counted

HEARTBEAT_EVERY_SECONDS = 3600.0

# EC2 answers 20 describing calls a second of an account in a Region, after a burst of 100 (EC2
# developer guide, "Request throttling"): so 2400 instances can boot at once.
BOOT_SPREAD_SECONDS = 120.0

# While a growth runs, its events are read this often.
GROWING_POLL_SECONDS = 0.25

# Another process's growth ends sooner. If it holds the lock longer, the operator must know.
LOCKED_TOO_LONG_SECONDS = 60.0

# An operator who has put something right does not want to wait longer.
WORTH_A_RELOAD_SECONDS = 10.0

# A reserve that was held for so long is no longer one that somebody goes on removing.
RESERVE_LASTS_SECONDS = 900.0

# A tick that begins so much after its time shows a host that is overloaded, or a loop that waited.
LATE_AFTER_SECONDS = 1.0

# A growth that is decided has passed every limit.
_REFUSALS = {cause.value for cause in Cause if cause.exit is Exit.REFUSED}

# After this many unexpected errors in a row, exit, so that systemd reports a failed service.
BUGS_IN_A_ROW_MAX = 5


class Watched(Protocol):
    """The filesystem as the loop sees it; all calls raise Unfit or Transient."""

    @property
    def mountpoint(self) -> str:
        """The absolute path."""
        ...

    def devices(self) -> tuple[Device, ...]:
        """The devices, also of a filesystem that is read-only; raises OSError, too."""
        ...

    def opened(self) -> AbstractContextManager[OpenMount]:
        """The verified mount, held open while this is entered."""
        ...

    def reading(self, mount: OpenMount, statvfs: os.statvfs_result) -> Reading:
        """The current state, with statvfs as the caller read it."""
        ...


class Growths(Protocol):
    """Growths, which run beside the loop one at a time."""

    @property
    def running(self) -> bool:
        """Whether one runs."""
        ...

    @property
    def step(self) -> StepKind | None:
        """The step it is in."""
        ...

    @property
    def stuck(self) -> Problem | None:
        """Why it does not go on, if nothing can end it."""
        ...

    def start(self, forecast: Forecast) -> None:
        """Begin one; raises LockHeld or Unfit."""
        ...

    def events(self) -> list[Event]:
        """What it said since the last call."""
        ...

    def stop(self) -> None:
        """Ask it to end early."""
        ...

    def close(self) -> list[Event]:
        """End it, wait for it, and return its last events."""
        ...


class Monitor:
    """Watches one filesystem until it is asked to stop; its only effect is to start growths."""

    def __init__(
        self,
        *,
        filesystem: Watched,
        growths: Growths,
        policy: GrowthPolicy,
        clock: Clock,
        emit: Callable[[Event], None],
        publish: Callable[[View], None],
    ) -> None:
        self.reload_command = "systemctl reload ebs-autoscale"
        self._filesystem = filesystem
        self._growths = growths
        self._policy = policy
        self._reserve_bytes: int | None = 0
        self._clock = clock
        self._emit = emit
        self._publish = publish
        self._filesystem_conditions = Conditions(clock, emit)
        self._growth_conditions = Conditions(clock, emit)
        self._config_conditions = Conditions(clock, emit)
        self._process_conditions = Conditions(clock, emit)
        self._reserve_conditions = Conditions(clock, emit)
        self._history = FillHistory()
        now = clock.now_seconds()
        # Instances that boot together must not all call EC2 together.
        left_of_boot = BOOT_SPREAD_SECONDS - clock.since_boot_seconds()
        spread = clock.jitter() * max(policy.polling.max_seconds, left_of_boot)
        self._state = LoopState(started_at_seconds=now, pending_from_seconds=now + spread)
        self._reserve_looks = 0
        self._reserve_look_at_seconds = now
        self._raised_in_growth: set[str] = set()
        # At the latest reading, while space is short.
        self._seconds_left = inf
        self._activity = self._decided = ""
        self._growths_done = 0
        self.tally = Tally()
        self._managed = ManagedVolumes()
        self._managed_devices: int | None = None
        self._retry_at: int | None = None
        self._heartbeat_at_seconds = now + HEARTBEAT_EVERY_SECONDS

    def set_policy(self, policy: GrowthPolicy) -> None:
        """Use this policy from now on, and try again at once whatever failed or is still wrong."""
        self._policy = policy
        self._config_conditions.only(())
        now = self._clock.now_seconds()
        self._state = self._state.after_reload(now, conditions=bool(self._growth_conditions))

    def set_reserve(self, configured_bytes: int | None) -> None:
        """The emergency reserve that growths are to hold: 0 for none, None by size."""
        self._reserve_bytes = configured_bytes
        self._reserve_looks, self._reserve_look_at_seconds = 0, self._clock.now_seconds()

    def report_rejected_configuration(self, error: EbsAutoscaleError) -> None:
        """Report, until a reload succeeds, that the latest configuration was rejected."""
        self._config_conditions.raised(Problem.of_error(error))

    def run(self, *, before_tick: Callable[[], None], on_stop: Callable[[], None]) -> int:
        """Tick until a stop is requested (returns 0) or too many ticks in a row fail (returns 1).

        `on_stop` is called before a running growth is waited for.
        """
        bugs = 0
        due_at_seconds = inf
        try:
            while bugs < BUGS_IN_A_ROW_MAX:
                try:
                    if self._clock.now_seconds() - due_at_seconds >= LATE_AFTER_SECONDS:
                        self.tally.late_ticks += 1
                    before_tick()
                    delay = self.tick()
                    bugs = 0
                except Stopped:
                    raise
                except Exception as error:  # noqa: BLE001 -- a bug ends this tick, not the daemon
                    bugs += 1
                    delay = self._policy.polling.max_seconds
                    self._emit_bug(error)
                due_at_seconds = self._clock.now_seconds() + delay
                self._clock.sleep(delay)
        except Stopped:
            return 0
        finally:
            on_stop()
            for event in self._growths.close():
                self._handle(event)
        return 1

    def tick(self) -> float:
        """Read, decide, act, and return the seconds until the next reading is due."""
        for event in self._growths.events():
            self._handle(event)
        self._report_stuck(self._growths.stuck)
        try:
            reading = self._read()
        except EbsAutoscaleError as error:
            self._without_reading(error)
            return self._policy.polling.max_seconds
        self._history.add(reading, lead_time_seconds(self._policy, self._history.forecast))
        self._report_problems(reading)
        forecast = self._history.forecast
        shortage = shortage_of(reading, self._policy, forecast)
        self._seconds_left = seconds_until_full(reading, forecast) if shortage else inf
        if not missing_device(reading):
            self._look_after_reserve(reading)
            self._state = self._state.seeing(unused_devices(reading), running=self._growths.running)
            self._act(shortage)
        self._heartbeat(reading)
        self._check_managed(reading)
        self._publish(self._view(reading, shortage.sentence if shortage else ""))
        if self._growths.running:
            return min(GROWING_POLL_SECONDS, self._policy.polling.max_seconds)
        return poll_delay_seconds(reading, self._policy, forecast)

    def _read(self) -> Reading:
        with self._filesystem.opened() as mount:
            return self._filesystem.reading(mount, os.statvfs(mount.fd))

    def _without_reading(self, error: EbsAutoscaleError) -> None:
        """Tell why; what cannot be judged without a reading stays as it is."""
        problems, unjudged = [Problem.of_error(error)], NEEDS_READING | NEEDS_DEVICES
        if error.cause is Cause.READ_ONLY:
            with suppress(EbsAutoscaleError, OSError):
                devices = self._filesystem.devices()
                problems += device_problems(self._filesystem.mountpoint, devices)
                unjudged = NEEDS_READING
        for problem in problems:
            self._filesystem_conditions.raised(problem)
        self._filesystem_conditions.only(
            {problem.key for problem in problems} | {cause.value for cause in unjudged}
        )
        self._history.forget_readings()
        self._seconds_left = inf
        self._publish(self._view(None, str(error)))

    def _report_problems(self, reading: Reading) -> None:
        """Tell what is wrong with the filesystem, and what no longer is."""
        problems = list(problems_of(reading))
        for problem in problems:
            self._filesystem_conditions.raised(problem)
        self._filesystem_conditions.only(problem.key for problem in problems)

    def _report_stuck(self, problem: Problem | None) -> None:
        if problem:
            self._process_conditions.raised(problem)
        self._process_conditions.only([problem.key] if problem else [])

    def _look_after_reserve(self, reading: Reading) -> None:
        """Have a missing reserve made by a growth, ever less often if it does not last.

        While a growth runs or is due, that one makes it. Each look costs a process and three
        describing calls, and users may be able to remove the reserve as often as they like.
        """
        now = self._clock.now_seconds()
        if reading.reserve_bytes or self._reserve_bytes == 0:
            self._reserve_conditions.only(())
            if now >= self._reserve_look_at_seconds + RESERVE_LASTS_SECONDS:
                self._reserve_looks = 0
            return
        if self._state.pending or self._growths.running:
            return
        problem = missing_reserve(
            self._reserve_bytes, reading, self._policy, self._history.forecast
        )
        if problem is None:
            return
        self._reserve_conditions.raised(problem, Level.WARNING)
        if now >= self._reserve_look_at_seconds:
            self._reserve_looks += 1
            delay = retry_delay_seconds(problem.cause, attempts=self._reserve_looks, jitter=1.0)
            self._reserve_look_at_seconds = now + delay
            self._state = self._state.unfinished()

    def _act(self, shortage: Shortage | None) -> None:
        """Do what the state of growths and this shortage ask for."""
        now, running = self._clock.now_seconds(), self._growths.running
        if not shortage and not running:
            self._state = self._state.unlocked()
        left = self._seconds_left
        if self._state.phase(now, running=running, seconds_left=left) is Phase.WATCHING:
            self._activity = ""
        action = next_action(
            self._state,
            shortage,
            now_seconds=now,
            running=running,
            conditions=bool(self._growth_conditions),
            seconds_left=left,
        )
        match action:
            case Action.START_GROWTH:
                self._start(shortage)
            case Action.STOP_BALANCE:
                self._growths.stop()
            case Action.LOOK_AGAIN:
                pass

    def _start(self, shortage: Shortage | None) -> None:
        now = self._clock.now_seconds()
        self._state = self._state.starting(now, short=shortage is not None)
        self._raised_in_growth = set()
        self._activity = ""
        try:
            self._growths.start(self._history.forecast)
        except LockHeld as error:
            self._wait_for_lock(shortage, error)
            return
        except EbsAutoscaleError as error:
            self._back_off(Problem.of_error(error))
        self._state = self._state.unlocked()

    def _wait_for_lock(self, shortage: Shortage | None, error: LockHeld) -> None:
        now = self._clock.now_seconds()
        self._activity = "another process is growing this filesystem"
        self._state = self._state.locked(
            now, short=shortage is not None, jitter=self._clock.jitter()
        )
        since = self._state.locked_since_seconds
        if shortage and since is not None and now - since >= LOCKED_TOO_LONG_SECONDS:
            # Keep trying until the lock is free, to report the end of the condition too.
            self._state = self._state.unfinished()
            self._raise(Problem(Cause.LOCKED, f"{shortage.sentence}, but {error.what}", error.hint))

    def _back_off(self, problem: Problem) -> None:
        now = self._clock.now_seconds()
        self._state = self._state.failed(problem.cause, now, jitter=self._clock.jitter())
        delay = self._state.retry_in_seconds(now, seconds_left=self._seconds_left)
        when = f"next retry in {max(1.0, delay):.0f} s"
        if delay >= WORTH_A_RELOAD_SECONDS:
            when += f"; `{self.reload_command}` retries at once"
        self._raise(problem, when=when)

    def _raise(self, problem: Problem, level: Level = Level.ERROR, *, when: str = "") -> None:
        self._raised_in_growth.add(problem.key)
        self._growth_conditions.raised(problem, level, when=when)

    def _handle(self, event: Event) -> None:
        """Take an event of the growth into account, and pass on what is worth a line."""
        self._learn(event)
        match event.kind:
            case EventKind.STEP_STARTED | EventKind.STEP_PROGRESS:
                self._activity = event.sentence
                if event.step is StepKind.BALANCE_METADATA:
                    self._state = self._state.usable(self._clock.now_seconds())
                self._emit(event)
            case EventKind.GROWTH_REFUSED | EventKind.GROWTH_FAILED:
                # A refusal too: the next growth checks whether it still applies.
                self._state = self._state.unfinished()
                self._activity = ""
                self._back_off(_problem_of(event))
            case EventKind.WARNING if event.cause is Cause.UNBALANCED:
                self._state = self._state.unfinished()
                self._back_off(_problem_of(event))
            case EventKind.WARNING if event.cause:
                self._raise(replace(_problem_of(event), volume=event.volume or ""), event.level)
            case EventKind.GROWTH_DONE:
                self._on_done(event)
            case EventKind.GROWTH_STOPPED:
                self._state = self._state.unfinished()
                self._activity = ""
                self._emit(event)
            case EventKind.DECIDED:
                self._on_decision(event)
            case _:
                self._emit(event)

    def _learn(self, event: Event) -> None:
        """Take what the event tells of the world; whether it is worth a line is another matter."""
        self.tally.add(event, self._clock.wall_seconds())
        if event.kind is EventKind.INVENTORY:
            self._managed, self._managed_devices = ManagedVolumes.of_event(event), None
        elif event.device and event.bytes_per_second is not None:
            self._history.learn_throughput(event.device, float(event.bytes_per_second))

    def _on_done(self, event: Event) -> None:
        self._activity = ""
        self._emit(event)
        # There may be a second unfinished volume; the next growth finds out.
        last = event.stage in {None, Stage.ADDED, Stage.BALANCED}
        state, self._state = self._state, self._state.done(last=last)
        if last:
            self._growth_conditions.only(self._raised_in_growth)
        if event.decision not in {DecisionKind.GROW, DecisionKind.ENLARGE}:
            return
        self._growths_done += 1
        # From the start of the process until the space was usable; balancing comes after that.
        usable_at = state.usable_at_seconds or self._clock.now_seconds()
        self._history.learn_growth(usable_at - state.started_at_seconds)
        # The growth already accounted for what was written before it started.
        self._history.forget_before(state.started_at_seconds)

    def _on_decision(self, event: Event) -> None:
        if event.decision is DecisionKind.HOLD:
            self._state = self._state.held(self._clock.now_seconds())
            self._growth_conditions.only(self._raised_in_growth)
        if event.decision is DecisionKind.GROW:
            self._growth_conditions.only(self._growth_conditions.lines.keys() - _REFUSALS)
        if event.sentence != self._decided:
            self._decided = event.sentence
            self._emit(event)

    def _heartbeat(self, reading: Reading) -> None:
        now = self._clock.now_seconds()
        if now < self._heartbeat_at_seconds:
            return
        self._heartbeat_at_seconds = now + HEARTBEAT_EVERY_SECONDS
        devices = counted(len(reading.devices), "device")
        sentence = f"watching {reading.mountpoint}: {describe_available(reading)}, {devices}"
        self._emit(Event(kind=EventKind.HEARTBEAT, sentence=sentence, growths=self._growths_done))

    def _check_managed(self, reading: Reading) -> None:
        """Forget what EC2 said about the volumes once an operator has added or removed one."""
        if self._growths.running:
            return
        count = len(reading.devices)
        if self._managed_devices not in {None, count}:
            self._managed = ManagedVolumes()
        self._managed_devices = count

    def _next_retry_at(self) -> int | None:
        """When the next growth is tried, in seconds of the epoch; None when none is waited for."""
        left = self._state.retry_in_seconds(
            self._clock.now_seconds(), seconds_left=self._seconds_left
        )
        if not left or self._growths.running:
            return None
        retry_at = round(self._clock.wall_seconds() + left)
        # What is only rounded differently is no news, which would be written at each tick.
        is_same = self._retry_at is not None and abs(retry_at - self._retry_at) <= 1
        return self._retry_at if is_same else retry_at

    def _view(self, reading: Reading | None, shortage: str) -> View:
        state = State.WATCHING if reading else State.UNFIT
        self._retry_at = self._next_retry_at()
        return View(
            state=State.GROWING if self._growths.running else state,
            activity=self._activity,
            step=self._growths.step,
            shortage=shortage,
            conditions={
                **self._config_conditions.lines,
                **self._filesystem_conditions.lines,
                **self._growth_conditions.lines,
                **self._process_conditions.lines,
                **self._reserve_conditions.lines,
            },
            growths_since_start=self._growths_done,
            forecast=self._history.forecast,
            reading=reading,
            managed=self._managed,
            retry_at=self._retry_at,
            recent=tuple(self.tally.recent),
            tally=self.tally,
        )

    def _emit_bug(self, error: Exception) -> None:
        sentence = f"unexpected {type(error).__name__}: {error}"
        self._emit(
            Event(kind=EventKind.BUG, sentence=sentence, hint="please report it", level=Level.ERROR)
        )


def _problem_of(event: Event) -> Problem:
    return Problem(event.cause or Cause.DIED, event.sentence, event.hint)
