"""One BTRFS filesystem: read sysfs, add device, settle metadata."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from typing import Protocol

from ebs_autoscale.errors import Cause, CommandFailed, Stopped, Transient, Unfit
from ebs_autoscale.filesystems.btrfs.chunks import PROFILES
from ebs_autoscale.filesystems.btrfs.ioctl import (
    add_device_now,
    balance_progress,
    devids_with_metadata,
    superblock_uuid,
)
from ebs_autoscale.filesystems.btrfs.metadata import (
    device_to_relieve,
    devices_with_room,
    has_starved_metadata,
    takes_next_metadata,
)
from ebs_autoscale.filesystems.btrfs.mount import BtrfsMount, OpenMount, forgetting
from ebs_autoscale.filesystems.btrfs.reading import exclusive_operation, reading_of
from ebs_autoscale.filesystems.btrfs.reserve import Reserve, is_tight
from ebs_autoscale.filesystems.btrfs.sysfs import BtrfsSysfs
from ebs_autoscale.host import paths
from ebs_autoscale.host.command import never, run
from ebs_autoscale.model import MIB, Reading, Rebalance

Verified = Callable[[], AbstractContextManager[object]]
"""Entered right before an add; raises unless the device is blank, and keeps its name its own."""

# 12 to 430 ms measured for 10 GiB to 16 TiB; the rest is for hosts that drown in writes.
_ADD_TIMEOUT_SECONDS = 120.0

_LOOK_EVERY_SECONDS = 0.5
# A resize or an add by somebody else ends in this time, a balance of GiB chunks rarely
# does; then other things are worth looking at before the next try.
_FOREIGN_OPERATION_SECONDS = 60.0
# Since Linux 5.17; older kernels refuse, which costs nothing.
_ADD_IS_ALLOWED = ("none", "balance paused")
# Of a tenth of the filesystem each, at most: more will not make the room that one did not.
_MOST_CHUNKS_MOVED = 8
# 20 s for each GiB of metadata (measured): this is for 500 GiB of it.
_BALANCE_TIMEOUT_SECONDS = 3 * 3600.0
# Somebody else's may move all data there is; only a stop ends our patience with it.
_FOREIGN_TIMEOUT_SECONDS = 30 * 24 * 3600.0
# Both end with the chunk being moved: 1 to 5 s measured, 20 s for 1 GiB at 125 MiB/s.
_PAUSE_TIMEOUT_SECONDS = 60.0
# Exit status of pause and cancel: there is nothing to pause or cancel (btrfs-progs 4.15 to 6.19).
_NOT_RUNNING = 2
# `stopping` is asked five times a second.
_TELL_EVERY_ASKED = 10


def untold(_sentence: str) -> None:
    """Nobody wants to know."""


class Clock(Protocol):
    """Time, and waiting that ends early with Stopped."""

    def now_seconds(self) -> float:
        """Seconds since some fixed moment."""

    def sleep(self, seconds: float) -> None:
        """Wait; raises Stopped when a stop is requested."""


class BtrfsFilesystem:
    """One mounted BTRFS filesystem, bound to its UUID at construction.

    Every look and every change first proves the mount (law 6) and raises Unfit when it is
    not what it has to be; see BtrfsMount for the causes.
    """

    def __init__(self, mountpoint: str, *, clock: Clock) -> None:
        self._mount = BtrfsMount(mountpoint)
        self._sysfs = BtrfsSysfs(self._mount.uuid)
        self._balance = Balance(self._mount)
        self._reserve = Reserve(self._mount)
        self._clock = clock

    @property
    def uuid(self) -> str:
        """The filesystem's UUID, as sysfs and blkid write it."""
        return self._mount.uuid

    @property
    def mountpoint(self) -> str:
        """The absolute path, without symlinks."""
        return self._mount.path

    def read(self) -> Reading:
        """Look once, in microseconds and without a subprocess; raises Unfit or Transient."""
        with self.opened() as mount:
            return self.reading(mount, os.fstatvfs(mount.fd))

    def reading(self, mount: OpenMount, statvfs: os.statvfs_result) -> Reading:
        """What the filesystem says, beside what statvfs says of it; raises OSError."""
        now_seconds = self._clock.now_seconds()
        return reading_of(
            mount, self._sysfs, statvfs, mountpoint=self.mountpoint, now_seconds=now_seconds
        )

    def exclusive_operation(self) -> str:
        """What keeps others from changing the devices now, such as `balance paused`, or `none`.

        Without a subprocess, but may wait for a commit. Raises Unfit or Transient.
        """
        with self.opened() as mount:
            return exclusive_operation(mount, self._sysfs)

    def add_device(
        self,
        name: str,
        *,
        verified: Verified | None = None,
        tell: Callable[[str], None] = untold,
    ) -> None:
        """Make the block device with this kernel name a device, without force, unless it is one.

        `verified` is entered right before the add and raises unless the device is blank: what no tool
        recognises is overwritten. Without it only the tool's own look for signatures protects. A
        balance gives way, other exclusive operations are waited for within bounds. Raises Unfit
        or Transient, and Stopped while waiting.
        """
        if self._is_device(name):
            return
        self._make_way(tell)
        try:
            self._add(name, verified)
        except CommandFailed as error:
            # When our timeout met a device add that was through, nothing has failed.
            if self._is_device(name):
                return
            if not self._refused_beside_a_pause(error):
                raise add_failure(name, error) from error
            tell("this kernel adds nothing beside a paused balance, so it is cancelled")
            self._balance.cancel()
            self._add(name, verified)
        if not self._is_device(name):
            # The tool of 6.2 takes the kernel's refusal for a success when another operation
            # begins between its own look and the call.
            raise Transient(
                f"{name} was added, but is not a device",
                hint="an exclusive operation that began at that moment has kept it out",
                cause=Cause.EXCLUSIVE_OPERATION,
            )

    def _add(self, name: str, verified: Verified | None) -> None:
        if verified is None:
            add_by_tool(self._mount, name)
            return
        with verified():
            if is_tight(self.read()):
                add_at_the_end(self._mount, name, self._reserve)
            else:
                add_by_tool(self._mount, name)

    def _make_way(self, tell: Callable[[str], None]) -> None:
        """Wait until a device can be added; a balance, which may take days, is paused for it."""
        deadline_seconds = self._clock.now_seconds() + _FOREIGN_OPERATION_SECONDS
        while (operation := self.exclusive_operation()) not in _ADD_IS_ALLOWED:
            if operation == "balance":
                tell(f"somebody's balance gives way to this growth: {self._balance.progress()}")
                self._balance.give_way()
                if self.exclusive_operation() in _ADD_IS_ALLOWED:
                    return
            tell(f"waiting for somebody else's {operation} to end")
            if self._clock.now_seconds() >= deadline_seconds:
                raise Transient(
                    f"somebody else's {operation} keeps devices from being added",
                    hint="let it end, or end it",
                    cause=Cause.EXCLUSIVE_OPERATION,
                )
            self._clock.sleep(_LOOK_EVERY_SECONDS)

    def _refused_beside_a_pause(self, error: CommandFailed) -> bool:
        """Whether this kernel or tool, before 5.17 and 5.18, makes no exception for a pause."""
        return is_exclusive(error) and self._balance.gave_way(self.exclusive_operation())

    def needs_balance(self, mode: Rebalance, newest: str) -> bool:
        """Whether settling would change something now, `newest` being the last device's name.

        Derived from the filesystem alone. In every mode: a balance that gave way is to be taken
        up again. For `full`: no metadata is on the newest device, though the next chunk would go
        there. For `bounded` as for `full`: metadata in copies on several devices finds room on
        too few.
        """
        with self.opened() as mount:
            reading = self.reading(mount, os.fstatvfs(mount.fd))
            if self._balance.gave_way(exclusive_operation(mount, self._sysfs)):
                return True
            if mode is Rebalance.OFF:
                return False
            if has_starved_metadata(reading, data_profile=self._sysfs.data_profile()):
                return True
            if mode is Rebalance.BOUNDED or not takes_next_metadata(reading, newest):
                return False
            devids = {device.devid for device in reading.devices if device.name == newest}
            return devids.isdisjoint(devids_with_metadata(mount.fd))

    def balance_metadata(
        self,
        mode: Rebalance,
        *,
        stopping: Callable[[], bool] = never,
        tell: Callable[[str], None] = untold,
    ) -> str:
        """Make metadata safe on the devices there are; says what it chose and why.

        Safe to repeat. First takes up a balance that gave way. `bounded` moves the least that
        protects, `full` rewrites all metadata: about 20 s for each GiB at 125 MiB/s, with
        writers waiting for up to 14 s (measured). Raises Transient while another exclusive
        operation runs, and when a balance fails; Stopped, after having cancelled ours
        or paused the other, once `stopping` is true.
        """
        if self._balance.gave_way(self.exclusive_operation()):
            done = self._balance.take_up(stopping=stopping, tell=tell)
            tell(f"somebody's balance was taken up again: {done}")
        if mode is Rebalance.OFF:
            return "nothing to do: metadata.rebalance is off"
        if (operation := self.exclusive_operation()) != "none":
            raise self._kept_from_settling(operation)
        reading = self.read()
        before_bytes = reading.metadata_headroom_bytes
        moved = self._relieve_devices(stopping, tell)
        if mode is Rebalance.FULL:
            done = self._balance.start("-m", stopping=stopping, tell=tell)
            self._relieve_devices(stopping, tell)  # what was moved may have taken that room
            return f"rewrote all metadata: {done}; {self._headroom_since(before_bytes)}"
        profile = reading.metadata_profile
        if moved:
            what = f"moved {moved} data chunks: {profile} metadata has room on enough devices again"
            return f"{what}; {self._headroom_since(before_bytes)}"
        roomy = devices_with_room(reading)
        if roomy >= PROFILES[profile].least_devices:
            return (
                f"nothing to do: {profile} metadata has room on {roomy} devices for its next chunk"
            )
        # All is allocated already, and no data chunk has another place to go.
        self._balance.start("-musage=10,limit=1", stopping=stopping, tell=tell)
        what = f"no device has room for {profile} metadata: gave back what is nearly empty"
        return f"{what}; {self._headroom_since(before_bytes)}"

    def _headroom_since(self, before_bytes: int) -> str:
        """What settling has brought; the proof that it protects."""
        now_bytes = self.read().metadata_headroom_bytes
        return f"headroom for metadata {before_bytes // MIB} MiB before, {now_bytes // MIB} now"

    def _kept_from_settling(self, operation: str) -> Transient:
        hint = f"see `btrfs balance status {self.mountpoint}`"
        if operation == "balance paused" and not self._balance.progress():
            # Two device adds at once leave this behind; nothing but an unmount ends it.
            operation = "phantom of a paused balance, left by two device adds at once,"
            hint = f"nothing is lost; it is gone after `umount {self.mountpoint}` and a mount"
        return Transient(
            f"somebody else's {operation} keeps metadata from being settled",
            hint=hint,
            cause=Cause.EXCLUSIVE_OPERATION,
        )

    def balance_progress(self) -> str:
        """How far the running or paused balance is, in words; empty when there is none."""
        return self._balance.progress()

    def keep_reserve(self, data_bytes: int) -> str:
        """Hold an emergency reserve of this much data, none for 0; see Reserve."""
        return self._reserve.keep(data_bytes)

    def _relieve_devices(self, stopping: Callable[[], bool], tell: Callable[[str], None]) -> int:
        """Move data chunks off devices that have no room for metadata; how many it took."""
        for moved in range(_MOST_CHUNKS_MOVED):
            reading = self.read()
            if not has_starved_metadata(reading, data_profile=self._sysfs.data_profile()):
                return moved
            devid = device_to_relieve(reading).devid
            self._balance.start(f"-ddevid={devid},limit=1", stopping=stopping, tell=tell)
        return _MOST_CHUNKS_MOVED

    def _is_device(self, name: str) -> bool:
        """Whether it is one in sysfs and on disk; on one side only, a human has to look."""
        listed = self.read().has_device(name)
        try:
            written = superblock_uuid(f"/dev/{name}") == self.uuid
        except OSError as error:
            if not listed:
                return False
            what = f"cannot read the superblock on {name}: {error}"
            raise Transient(what, cause=Cause.ADD) from error
        if listed and not written:
            path = self.mountpoint
            way = f"umount {path} && {forgetting(self.uuid)}mount {path}"
            raise Unfit(
                f"the kernel lists {name} as a device of {self.uuid}, but its superblock does not",
                hint=f"stop the users of {path}, `{way}`",
                cause=Cause.HALF_ADDED,
            )
        if written and not listed:
            raise Unfit(
                f"{name} says that it is a device of {self.uuid}, but the kernel does not list it: "
                "it is a copy of a device (a restored snapshot), or was one once",
                hint=f"look what it is; if nothing on it is needed, `wipefs --all /dev/{name}`",
                cause=Cause.NOT_BLANK,
            )
        return listed

    @contextmanager
    def opened(self) -> Iterator[OpenMount]:
        """The mount, verified, and open as long as it is entered; raises Unfit or Transient."""
        try:
            with self._mount.opened() as mount:
                yield mount
        except OSError as error:
            self._mount.verify()
            raise Transient(
                f"cannot read the state of {self.mountpoint}: {error}", cause=Cause.READING
            ) from error


def add_by_tool(mount: BtrfsMount, name: str) -> None:
    """Add without force and without TRIM, which EBS does not have; raises CommandFailed."""
    argv = ["btrfs", "device", "add", "-K", f"/dev/{name}", mount.path]
    run(argv, timeout_seconds=_ADD_TIMEOUT_SECONDS)


def add_at_the_end(mount: BtrfsMount, name: str, reserve: Reserve) -> None:
    """Give up the reserve and add at once what is proved blank; raises CommandFailed.

    A process would take 30 to 400 ms to come to that, in which fast writers use the reserve up;
    this way it is 2 to 4 ms (measured).
    """
    with mount.opened() as opened:
        # Worse than the kernel's race is no space at all: a failure keeps nothing back.
        with suppress(Transient, Unfit):
            reserve.keep(0)
        try:
            add_device_now(opened.fd, f"/dev/{name}")
        except OSError as error:
            argv = ("BTRFS_IOC_ADD_DEV", f"/dev/{name}")
            raise CommandFailed(argv, error.errno, error.strerror or "") from error


def add_failure(name: str, error: CommandFailed) -> Transient | Unfit:
    """What a failed add means to whoever asked for it."""
    if "appears to contain" in error.stderr:
        return Unfit(
            f"{name} is not blank: {error.stderr.splitlines()[0]}",
            hint="look what is on it; nothing is ever overwritten",
            cause=Cause.NOT_BLANK,
        )
    if is_exclusive(error):
        return Transient(
            f"cannot add {name} now: {error}",
            hint="let it end, or end it; before Linux 5.17 a paused balance too is in the way",
            cause=Cause.EXCLUSIVE_OPERATION,
        )
    return Transient(f"cannot add {name}: {error}", cause=Cause.ADD)


def is_exclusive(error: CommandFailed) -> bool:
    """Whether another exclusive operation was in the way."""
    return "exclusive operation" in error.stderr or "in progress" in error.stderr


class Balance:
    """Starts ours, which dies with us; lets somebody else's give way, and takes it up again.

    That a balance was paused by us and not by its owner cannot be seen in the filesystem: a mark
    under /run says so. Both last until the filesystem is unmounted.
    """

    def __init__(self, mount: BtrfsMount) -> None:
        self._mount = mount
        self._mark = paths.balance_mark(mount.uuid)

    def start(
        self, filters: str, *, stopping: Callable[[], bool], tell: Callable[[str], None]
    ) -> str:
        """Run ours to its end; returns the tool's last word.

        Raises Transient when it fails or somebody else ends it; Stopped, after having
        cancelled it, once `stopping` is true.
        """
        argv = ["btrfs", "balance", "start", filters, self._mount.path]
        return self._run(argv, _BALANCE_TIMEOUT_SECONDS, self._watched(stopping, tell), dies=True)

    def gave_way(self, operation: str) -> bool:
        """Whether the filesystem has a balance that we paused, `operation` being what runs now."""
        if operation == "none":
            self._mark.unlink(missing_ok=True)
        return operation == "balance paused" and self._mark.exists()

    def give_way(self) -> None:
        """Pause the balance that runs, at the end of its chunk; raises Transient when it does not.

        Nothing happens to it but that; done too when it ended by itself meanwhile.
        """
        try:
            self._mark.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._mark.touch()
            self._command("pause")
        except (CommandFailed, OSError) as error:
            raise Transient(
                f"somebody else's balance cannot be paused: {error}",
                hint=f"`btrfs balance cancel {self._mount.path}`",
                cause=Cause.EXCLUSIVE_OPERATION,
            ) from error

    def take_up(self, *, stopping: Callable[[], bool], tell: Callable[[str], None]) -> str:
        """Go on with what gave way, to its end; returns the tool's last word.

        Raises Transient when it fails, or its owner ends it; Stopped, after having paused it once
        more, when `stopping` is true.
        """

        def pausing() -> bool:
            if stopping():
                self.give_way()
                raise Stopped("somebody else's balance gives way once more")
            return False

        argv = ["btrfs", "balance", "resume", self._mount.path]
        watched = self._watched(pausing, tell)
        done = self._run(argv, _FOREIGN_TIMEOUT_SECONDS, watched, dies=False)
        self._mark.unlink(missing_ok=True)
        return done

    def cancel(self) -> None:
        """End the balance for good; done when there is none."""
        self._mark.unlink(missing_ok=True)
        self._command("cancel")

    def progress(self) -> str:
        """How far it is: `3 of 10 chunks moved`; empty when there is none."""
        with self._mount.opened() as mount:
            progress = balance_progress(mount.fd)
        return f"{progress.completed} of {progress.expected} chunks moved" if progress else ""

    def _command(self, verb: str) -> None:
        argv = ["btrfs", "balance", verb, self._mount.path]
        try:
            run(argv, timeout_seconds=_PAUSE_TIMEOUT_SECONDS)
        except CommandFailed as error:
            if error.status != _NOT_RUNNING:
                raise

    def _run(
        self, argv: list[str], timeout_seconds: float, stopping: Callable[[], bool], *, dies: bool
    ) -> str:
        try:
            output = run(
                argv, timeout_seconds=timeout_seconds, stopping=stopping, dies_with_us=dies
            )
        except CommandFailed as error:
            self._mount.verify()
            if "by user" in error.stderr:
                raise self._overruled(argv) from error
            raise Transient(
                f"settling metadata failed: {error}",
                hint="the new space is usable all the same",
                cause=Cause.BALANCE,
            ) from error
        # Exit status 0 also when it was paused or cancelled; only this word says that it is done.
        if not output.startswith("Done"):
            raise self._overruled(argv)
        return output.strip()

    def _overruled(self, argv: list[str]) -> Transient:
        """Its owner's word counts: what he pauses is not taken up again."""
        self._mark.unlink(missing_ok=True)
        return Transient(
            f"somebody paused or cancelled `{' '.join(argv)}`",
            hint=f"`btrfs balance resume {self._mount.path}`, if it is paused",
            cause=Cause.BALANCE,
        )

    def _watched(
        self, stopping: Callable[[], bool], tell: Callable[[str], None]
    ) -> Callable[[], bool]:
        asked = count(1)

        def look() -> bool:
            if next(asked) % _TELL_EVERY_ASKED == 0 and (progress := self.progress()):
                tell(f"balance: {progress}")
            return stopping()

        return look
