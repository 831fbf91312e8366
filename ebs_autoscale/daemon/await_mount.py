"""A filesystem that is not mounted: what is missing, and the mount once all devices are here."""

from collections.abc import Callable
from pathlib import Path

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Problem, Stopped
from ebs_autoscale.filesystems.btrfs.scan import PresentDevices
from ebs_autoscale.filesystems.copies import unresponsive
from ebs_autoscale.filesystems.sighting import Sighting, filesystem_at
from ebs_autoscale.host import files, fstab, systemd
from ebs_autoscale.host.command import OURSELVES, Question, run
from ebs_autoscale.host.trusted_path import trusted_path
from ebs_autoscale.model import FilesystemKind
from ebs_autoscale.telemetry import Conditions, Event, EventKind, State, View

# A device that appears is usable at once; a look costs two processes.
LOOK_EVERY_SECONDS = 10.0
# EC2 is asked which volume is away: three calls, and only while a device is.
ASK_EVERY_SECONDS = 900.0
# A mount that has failed is tried again at the next look, and then after twice as long each time.
MOUNT_RETRY_MAX_SECONDS = 60.0

# Large filesystems read their block groups and replay a log: minutes in the worst case.
_MOUNT_TIMEOUT_SECONDS = 600.0
# A look takes half a second.
_LOOK_SLICES = 25
_LOOK_SLICE_SECONDS = 0.2
_ASK_TIMEOUT_SECONDS = 180.0

_INCOMPLETE_HINT = "attach the missing volumes: it is mounted as soon as all devices are present"


class MountWaiter:
    """Waits for a filesystem to be mounted; call `advance` often, it works at its own pace.

    `stopping` is asked five times a second while a tool runs.
    """

    def __init__(
        self,
        mountpoint: str,
        *,
        config_path: Path,
        clock: Clock,
        emit: Callable[[Event], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._mountpoint = mountpoint
        self._config_path = config_path
        self._clock = clock
        self._emit = emit
        self._stopping = stopping
        self._conditions = Conditions(clock, emit)
        self._looked_at_seconds = self._asked_at_seconds = float("-inf")
        self._try_soon()
        self._away = ""
        self._detail = self._hint = ""
        self._problem: Problem | None = None
        self._looking: Question | None = None

    def advance(self, verify: Callable[[], object]) -> View | None:
        """Do what is due to get it mounted: None once `verify` accepts the mount, else the view."""
        try:
            verify()
        except EbsAutoscaleError as error:
            if error.cause in {Cause.NOT_MOUNTED, Cause.MISSING} and self._is_due():
                self._detail = self._bring_back()
            sentence = "; ".join(filter(None, [error.what, self._detail]))
            problem = self._problem or Problem(error.cause, sentence, self._hint or error.hint)
            self._conditions.raised(problem)
            self._conditions.only({problem.key})
            return View(
                state=State.WAITING,
                activity=f"waiting for {self._mountpoint} to be mounted",
                shortage=problem.line,
                conditions=self._conditions.lines,
            )
        self._conditions.only(())
        return None

    def _is_due(self) -> bool:
        now = self._clock.now_seconds()
        if now - self._looked_at_seconds < LOOK_EVERY_SECONDS:
            return False
        self._looked_at_seconds = now
        return True

    def _bring_back(self) -> str:
        """Mount it if fstab lists it and all devices are present; returns what prevents that.

        Not while a copy is visible, which the kernel might mount instead, nor while a device that
        may be one does not respond.
        """
        self._problem, self._hint = None, ""
        try:
            line = fstab.line_at(files.read_text(fstab.FSTAB), self._mountpoint)
            if not (line and line.uuid):
                return f"no line of {fstab.FSTAB} mounts it by UUID"
            uuid = line.uuid
            seen = self._look(uuid, FilesystemKind(line.kind))
            if isinstance(seen, Problem):
                self._problem = seen
                return ""
            if not seen.complete:
                self._try_soon()
                self._hint = _INCOMPLETE_HINT
                return f"{uuid}: {seen.sentence}{self._which_is_away(uuid)}"
            trusted_path(self._mountpoint)
            return self._mount(uuid)
        except EbsAutoscaleError as error:
            return str(error)

    def _look(self, uuid: str, kind: FilesystemKind) -> PresentDevices | Problem:
        """Its devices on this host, or why it must not be mounted.

        One process looks at a time, however long a block device keeps it.
        """
        if self._looking:
            if self._looking.answer(wait_seconds=0) is None:
                return unresponsive()
            # That answer is out of date by now.
            self._looking = None
        looking = Sighting.asked(uuid, kind)
        for _ in range(_LOOK_SLICES):
            if answer := looking.answer(wait_seconds=_LOOK_SLICE_SECONDS):
                seen = Sighting.of(answer)
                return seen.copy or seen.present
            if self._stopping():
                looking.drop()
                raise Stopped
        self._looking = looking
        return unresponsive()

    def _try_soon(self) -> None:
        """A mount is tried at the next look and, if it fails, less and less often."""
        self._mount_at_seconds, self._mount_pause_seconds = float("-inf"), LOOK_EVERY_SECONDS

    def _mount(self, uuid: str) -> str:
        """Never with `degraded`: a missing device of single data would be lost for good.

        The kernel knows a new device before udevd has told systemd, whose mount then fails.
        """
        now = self._looked_at_seconds
        if now < self._mount_at_seconds:
            return self._detail
        self._mount_at_seconds = now + self._mount_pause_seconds
        self._mount_pause_seconds = min(2 * self._mount_pause_seconds, MOUNT_RETRY_MAX_SECONDS)
        argv = ["mount", self._mountpoint]
        if systemd.is_running():
            # The daemon has mounts of its own; systemd mounts for all.
            argv = ["systemctl", "start", systemd.mount_unit(self._mountpoint)]
        self._run(*argv, timeout_seconds=_MOUNT_TIMEOUT_SECONDS)
        if (found := filesystem_at(self._mountpoint)) != uuid:
            return f"the mount of {uuid} has mounted {found or 'nothing'}"
        sentence = f"mounted {self._mountpoint}: all its devices are present"
        self._emit(Event(kind=EventKind.TENDED, sentence=sentence))
        return ""

    def _which_is_away(self, uuid: str) -> str:
        """The volumes of this filesystem that EC2 knows and this host does not show."""
        now = self._clock.now_seconds()
        if now - self._asked_at_seconds >= ASK_EVERY_SECONDS:
            self._asked_at_seconds = now
            # By a process: boto3 costs 45 MB and half a second.
            options = ("--config", str(self._config_path), "--missing-volumes", uuid)
            argv = (*OURSELVES, "status", *options)
            try:
                self._away = self._run(*argv, timeout_seconds=_ASK_TIMEOUT_SECONDS).strip()
            except EbsAutoscaleError as error:
                self._away = f"cannot ask EC2 which volume is missing: {error}"
        return f"; {self._away}" if self._away else ""

    def _run(self, *argv: str, timeout_seconds: float) -> str:
        return run(argv, timeout_seconds=timeout_seconds, stopping=self._stopping)
