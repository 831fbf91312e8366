"""The loop: statvfs, decide, execute, sleep."""

from collections.abc import Callable, Mapping

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import EbsAutoscaleError, LockHeld, Stopped
from ebs_autoscale.model import Reading, Stage
from ebs_autoscale.policy.decision import lost_members
from ebs_autoscale.policy.forecast import Experience
from ebs_autoscale.policy.health import ailments_of
from ebs_autoscale.policy.settings import GrowthPolicy
from ebs_autoscale.policy.shortage import available, data_shortage, poll_delay_seconds, shortage
from ebs_autoscale.policy.waits import Waits
from ebs_autoscale.resize.ports import Growths, Watched
from ebs_autoscale.telemetry.conditions import Conditions
from ebs_autoscale.telemetry.events import Event, EventKind, Level

HEARTBEAT_EVERY_SECONDS = 3600.0

# What waits for a human is looked at again this often, and only while there is such a thing.
RECONCILE_EVERY_SECONDS = 3600.0

# EC2 answers 20 describing calls a second of an account in a Region, after a burst of 100 (EC2
# developer guide, "Request throttling"): so 2400 instances can boot at once.
BOOT_SPREAD_SECONDS = 120.0

# While a growth runs there are its events to pass on.
GROWING_POLL_SECONDS = 0.25

# A growth that looked and saw no need, against the loop's own reading, is not asked again at once.
DISAGREEMENT_SECONDS = 5.0

# Metadata that is short is what settling helps: a data chunk moves in 10 s at 125 MiB/s.
SETTLING_PATIENCE_SECONDS = 60.0

# Somebody else's growth is through by then, or holds up ours: an operator has to know.
LOCKED_TOO_LONG_SECONDS = 60.0

# So many unexpected errors in a row are no accident: end, so that systemd shows it.
BUGS_IN_A_ROW_MAX = 5


class Monitor:
    """Watches one filesystem until it is asked to stop; owns no effect but starting growths."""

    def __init__(
        self,
        *,
        filesystem: Watched,
        growths: Growths,
        policy: GrowthPolicy,
        clock: Clock,
        emit: Callable[[Event], None],
        publish: Callable[[Mapping[str, object]], None],
    ) -> None:
        self._filesystem = filesystem
        self._growths = growths
        self._policy = policy
        self._clock = clock
        self._emit = emit
        self._publish = publish
        self._mount_conditions = Conditions(clock, emit)
        self._growth_conditions = Conditions(clock, emit)
        self._config_conditions = Conditions(clock, emit)
        self._experience = Experience()
        # What an earlier run left half-done is finished first.
        self._pending = True
        # A fleet that starts together does not ask EC2 together.
        left_of_boot = BOOT_SPREAD_SECONDS - clock.since_boot_seconds()
        spread = clock.jitter() * max(policy.polling.max_seconds, left_of_boot)
        self._quiet_until_seconds = clock.now_seconds() + spread
        self._asked_at_seconds = clock.now_seconds()
        self._usable_at_seconds: float | None = None
        self._waits = Waits(clock)
        self._locked_since_seconds: float | None = None
        self._causes: set[str] = set()
        self._started_because_low = False
        self._activity = ""
        self._decided = ""
        self._growths_done = 0
        self._heartbeat_at_seconds = clock.now_seconds() + HEARTBEAT_EVERY_SECONDS

    def follow(self, policy: GrowthPolicy) -> None:
        """Judge by this policy from now on; what the last one made wait is tried again at once."""
        self._policy = policy
        self._config_conditions.only(())
        self._waits.end()

    def refuse_configuration(self, sentence: str) -> None:
        """Tell, for as long as it is so, that the configuration is not what the operator wrote."""
        self._config_conditions.raised("configuration", sentence)

    def run(self, *, before_tick: Callable[[], None], on_stop: Callable[[], None]) -> int:
        """Tick until a stop is requested (0), or the program proves to be broken (1).

        `on_stop` is called before a running growth is waited for.
        """
        bugs = 0
        try:
            while bugs < BUGS_IN_A_ROW_MAX:
                try:
                    before_tick()
                    delay = self.tick()
                    bugs = 0
                except Exception as error:  # noqa: BLE001 -- a bug ends this tick, not the daemon
                    bugs += 1
                    delay = self._policy.polling.max_seconds
                    self._emit_bug(error)
                self._clock.sleep(delay)
        except Stopped:
            return 0
        finally:
            on_stop()
            for event in self._growths.close():
                self._hear(event)
        return 1

    def tick(self) -> float:
        """Look once, act if needed, and return the seconds until the next look is due."""
        for event in self._growths.events():
            self._hear(event)
        try:
            reading = self._filesystem.read()
        except EbsAutoscaleError as error:
            self._mount_conditions.raised(error.cause, str(error))
            self._mount_conditions.only({error.cause})
            self._experience.forget_readings()
            self._publish(self._report(None, str(error)))
            return self._policy.polling.max_seconds
        ailments = ailments_of(reading)
        for cause, sentence in ailments.items():
            self._mount_conditions.raised(cause, sentence)
        self._mount_conditions.only(ailments)
        self._experience.add(reading)
        low = shortage(reading, self._policy, self._experience.forecast)
        if not lost_members(reading):
            self._act(reading, low)
        self._beat(reading)
        self._publish(self._report(reading, low))
        if self._growths.running:
            return min(GROWING_POLL_SECONDS, self._policy.polling.max_seconds)
        return poll_delay_seconds(reading, self._policy, self._experience.forecast)

    def _act(self, reading: Reading, low: str) -> None:
        """Start a growth where one is due; never two, and never before the last one's back-off."""
        if self._growths.running:
            if low and self._growths.settling and self._is_in_the_way(reading):
                self._growths.stop()
            return
        if not low:
            self._locked_since_seconds = None
        now = self._clock.now_seconds()
        if self._waits.left_seconds and not (low and self._waits.cause == "unsettled"):
            return
        self._activity = ""
        if self._growth_conditions.sentences:
            self._pending |= now - self._asked_at_seconds >= RECONCILE_EVERY_SECONDS
        if not low and (not self._pending or now < self._quiet_until_seconds):
            return
        self._asked_at_seconds = now
        self._usable_at_seconds = None
        self._causes = set()
        self._started_because_low = bool(low)
        self._waits.pass_over()
        try:
            self._growths.start(self._experience.forecast)
        except LockHeld as error:
            self._wait_for_the_lock(low, error)
            return
        except EbsAutoscaleError as error:
            self._back_off(error.cause, error)
        self._locked_since_seconds = None

    def _is_in_the_way(self, reading: Reading) -> bool:
        """Whether settling keeps a growth waiting; that one settles again."""
        if self._waits.left_seconds:
            # It goes on beside a refusal: nothing can be bought anyway.
            return False
        if data_shortage(reading, self._policy, self._experience.forecast):
            return True
        began = self._usable_at_seconds or self._asked_at_seconds
        return self._clock.now_seconds() - began >= SETTLING_PATIENCE_SECONDS

    def _wait_for_the_lock(self, low: str, error: LockHeld) -> None:
        now = self._clock.now_seconds()
        self._activity = "another process is growing this filesystem"
        self._waits.begin("locked")
        if not low:
            return
        self._locked_since_seconds = self._locked_since_seconds or now
        if now - self._locked_since_seconds >= LOCKED_TOO_LONG_SECONDS:
            # Tried on until it is free, so that the end is told too.
            self._pending = True
            self._causes.add("locked")
            self._growth_conditions.raised("locked", f"{low}, but {error}")

    def _back_off(self, cause: str, error: EbsAutoscaleError | str) -> None:
        delay = self._waits.begin(cause)
        self._causes.add(cause)
        self._growth_conditions.raised(cause, f"{error} (next try in {delay:.0f} s)")

    def _hear(self, event: Event) -> None:
        """Take an event of the growth into account, and pass on what is worth a line."""
        match event.kind:
            case EventKind.STEP_STARTED | EventKind.STEP_PROGRESS:
                self._activity = event.sentence
                if event.fields.get("step") == "Settle":
                    self._usable_at_seconds = self._clock.now_seconds()
                self._emit(event)
            case EventKind.GROWTH_REFUSED | EventKind.GROWTH_FAILED:
                # Also a refusal: whether it still stands is for the next growth to say.
                self._pending = True
                self._activity = ""
                self._back_off(str(event.fields.get("cause", "unknown")), event.sentence)
            case EventKind.WARNING if event.fields.get("cause") == "unsettled":
                self._pending = True
                self._back_off("unsettled", event.sentence)
            case EventKind.WARNING if "cause" in event.fields:
                cause = f"{event.fields['cause']} {event.fields.get('volume', '')}".strip()
                self._causes.add(cause)
                self._growth_conditions.raised(cause, event.sentence, event.level)
            case EventKind.GROWTH_DONE:
                self._done(event)
            case EventKind.GROWTH_STOPPED:
                self._pending = True
                self._activity = ""
                self._emit(event)
            case EventKind.DECIDED:
                self._decide(event)
            case _:
                self._emit(event)

    def _done(self, event: Event) -> None:
        self._activity = ""
        self._emit(event)
        # One volume was finished: there may be another, which the next look tells.
        self._pending = event.fields.get("stage") in {Stage.CREATED, Stage.ATTACHED}
        if not self._pending:
            self._growth_conditions.only(self._causes)
        if "unsettled" in self._causes:
            self._pending = True
        else:
            self._waits.end()
        if event.fields.get("decision") != "grow":
            return
        self._growths_done += 1
        # The process has to start and to look, too; to settle metadata is no part of the wait.
        usable_at = self._usable_at_seconds or self._clock.now_seconds()
        seconds = usable_at - self._asked_at_seconds
        self._experience.learn_growth(seconds)
        # What was written before the growth was asked for is what it has answered.
        self._experience.forget_before(self._asked_at_seconds)

    def _decide(self, event: Event) -> None:
        if event.fields.get("decision") == "hold":
            self._pending = False
            self._waits.end()
            if self._started_because_low:
                self._waits.pause(DISAGREEMENT_SECONDS, "disagreement")
            self._growth_conditions.only(self._causes)
        if event.sentence != self._decided:
            self._decided = event.sentence
            self._emit(event)

    def _beat(self, reading: Reading) -> None:
        now = self._clock.now_seconds()
        if now < self._heartbeat_at_seconds:
            return
        self._heartbeat_at_seconds = now + HEARTBEAT_EVERY_SECONDS
        members = len(reading.members)
        sentence = f"watching {reading.mountpoint}: {available(reading)}, {members} members"
        fields = {"growths": self._growths_done}
        self._emit(Event(kind=EventKind.HEARTBEAT, sentence=sentence, fields=fields))

    def _report(self, reading: Reading | None, reason: str) -> dict[str, object]:
        """What the daemon knows, for `status`, systemd and the curious."""
        conditions = {
            **self._config_conditions.sentences,
            **self._mount_conditions.sentences,
            **self._growth_conditions.sentences,
        }
        return {
            "state": "growing" if self._growths.running else "unfit" if not reading else "watching",
            "activity": self._activity,
            "step": self._growths.step,
            "low": reason,
            "conditions": conditions,
            "next_try_in_seconds": round(self._waits.left_seconds),
            "growths_since_start": self._growths_done,
            "fill_bytes_per_second": round(self._experience.forecast.fill_bytes_per_second),
            "growth_seconds": round(self._experience.forecast.growth_seconds, 1),
            "reading": reading,
        }

    def _emit_bug(self, error: Exception) -> None:
        sentence = f"unexpected {type(error).__name__}: {error}; please report it"
        self._emit(Event(kind=EventKind.BUG, sentence=sentence, level=Level.ERROR))
