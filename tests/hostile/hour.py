"""Growths beside a hostile user and foreign volumes, compared with growths that nobody disturbs."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from ebs_autoscale.host.mountinfo import parse
from ebs_autoscale.telemetry import EventKind
from tests.chaos.ground import Ground, wait
from tests.hostile.meddler import ATTACHED_MAX, KINDS, Meddler
from tests.system.bench import events_in

RATIO_MAX = 1.5
UNDISTURBED = 5

# 27 slots, less those of foreign volumes and those that a round needs that grows twice.
GROWTHS_MAX = 23 - ATTACHED_MAX

# About what EC2 takes, and always the same, so that a difference comes from the attacks.
LATENCIES: Mapping[str, Any] = {
    "create_seconds": (1.0, 1.0),
    "attach_seconds": (2.0, 2.0),
    "device_seconds": (0.2, 0.2),
}
GROWTH_SECONDS = 60.0
PAUSE_SECONDS = 2.0

# One of its own for each run: what this user sends signals to is then this run's as well.
_UID_FIRST, _UIDS = 61_000, 4000
_ATTACKS = "tests.hostile.attacks"
_PROJECT = Path(__file__).parents[2]


@dataclass(slots=True)
class Tally:
    """What has happened so far, and what was wrong."""

    undisturbed: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=dict)
    foreign: Counter[str] = field(default_factory=Counter)
    conditions: Counter[str] = field(default_factory=Counter)
    files: int = 0
    leaked: int = 0
    wrongs: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How much longer a growth takes beside the attacks, at the median."""
        return median(self.disturbed) / median(self.undisturbed)

    def summary(self) -> Iterator[tuple[str, str]]:
        """A line for each figure and for each attack."""
        for name in sorted({*self.done, *self.refused}):
            reasons = self.refused.get(name, Counter())
            why = f", refused {reasons.total()}" if reasons else ""
            why += "".join(f" ({text})" for text, _ in reasons.most_common(1))
            yield name, f"succeeded {self.done[name]}{why}"
        yield "volumes", ", ".join(f"{name} {count}" for name, count in self.foreign.items())
        yield "conditions", ", ".join(f"{n} {c}" for n, c in self.conditions.items()) or "none"
        for title, each in (("undisturbed", self.undisturbed), ("disturbed", self.disturbed)):
            if each:
                middle = f"median {median(each):.2f} s, at most {max(each):.2f} s"
                yield title, f"{len(each)} growths: {middle}"
        if self.undisturbed and self.disturbed:
            yield "ratio", f"{self.ratio:.2f}, {RATIO_MAX} at most"
        yield "checksums", f"{self.files} files"
        yield "leaked volumes", str(self.leaked)
        yield "wrong", str(len(self.wrongs))


def hour(
    *, seconds: float, seed: int, folder: Path, say: Callable[[str], object] = lambda _: None
) -> Tally:
    """Attack for this long; a filesystem that has grown often is verified, then comes the next."""
    tally = Tally()
    dice = Random(seed)  # noqa: S311 -- repeatable on purpose
    until = monotonic() + seconds
    act = 0
    while monotonic() < until and not tally.wrongs:
        with Ground(folder / str(act), seed=seed, latencies=LATENCIES) as ground:
            _play(ground, tally, dice=dice, until=until)
            passed = seconds + monotonic() - until
            say(f"{len(tally.disturbed)} disturbed growths after {passed:.0f} s")
        act += 1
    if tally.undisturbed and tally.disturbed and tally.ratio > RATIO_MAX:
        tally.wrongs.append(f"growths take {tally.ratio:.2f} times as long beside the attacks")
    if not (tally.disturbed and tally.done) and not tally.wrongs:
        tally.wrongs.append(f"no growth was disturbed in {seconds:.0f} s, or no attack succeeded")
    return tally


def _play(ground: Ground, tally: Tally, *, dice: Random, until: float) -> None:
    precious = _precious(ground)
    for _ in range(UNDISTURBED):
        tally.undisturbed.append(_growth(ground, tally))
    meddler = Meddler(ground.host, dice)
    kinds: list[str] = []
    with _attacker(ground, tally, seed=dice.getrandbits(32)) as uid:
        while ground.growths < GROWTHS_MAX and monotonic() < until and not tally.wrongs:
            kinds = kinds or dice.sample(list(KINDS), len(KINDS))
            meddler.make(kinds.pop())
            _settle(ground, tally)
            # Sometimes the mountpoint is the user's own, sometimes open to all.
            _give(ground.host.mountpoint, *dice.choice(((uid, 0o755), (uid, 0o755), (0, 0o1777))))
            Event().wait(PAUSE_SECONDS)
            tally.disturbed.append(_growth(ground, tally))
    _give(ground.host.mountpoint, 0, 0o755)
    _verdict(ground, tally, meddler)
    if _facts(precious[0]) != precious[1]:
        tally.wrongs.append(f"{precious[0]} of root's was changed")


def _settle(ground: Ground, tally: Tally) -> None:
    """Wait for the growth that a removed device may have led to."""
    if not wait(lambda: not ground.low and not ground.daemon.children(), seconds=GROWTH_SECONDS):
        tally.wrongs.append(f"short of space {GROWTH_SECONDS:.0f} s after a deed: {ground.low}")


def _growth(ground: Ground, tally: Tally) -> float:
    """Write until space is short, and return how many seconds later it is not."""
    while not ground.low:
        ground.make_low()
    began = monotonic()
    if not wait(lambda: not ground.low, seconds=GROWTH_SECONDS):
        log = "\n".join(f"    {line}" for line in ground.daemon.log.splitlines()[-15:])
        tally.wrongs.append(f"still short after {GROWTH_SECONDS:.0f} s: {ground.low}\n{log}")
    took = monotonic() - began
    ground.write_files()
    # Else the next shortage could meet the rest of this growth.
    wait(lambda: not ground.daemon.children(), seconds=GROWTH_SECONDS)
    return took


def _precious(ground: Ground) -> tuple[Path, tuple[Any, ...]]:
    """A file of root's that links of the attacker point at, and what it is."""
    outside = ground.host.folder / "outside"
    outside.mkdir(mode=0o1777)
    outside.chmod(0o1777)
    path = outside / "precious"
    path.write_bytes(os.urandom(4096))
    path.chmod(0o600)
    return path, _facts(path)


def _facts(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest, status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns


def _give(mountpoint: Path, uid: int, mode: int) -> None:
    os.chown(mountpoint, uid, uid)
    mountpoint.chmod(mode)


@contextmanager
def _attacker(ground: Ground, tally: Tally, *, seed: int) -> Iterator[int]:
    """Run the attacks as a user of its own: its uid. It leaves no process and no mount."""
    uid = _UID_FIRST + os.getpid() % _UIDS
    host = ground.host
    for folder in (host.folder, *host.folder.parents):
        # To be reachable is what makes it interesting.
        folder.chmod(folder.stat().st_mode | 0o011)
    own = host.mountpoint / "theirs"
    own.mkdir()
    os.chown(own, uid, uid)
    log = host.folder / "attacks.log"
    address = urlsplit(host.sandbox.endpoint_url)
    places = [str(host.mountpoint), str(host.folder / "outside"), str(uid)]
    argv = [sys.executable, "-m", _ATTACKS, *places, str(ground.daemon.process.pid)]
    argv += [str(address.hostname), str(address.port), str(seed)]
    users = host.folder / "passwd"
    # fusermount3 serves only users who have a name.
    users.write_text(
        f"{Path('/etc/passwd').read_text('utf-8')}hostile:x:{uid}:{uid}::/:\n", "utf-8"
    )
    subprocess.run(["mount", "--bind", str(users), "/etc/passwd"], check=True)
    with log.open("wb") as output:
        attacker = subprocess.Popen(argv, cwd=_PROJECT, stdout=output)
    try:
        yield uid
        if (status := attacker.poll()) is not None:
            tally.wrongs.append(f"the attacker has ended with {status}: see its traceback")
    finally:
        _end_all(uid)
        attacker.kill()
        attacker.wait()
        # Gone already if a user was added to this machine meanwhile, which renames a file over it.
        subprocess.run(["umount", "--lazy", "/etc/passwd"], check=False)
        _unmount_below(host.folder, but=host.mountpoint)
    for line in log.read_text("utf-8").splitlines():
        with suppress(ValueError):
            tried = json.loads(line)
            if tried["refused"]:
                reasons = tally.refused.setdefault(tried["attack"], Counter())
                reasons[tried["refused"]] += 1
            else:
                tally.done[tried["attack"]] += 1


def _end_all(uid: int) -> None:
    """Kill all processes of this user."""
    child = os.fork()
    if not child:
        with suppress(OSError):
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(child, 0)


def _unmount_below(folder: Path, *, but: Path) -> None:
    points = [mount.point for mount in parse(Path("/proc/self/mountinfo").read_bytes())]
    for point in reversed(points):
        if point.startswith(f"{folder}/") and point != str(but):
            subprocess.run(["umount", "--lazy", "--", point], check=False, capture_output=True)


def _verdict(ground: Ground, tally: Tally, meddler: Meddler) -> None:
    """What was leaked, lost, restarted or touched."""
    tally.foreign.update(meddler.kinds)
    wrongs = meddler.touched()
    if leaked := [volume.id for volume in ground.leaked() if volume.id not in meddler.ids]:
        tally.leaked += len(leaked)
        wrongs.append(f"leaked: {', '.join(leaked)}")
    events = events_in(ground.daemon.log)
    started = sum(event["event"] == EventKind.STARTED for event in events)
    if started != 1 or ground.daemon.process.poll() is not None:
        wrongs.append(f"the daemon started {started} times, or has ended")
    for event in events:
        if event["event"] == EventKind.CONDITION_BEGAN:
            tally.conditions[str(event.get("cause"))] += 1
    if "Traceback" in ground.daemon.log:
        wrongs.append("a traceback in the daemon's log")
    log = ground.daemon.log
    wrongs += ground.verify()
    tally.files += ground.files
    if wrongs:
        wrongs[-1] += "\n" + "\n".join(f"    {line}" for line in log.splitlines()[-15:])
    tally.wrongs += wrongs
