"""One host of the chaos run: a filesystem with known files, a simulated EC2, a daemon."""

import hashlib
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Self

import psutil
from ebs_autoscale_demo.filesystem import scrub
from ec2_sandbox.client import Sandbox, VolumeSeen
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.faults import FaultKind
from ec2_sandbox.journal import OK
from ec2_sandbox.settings import SandboxSettings

from ebs_autoscale import config
from ebs_autoscale.ec2.requests import GROWTH_TAG
from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.model import DecisionKind
from ebs_autoscale.policy import Forecast, shortage_of
from ebs_autoscale.telemetry import EventKind
from tests.chaos.weather import Moment, Victim
from tests.system.bench import GIB, MIB, Host, find_event

# Slow enough for a kill in between, quick enough for 500 growths. A volume may stay invisible for
# longer than a killed daemon takes to start again and look.
LATENCIES: Mapping[str, Any] = {
    "create_seconds": (0.1, 0.8),
    "visibility_seconds": (0.0, 4.0),
    "flicker_seconds": (0.0, 1.0),
    "attach_seconds": (0.1, 0.8),
    "device_seconds": (-0.1, 0.3),
    "detach_seconds": (0.1, 0.5),
    "delete_seconds": (0.1, 0.5),
    "modify_seconds": (0.1, 0.8),
    "growth_seconds": (0.0, 0.3),
    "size_seconds": (-0.3, 1.0),
    "optimize_seconds": (0.1, 2.0),
}
# There are more modifications in a run of minutes than EC2 allows in a day.
_MODIFICATIONS = 1000
_LARGEST_GIB = 6

POLL_SECONDS = 0.1
UNMOUNT_SECONDS = 20.0
START_SECONDS = 30.0


def wait(condition: Callable[[], object], *, seconds: float) -> bool:
    """Whether the condition comes true within so many seconds."""
    until = monotonic() + seconds
    pause = Event()
    while not condition():
        if monotonic() > until:
            return False
        pause.wait(POLL_SECONDS)
    return True


class Ground:
    """A filesystem of 2 GiB on a host of its own; a context manager that leaves nothing behind.

    With few `slots`, most growths enlarge a volume.

    The daemon runs all the time, except between a kill and its next start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        slots: int = 27,
        latencies: Mapping[str, Any] = LATENCIES,
    ) -> None:
        self._stack = ExitStack()
        self._folder = folder
        self._digests: dict[Path, str] = {}
        self._fillings = 0
        self._heard = 0
        self._stuck: set[str] = set()
        self.removed = 0
        self.enlarged_by_others = 0
        self.largest_gib = _LARGEST_GIB
        self._largest_bytes: dict[int, int] = {}
        mountpoint = folder / "scratch"
        mountpoint.mkdir(parents=True)
        shm = Path("/dev/shm")
        store = shm if shm.is_dir() else folder
        try:
            self._base = LoopDevice.create(2 * GIB, directory=store)
            self._stack.callback(self._base.close)
            _tool("mkfs.btrfs", "--quiet", self._base.node)
            _tool("mount", self._base.node, str(mountpoint))
            self._stack.callback(self._is_unmounted)
            settings = SandboxSettings(
                block_devices="nitro",
                seed=seed,
                attachment_limit=slots,
                modifications=_MODIFICATIONS,
                **latencies,
            )
            sandbox = self._stack.enter_context(Sandbox.start(settings, directory=store))
            self.host = Host(sandbox, mountpoint=mountpoint, folder=folder)
            self.host.configure(growth={"max": f"{_LARGEST_GIB}GiB"})
            self.policy = config.load(self.host.config).policy
            self._stack.callback(self._end_daemon)
            self.daemon = self._stack.enter_context(self.host.daemon())
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _is_unmounted(self) -> bool:
        """Unmount; fails while a process of another thread is between fork and exec."""
        argv = ["umount", str(self.host.mountpoint)]
        subprocess.run(argv, check=False, capture_output=True)
        return not self.host.mountpoint.is_mount()

    def _end_daemon(self) -> None:
        """End all processes of this filesystem, including orphans of killed daemons."""
        for process in psutil.process_iter(["cmdline"]):
            if str(self.host.config) in (process.info["cmdline"] or ()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        if self.daemon.process.poll() is None:
            self.daemon.kill()
        self.daemon.process.wait()

    @property
    def low(self) -> str:
        """Why space is short, as the daemon judges it; empty when it is not."""
        shortage = shortage_of(self.host.read(), self.policy, Forecast())
        return shortage.sentence if shortage else ""

    @property
    def growths(self) -> int:
        """How many volumes were added, with those that an operator has removed, or enlarged."""
        return self.host.devices - 1 + self.removed + self.enlarged

    @property
    def enlarged(self) -> int:
        """How often the program has enlarged a volume."""
        found = self.host.sandbox.state().volumes
        return sum(volume.modifications for volume in found) - self.enlarged_by_others

    @property
    def is_full(self) -> bool:
        """Whether there may be no room for a growth: neither a slot, nor a volume to enlarge."""
        attached = sum(bool(volume.device) for volume in self.host.sandbox.state().volumes)
        # Others may take the last slot, and a GiB.
        no_slot = attached >= (self.host.sandbox.settings.slots or 0) - 1
        volumes = self._volumes()
        room_gib = sum(_LARGEST_GIB - volume.size_gib for volume in volumes)
        return no_slot and bool(volumes) and room_gib < 2

    def make_low(self) -> None:
        """Begin a round: allocate space until a volume of 1 GiB is needed and enough."""
        self._heard = len(self.daemon.log)
        reading = self.host.read()
        left = reading.size_bytes * 0.30 - 0.35 * GIB
        wanted = int(reading.available_bytes - max(left, 64 * MIB))
        self._fillings += 1
        path = self.host.mountpoint / f"filling-{self._fillings}"
        with path.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(wanted, MIB))

    def write_files(self, *, count: int = 2) -> None:
        """Write files and remember their checksums."""
        for _ in range(count):
            content = os.urandom(256 * 1024) + os.urandom(64 * 1024) * 12
            path = self.host.mountpoint / f"file-{len(self._digests)}"
            with path.open("wb") as file:
                file.write(content)
                os.fsync(file.fileno())
            self._digests[path] = hashlib.sha256(content).hexdigest()

    def kill(self, victim: Victim) -> None:
        """SIGKILL; a killed daemon is started again at once, as by systemd."""
        if victim is Victim.GROWTH:
            for child in self.daemon.children():
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            return
        if victim is Victim.BOTH:
            self.daemon.kill()
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon = self._stack.enter_context(self.host.daemon())
        self._heard = 0

    def has_told(self, kind: EventKind, **fields: str) -> bool:
        """Whether the running daemon has logged such an event in this round."""
        return find_event(self.daemon.log[self._heard :], kind, **fields) is not None

    def has_reached(self, moment: Moment) -> bool:
        """Whether the running daemon has made the decision, or started the step, in this round."""
        if moment.decision:
            return self.has_told(EventKind.DECIDED, decision=moment.decision)
        return self.has_told(EventKind.STEP_STARTED, step=moment.step or "")

    def unrest(self) -> str:
        """What is not yet as it should be at rest; empty when nothing is."""
        if (status := self.daemon.process.poll()) is not None:
            return f"the daemon has ended with {status}"
        if self._has_children():
            return "a growth runs"
        log = self.daemon.log
        if not (
            find_event(log, EventKind.DECIDED, decision=DecisionKind.HOLD)
            or find_event(log, EventKind.GROWTH_DONE)
        ):
            return "the daemon has not looked yet"
        try:
            return self.low or self._disorder()
        except EbsAutoscaleError as error:
            return str(error)

    def _has_children(self) -> bool:
        # psutil would read all processes of this machine, ten times a second for each host.
        pid = self.daemon.process.pid
        return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii"))

    def _disorder(self) -> str:
        reading = self.host.read()
        volumes = self._volumes()
        ordinals = Counter(volume.tags[GROWTH_TAG] for volume in volumes)
        if outside := [_named(v) for v in volumes if not reading.has_device(v.node)]:
            return f"not in the filesystem: {', '.join(outside)}"
        if double := [ordinal for ordinal, count in ordinals.items() if count > 1]:
            return f"growths with two volumes: {', '.join(double)}"
        if len(reading.devices) != len(volumes) + 1:
            return f"{len(reading.devices)} devices, {len(volumes)} volumes"
        sizes = {device.name: device.size_bytes for device in reading.devices}
        for what, found in (
            ("of another size than its volume", lambda v: sizes[v.node] != v.size_gib * GIB),
            ("being modified", lambda v: v.modification == "modifying"),
            ("larger than growth.max", lambda v: v.size_gib > _LARGEST_GIB),
            ("without DeleteOnTermination", lambda v: not v.delete_on_termination),
        ):
            if wrong := [volume.id for volume in volumes if found(volume)]:
                return f"{what}: {', '.join(wrong)}"
        return ""

    def leaked(self) -> list[VolumeSeen]:
        """Our volumes that are not in the filesystem."""
        reading = self.host.read()
        return [volume for volume in self._volumes() if not reading.has_device(volume.node)]

    def _volumes(self) -> list[VolumeSeen]:
        """Our volumes, without those that EC2 creates for ever: nobody can delete them.

        Also without those that ended in error and that the daemon names: a growth deletes its own
        at once, and those of a killed one are left to the operator.
        """
        return [
            volume
            for volume in self.host.volumes()
            if not (volume.state == "creating" and volume.tags[GROWTH_TAG] in self._stuck)
            and not (volume.state == "error" and self._is_reported(volume))
        ]

    def _is_reported(self, volume: VolumeSeen) -> bool:
        # A condition that lasts is not logged again when there is one volume more.
        return volume.id in str(self.host.status()["daemon"])

    def reported(self) -> int:
        """How many volumes that ended in error were left to the operator."""
        return sum(v.state == "error" and self._is_reported(v) for v in self.host.volumes())

    def end_storm(self) -> None:
        """Let EC2 work again; what it has not completed by then it never will."""
        self.host.sandbox.clear_faults()
        for call in self.host.sandbox.calls("CreateVolume"):
            if call.fault == FaultKind.STUCK:
                tags = {t["Key"]: t["Value"] for t in call.params["TagSpecifications"][0]["Tags"]}
                self._stuck.add(tags[GROWTH_TAG])

    def doubled(self) -> int:
        """How many volumes belong to a growth that has another one."""
        volumes = self._volumes()
        return len(volumes) - len({v.tags[GROWTH_TAG] for v in volumes})

    def repeated(self) -> int:
        """How many modifications had the target of another one, and no reason to."""
        calls = self.host.sandbox.calls("ModifyVolume")
        asked = {(call.params["VolumeId"], call.params["Size"]) for call in calls}
        return max(0, self.enlarged - len(asked) - self.failed())

    def failed(self) -> int:
        """How many modifications EC2 accepted and did not carry out."""
        return sum(c.fault == FaultKind.FAILED for c in self.host.sandbox.calls("ModifyVolume"))

    def shrunk(self) -> list[str]:
        """The devices that are smaller than at an earlier look, and calls that ask for that."""
        wrongs = []
        for device in self.host.read().devices:
            before = self._largest_bytes.get(device.devid, 0)
            if device.size_bytes < before:
                wrongs.append(f"{device.label} shrank from {before} to {device.size_bytes} bytes")
            self._largest_bytes[device.devid] = max(before, device.size_bytes)
        asked: dict[str, int] = {}
        for call in self.host.sandbox.calls("ModifyVolume"):
            volume, size_gib = call.params["VolumeId"], int(call.params["Size"])
            if size_gib < asked.get(volume, 0):
                wrongs.append(f"{volume} was to have {size_gib} GiB after {asked[volume]} GiB")
            if size_gib > _LARGEST_GIB:
                wrongs.append(f"{volume} was to have {size_gib} GiB, above growth.max")
            if call.outcome == OK and call.fault != FaultKind.FAILED:
                asked[volume] = max(asked.get(volume, 0), size_gib)
        return wrongs

    def verify(self) -> list[str]:
        """End the daemon, read all files, scrub, unmount and check; returns what was wrong."""
        # Until it watches, a signal ends it with another exit status.
        wait(lambda: find_event(self.daemon.log, EventKind.STARTED), seconds=START_SECONDS)
        status = self.daemon.stop()
        wrong = [f"the daemon ended with {status}"] if status else []
        wrong += [f"wrong bytes in {path.name}" for path in self._digests if self._differs(path)]
        devices = self.host.read().devices
        scrubbed = scrub(self.host.mountpoint, [device.devid for device in devices])
        if scrubbed.errors:
            wrong.append(f"the scrub found {scrubbed.errors} errors")
        wrong += [f"the sandbox: {problem}" for problem in self.host.sandbox.state().problems]
        if not wait(self._is_unmounted, seconds=UNMOUNT_SECONDS):
            return [*wrong, f"{self.host.mountpoint} stays busy"]
        check = ["btrfs", "check", "--readonly", "--check-data-csum", self._base.node]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        if done.returncode:
            wrong.append(f"btrfs check: {done.stderr.strip()[-400:]}")
        return wrong

    @property
    def files(self) -> int:
        """How many files have known checksums."""
        return len(self._digests)

    def _differs(self, path: Path) -> bool:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return hashlib.file_digest(file, "sha256").hexdigest() != self._digests[path]


def _named(volume: VolumeSeen) -> str:
    attachment = volume.attachment_state or "not attached"
    return f"{volume.id} of growth {volume.tags['ebs-autoscale:growth']}: {attachment}"


def _tool(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=120)
