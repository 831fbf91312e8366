"""Rounds of faults and kills on several hosts in parallel, counted and verified."""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from statistics import median
from threading import Event, Lock
from time import monotonic

from ebs_autoscale.model import DecisionKind
from ebs_autoscale.telemetry import EventKind
from tests.chaos.ground import Ground, wait
from tests.chaos.interference import interfere
from tests.chaos.meddler import Meddler
from tests.chaos.weather import TAKEN_OUT, Deed, Storm, Victim, storm_of

# 27 slots minus the root volume, minus some for a round that grows twice.
GROWTHS_MAX = 20

# Of every second host: the root volume, and what is there when growths begin to enlarge it.
SLOTS = (2, 3, 4)

# After a restart a growth waits up to 20 s for a volume that EC2 does not show, besides its usual
# waits. A stuck attachment takes 90 s more, for each of two names.
CONVERGE_SECONDS = 120.0
CONVERGE_PATIENTLY_SECONDS = 420.0

# A growth is a new process, which starts within a second on an idle machine.
BEGIN_SECONDS = 30.0

# Back-offs, and waiting for a volume that EC2 does not show, may take minutes. Most rounds end them
# by a restart of the daemon.
CALM_SECONDS = 6.0

# The campaign ends after this many failures.
WRONGS_MAX = 5


@dataclass(slots=True)
class Tally:
    """What all hosts have done so far, and what was wrong."""

    growths_wanted: int
    growths: int = 0
    rounds: int = 0
    playing: int = 0
    filesystems: int = 0
    files: int = 0
    leaked: int = 0
    doubled: int = 0
    enlarged: int = 0
    repeated: int = 0
    reported: int = 0
    touched: int = 0
    foreign: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    storms: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    converge_seconds: list[float] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    lock: Lock = field(default_factory=Lock)
    over: Event = field(default_factory=Event)

    def note_round(self, storm: Storm, *, growths: int, seconds: float) -> None:
        """Count a completed round."""
        with self.lock:
            self.rounds += 1
            self.playing -= 1
            self.growths += growths
            self.storms.update(storm.names)
            self.converge_seconds.append(seconds)

    def has_begun_round(self) -> bool:
        """Count a round that begins; returns False when the running ones are enough."""
        with self.lock:
            enough = self.growths + self.playing >= self.growths_wanted
            self.playing += not enough
            return not enough

    def note_wrong(self, where: str, wrongs: list[str], log: str) -> None:
        """Keep what was wrong, with the end of the daemon's log."""
        with self.lock:
            last = "\n".join(f"    {line}" for line in log.splitlines()[-15:])
            self.wrongs += [f"{where}: {wrong}\n{last}" for wrong in wrongs]
            if len(self.wrongs) >= WRONGS_MAX:
                self.over.set()

    def summary(self) -> Iterator[tuple[str, str]]:
        """A line for each figure."""
        yield "growths", f"{self.growths} in {self.rounds} rounds"
        yield "enlarged", f"{self.enlarged} times, {self.repeated} of them in vain"
        yield "kill -9", _counted(self.kills)
        yield "storms", _counted(self.storms)
        yield "struck calls", _counted(self.struck)
        if self.converge_seconds:
            middle, most = median(self.converge_seconds), max(self.converge_seconds)
            yield "converged", f"after {middle:.1f} s at the median, {most:.1f} s at most"
        yield "leaked volumes", str(self.leaked)
        yield "double volumes", str(self.doubled)
        yield "reported", f"{self.reported} that ended in error in a growth that was killed"
        yield "touched", f"{self.touched} of {_counted(self.foreign)}"
        yield (
            "verified",
            f"{self.filesystems} filesystems: {self.files} checksums, scrub, btrfs check",
        )
        yield "wrong", str(len(self.wrongs))


def _counted(counter: Counter[str]) -> str:
    counts = ", ".join(f"{name} {number}" for name, number in counter.most_common())
    return f"{counter.total()}: {counts}"


def campaign(
    *,
    growths: int,
    hosts: int,
    seed: int,
    seconds: float,
    folder: Path,
    say: Callable[[str], object] = lambda _: None,
) -> Tally:
    """Do this many growths on this many hosts; no round begins after this many seconds."""
    tally = Tally(growths_wanted=growths)
    began = monotonic()
    until = began + seconds
    with ThreadPoolExecutor(hosts) as pool:
        playing = [
            pool.submit(
                _Theatre(
                    folder / str(number), seed, tally, until, has_few_slots=number % 2 > 0
                ).play
            )
            for number in range(hosts)
        ]
        try:
            for each in playing:
                while not _has_ended(each):
                    say(f"{tally.growths} growths after {monotonic() - began:.0f} s")
        finally:
            tally.over.set()
    if tally.growths < growths and not tally.wrongs:
        tally.wrongs.append(f"only {tally.growths} of {growths} growths in {seconds:.0f} s")
    return tally


def _has_ended(playing: Future[None]) -> bool:
    """Whether it ends within a minute; raises its exception."""
    try:
        playing.result(timeout=60)
    except TimeoutError:
        return playing.done()
    return True


def _has_begun(ground: Ground) -> bool:
    """Whether a growth was decided on, or has failed before."""
    decisions = (DecisionKind.GROW, DecisionKind.ENLARGE, DecisionKind.FINISH)
    decided = (ground.has_told(EventKind.DECIDED, decision=each) for each in decisions)
    return any(decided) or ground.has_told(EventKind.CONDITION_BEGAN)


class _Theatre:
    """One host after the other, each with a filesystem that is verified at its end."""

    def __init__(
        self, folder: Path, seed: int, tally: Tally, until: float, *, has_few_slots: bool
    ) -> None:
        self._folder = folder
        self._dice = Random(f"{seed}-{folder.name}")  # noqa: S311 -- repeatable on purpose
        self._tally = tally
        self._until = until
        self._slots = SLOTS if has_few_slots else (27,)

    @property
    def _is_over(self) -> bool:
        return self._tally.over.is_set() or monotonic() > self._until

    def play(self) -> None:
        """Play until there are enough growths or failures, or time is up."""
        for act in count():
            if self._is_over or self._tally.growths >= self._tally.growths_wanted:
                return
            seed = self._dice.getrandbits(32)
            try:
                slots = self._slots[act % len(self._slots)]
                with Ground(self._folder / str(act), seed=seed, slots=slots) as ground:
                    if not self._play_on(ground):
                        return
            except Exception as error:  # noqa: BLE001 -- the summary has to contain it
                self._note_wrong([f"{type(error).__name__}: {error}"], traceback.format_exc())

    def _play_on(self, ground: Ground) -> bool:
        """Fill this filesystem and verify it; returns False when nothing is left to do."""
        wrongs: list[str] = []
        meddler = Meddler(ground)
        goes_on = True
        while goes_on and not wrongs and not ground.is_full and ground.growths < GROWTHS_MAX:
            goes_on = not self._is_over and self._tally.has_begun_round()
            if goes_on and (wrong := self._round(ground, meddler)):
                wrongs = [wrong]
            wrongs += ground.shrunk()
        log = ground.daemon.log
        with self._tally.lock:
            self._tally.leaked += len(ground.leaked())
            self._tally.doubled += ground.doubled()
            self._tally.enlarged += ground.enlarged
            self._tally.repeated += ground.repeated()
            self._tally.reported += ground.reported()
            touched = meddler.touched()
            self._tally.touched += len(touched)
            self._tally.foreign.update(meddler.kinds)
            calls = ground.host.sandbox.calls()
            self._tally.struck.update(
                call.outcome if call.fault == "error" else call.fault
                for call in calls
                if call.fault
            )
        wrongs += touched
        if not wrongs:
            wrongs = ground.verify()
            with self._tally.lock:
                self._tally.filesystems += 1
                self._tally.files += ground.files
        self._note_wrong(wrongs, log)
        return goes_on

    def _note_wrong(self, wrongs: list[str], log: str) -> None:
        self._tally.note_wrong(f"host {self._folder.name}", wrongs, log)

    def _round(self, ground: Ground, meddler: Meddler) -> str:
        """Play one storm; returns what was wrong afterwards."""
        storm = storm_of(self._dice, number=next(self._tally.numbers))
        before, failed = ground.growths, ground.failed()
        if storm.foreign and storm.foreign.early:
            meddler.bring(storm.foreign, self._dice)
        for rule in storm.faults:
            ground.host.sandbox.add_fault(rule)
        ground.make_low()
        if storm.foreign and not storm.foreign.early:
            meddler.bring(storm.foreign, self._dice)
        self._rage(ground, storm)
        ground.end_storm()
        began = monotonic()
        if not storm.patient and not wait(lambda: not ground.unrest(), seconds=CALM_SECONDS):
            self._kill(ground, Victim.BOTH)
        patience = CONVERGE_PATIENTLY_SECONDS if storm.patient else CONVERGE_SECONDS
        if not wait(lambda: not ground.unrest(), seconds=patience):
            names = ", ".join(storm.names) or "kills"
            return f"after {names}: {ground.unrest()} for {patience:.0f} s"
        ground.write_files()
        seconds = monotonic() - began
        growths = ground.growths - before - (ground.failed() - failed)
        if growths > 1 and not (storm.foreign and storm.foreign.kind == TAKEN_OUT):
            return f"after {', '.join(storm.names) or 'kills'}: {growths} growths, but 1 was needed"
        self._tally.note_round(storm, growths=ground.growths - before, seconds=seconds)
        return ""

    def _rage(self, ground: Ground, storm: Storm) -> None:
        """Kill and interfere while files are being written."""
        if all(kill.moment for kill in storm.kills):
            wait(partial(_has_begun, ground), seconds=BEGIN_SECONDS)
        ends = monotonic() + storm.seconds
        for kill in storm.kills:
            if kill.moment:
                wait(partial(ground.has_reached, kill.moment), seconds=ends - monotonic())
            Event().wait(kill.seconds)
            self._kill(ground, kill.victim)
            ground.write_files(count=1)
        if storm.deed is not Deed.NONE:
            interfere(ground, storm.deed, seconds=storm.seconds)
        wait(lambda: not ground.unrest(), seconds=ends - monotonic())

    def _kill(self, ground: Ground, victim: Victim) -> None:
        ground.kill(victim)
        with self._tally.lock:
            self._tally.kills[victim] += 1
