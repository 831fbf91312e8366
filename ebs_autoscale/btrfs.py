"""One BTRFS filesystem: read its state, add and extend devices, balance metadata."""

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from itertools import count
from typing import Protocol

from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.filesystems.btrfs import ioctl, repair
from ebs_autoscale.filesystems.btrfs.metadata import (
    data_can_make_room,
    device_to_free,
    has_room,
    takes_next_chunk,
)
from ebs_autoscale.filesystems.btrfs.mount import BtrfsMount
from ebs_autoscale.filesystems.btrfs.reading import devices_of, exclusive_operation, reading_of
from ebs_autoscale.filesystems.btrfs.reserve import Reserve, is_near_enospc
from ebs_autoscale.filesystems.btrfs.sysfs import BtrfsSysfs
from ebs_autoscale.filesystems.mounted import OpenMount, VerifiedFilesystem
from ebs_autoscale.host import paths
from ebs_autoscale.host.blank import require_writable
from ebs_autoscale.host.command import never, run
from ebs_autoscale.host.requirements import require_able_to_grow
from ebs_autoscale.model import Device, FilesystemKind, Reading, Rebalance
from ebs_autoscale.units import counted, format_size

Verified = Callable[[], AbstractContextManager[object]]
"""Entered right before an add: raises unless the device is blank, and keeps its name valid."""

Tell = Callable[[str], None]
"""Called with what is being done or waited for."""

NO_VOLUMES: Mapping[str, str] = {}

# Measured: 12 to 430 ms for devices of 10 GiB to 16 TiB; hosts with much dirty data take longer.
_ADD_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.5
# A resize or an add of another process ends within this time, the removal of a device may take
# hours. The growth then fails for now, so that it is retried with all its checks.
_EXCLUSIVE_OPERATION_TIMEOUT_SECONDS = 60.0
# A paused balance since Linux 5.17. Older kernels refuse the add, see `_add_despite_pause`.
_ADD_IS_ALLOWED = ("none", "balance paused")
# Each chunk is up to a tenth of the filesystem: if this many make no room, more will not either.
_MOVED_CHUNKS_MAX = 8

# Measured: 20 s for each GiB of metadata at 125 MiB/s. Enough for 500 GiB.
_BALANCE_TIMEOUT_SECONDS = 3 * 3600.0
# The balance of another process may move all data.
_RESUME_TIMEOUT_SECONDS = 30 * 24 * 3600.0
# Pause and cancel wait for the chunk being moved. Measured: 1 to 5 s, 20 s for a chunk of 1 GiB at
# 125 MiB/s.
_PAUSE_TIMEOUT_SECONDS = 60.0
# Exit status of `btrfs balance pause` and `cancel` when no balance runs (btrfs-progs 4.15 to 6.19).
_NO_BALANCE = 2
# `stopping` is called five times a second.
_TELL_EVERY_CALLS = 10


def ignore(_sentence: str) -> None:
    """Do nothing."""


class Clock(Protocol):
    """Monotonic time, and waiting that a stop ends early."""

    def now_seconds(self) -> float:
        """Seconds since some fixed moment."""

    def sleep(self, seconds: float) -> None:
        """Wait; raises Stopped when a stop is requested."""


class BtrfsFilesystem(VerifiedFilesystem[BtrfsMount]):
    """One mounted BTRFS filesystem, bound to its UUID at construction.

    Every read and every change first verifies the mount, and raises Unfit when it is not as it has
    to be; see BtrfsMount for the causes.
    """

    def __init__(self, mountpoint: str, *, clock: Clock) -> None:
        super().__init__(BtrfsMount(mountpoint))
        self._sysfs = BtrfsSysfs(self._mount.uuid)
        self._balance = _Balance(self._mount)
        self._reserve = Reserve(self._mount)
        self._clock = clock

    def reading(self, mount: OpenMount, statvfs: os.statvfs_result) -> Reading:
        """The current state, with statvfs(3) as the caller read it; raises OSError."""
        now_seconds = self._clock.now_seconds()
        return reading_of(
            mount, self._sysfs, statvfs, mountpoint=self.mountpoint, now_seconds=now_seconds
        )

    def devices(self) -> tuple[Device, ...]:
        """The devices, also of a filesystem that is read-only; raises Unfit or OSError."""
        with self._mount.opened(read_only=True) as mount:
            return devices_of(mount, self._sysfs)

    def exclusive_operation(self) -> str:
        """The operation that prevents others from changing devices, such as `balance paused`.

        `none` when there is none. Without a subprocess, but may wait for a commit. Raises Unfit or
        Transient.
        """
        with self.opened() as mount:
            return exclusive_operation(mount, self._sysfs)

    def balance_progress(self) -> str:
        """The progress of the running or paused balance in words; empty when there is none."""
        return self._balance.progress()

    def keep_reserve(self, data_bytes: int) -> str:
        """Hold an emergency reserve of this much data, none for 0; see Reserve."""
        return self._reserve.keep(data_bytes)

    def require_growable(self) -> None:
        """Raise Unfit unless this process may and can change the filesystem."""
        require_able_to_grow(FilesystemKind.BTRFS)

    def verify_devices(self, volumes: Mapping[str, str] = NO_VOLUMES) -> None:
        """Raise Unfit while a device has no superblock, or while our own add of one does not end.

        Reads each device, so it may block. `volumes` are EBS volume ids by kernel name.
        """
        devices = self.read().devices
        if self._sysfs.exclusive_operation() == "device add":
            # What is being added gets its superblock last.
            self._raise_stuck_add(volumes)
        else:
            repair.verify_superblocks(devices, self.uuid, self.mountpoint, volumes)

    def _raise_stuck_add(self, volumes: Mapping[str, str] = NO_VOLUMES) -> None:
        if found := repair.adding_process(self.mountpoint):
            name, process_id = found
            raise repair.stuck_add(name, process_id, volumes.get(name, ""))

    def add_device(self, name: str, *, verified: Verified, tell: Tell = ignore) -> None:
        """Add the block device with this kernel name, without force; done when it is a device.

        `verified` is needed because `btrfs device add` overwrites everything that has no known
        signature. A running balance is paused, other exclusive operations are waited for within
        bounds. Raises Unfit or Transient, and Stopped while waiting.
        """
        if self._is_device(name):
            return
        found = self._wait_until(_ADD_IS_ALLOWED, self._pause_balance, "add a device", tell)
        if found == "none":
            self._balance.forget_pause()
        try:
            self._add(name, verified)
        except CommandFailed as error:
            # Our timeout may have ended the tool after the kernel had added the device.
            if self._is_device(name):
                return
            self._raise_stuck_add()
            if not self._is_refused_for_pause(error):
                raise repair.add_failure(name, error) from error
            tell(
                "this kernel cannot add a device while a balance is paused: cancelling the balance"
            )
            self._balance.cancel()
            self._add(name, verified)
        if not self._is_device(name):
            # btrfs-progs 6.2 exits with 0 when another operation begins between its own check and
            # the kernel's.
            raise Transient(
                f"`btrfs device add` succeeded, but {name} is not a device of the filesystem",
                hint="another exclusive operation may have started at the same time",
                cause=Cause.EXCLUSIVE_OPERATION,
            )

    def _wait_until(
        self, allowed: Collection[str], on_balance: Callable[[Tell], None], what: str, tell: Tell
    ) -> str:
        """Wait for other exclusive operations, and return which of those allowed there is."""
        deadline_seconds = self._clock.now_seconds() + _EXCLUSIVE_OPERATION_TIMEOUT_SECONDS
        while (operation := self.exclusive_operation()) not in allowed:
            if operation.startswith("balance"):
                on_balance(tell)
                if (operation := self.exclusive_operation()) in allowed:
                    break
            if operation == "device add":
                self._raise_stuck_add()
            tell(f"waiting for another operation to end: {operation}")
            if self._clock.now_seconds() >= deadline_seconds:
                raise repair.prevented(what, f"another operation is in progress ({operation})")
            self._clock.sleep(_POLL_SECONDS)
        return operation

    def _pause_balance(self, tell: Tell) -> None:
        """A balance may take days."""
        tell(f"pausing a running balance to add the device: {self._balance.progress()}")
        self._balance.pause()

    def _cancel_balance_if_full(self, tell: Tell) -> None:
        if repair.is_nearly_full(self.read()):
            tell(f"cancelling a balance to extend a device: {self._balance.progress()}")
            self._balance.cancel()

    def resize_device(self, name: str, *, tell: Tell = ignore) -> None:
        """Extend the device with this kernel name to the size of its block device.

        Takes 4 to 7 ms, also at ENOSPC (measured). Other exclusive operations are waited for within
        bounds. A balance, beside which the kernel resizes nothing even while it is paused, is
        cancelled once space is about to run out. Raises Unfit, Transient or Stopped.
        """
        self._wait_until({"none"}, self._cancel_balance_if_full, "extend a device", tell)
        before, failure = self._device(name), None
        argv = repair.resize_command(before.devid, self.mountpoint)
        try:
            run(argv, timeout_seconds=_ADD_TIMEOUT_SECONDS)
        except CommandFailed as error:
            failure = error  # Our timeout may end the tool after the kernel has resized the device.
        after = self._device(name)
        if after.size_bytes <= before.size_bytes and (failure or after.unused_bytes):
            raise repair.resize_failure(after, self.mountpoint, failure)

    def _device(self, name: str) -> Device:
        for device in self.read().devices:
            if device.name == name:
                return device
        raise Transient(f"{name} is no longer a device", cause=Cause.RESIZE)

    def _add(self, name: str, verified: Verified) -> None:
        with verified():
            require_writable(name)
            if is_near_enospc(self.read()):
                self._add_at_once(name)
            else:
                argv = repair.add_command(name, self.mountpoint)
                run(argv, timeout_seconds=_ADD_TIMEOUT_SECONDS)

    def _add_at_once(self, name: str) -> None:
        """Release the reserve and add the device 2 to 4 ms later; raises CommandFailed.

        The tool takes 30 to 400 ms to reach the same system call (measured), in which fast writers
        use up the reserve.
        """
        with self._mount.opened() as mount:
            # An add without the reserve is better than none.
            with suppress(Transient, Unfit):
                self._reserve.keep(0)
            repair.add_at_once(mount.fd, name)

    def _is_refused_for_pause(self, error: CommandFailed) -> bool:
        """Whether a kernel before 5.17, or a tool before 5.18, refused to add beside our pause."""
        operation = self.exclusive_operation()
        return repair.is_exclusive(error) and self._balance.is_paused_by_us(operation)

    def _is_device(self, name: str) -> bool:
        return repair.is_device(name, self.read(), self.mountpoint)

    def needs_balance(self, mode: Rebalance, newest: str) -> bool:
        """Whether `balance_metadata` would change something; `newest` is the last device's name.

        In every mode: a balance that we paused is to be resumed. `bounded`: metadata needs room on
        more devices than have it, and moving data would help. `full`: also when no metadata is on
        the newest device, although the kernel would put the next chunk there.
        """
        with self.opened() as mount:
            if self._balance.is_paused_by_us(exclusive_operation(mount, self._sysfs)):
                return True
            if mode is Rebalance.OFF:
                return False
            reading = self.reading(mount, os.fstatvfs(mount.fd))
            if data_can_make_room(reading, data_profile=self._sysfs.data_profile()):
                return True
            if mode is Rebalance.BOUNDED or not takes_next_chunk(reading, newest):
                return False
            devids = {device.devid for device in reading.devices if device.name == newest}
            return devids.isdisjoint(ioctl.devids_with_metadata(mount.fd))

    def balance_metadata(
        self, mode: Rebalance, *, stopping: Callable[[], bool] = never, tell: Tell = ignore
    ) -> str:
        """Make metadata safe on the present devices; returns what was done and why.

        Safe to repeat. First resumes a balance that we paused. `bounded` moves as little as
        possible, `full` rewrites all metadata: about 20 s for each GiB at 125 MiB/s, in which an
        fsync may take up to 14 s (docs/metadata.md).

        Raises Transient while another exclusive operation runs and when a balance fails. Raises
        Stopped once `stopping` returns true, after cancelling our balance or pausing the other.
        """
        self._resume_paused_balance(stopping, tell)
        if mode is Rebalance.OFF:
            return "nothing to do: metadata.rebalance is off"
        if (operation := self.exclusive_operation()) != "none":
            is_lost = operation == "balance paused" and not self._balance.progress()
            raise repair.no_balance_beside(operation, self.mountpoint, self.uuid, lost=is_lost)
        before = self.read()
        profile = f"{before.metadata_profile} metadata"
        moved = self._move_data(stopping, tell)
        if mode is Rebalance.FULL:
            done = self._balance.run("-m", stopping=stopping, tell=tell)
            self._move_data(stopping, tell)  # the new chunks may have taken the room
            what = f"balanced all metadata: {done}"
        elif moved:
            what = f"moved {counted(moved, 'data chunk')} to make room for {profile}"
        elif has_room(before):
            return f"nothing to do: enough devices have room for {profile}"
        else:
            # Everything is allocated, and no data chunk can be moved elsewhere.
            self._balance.run("-musage=10,limit=1", stopping=stopping, tell=tell)
            what = f"too few devices have room for {profile}: balanced a nearly empty chunk"
        headroom = format_size(int(before.metadata_room_bytes))
        now = format_size(int(self.read().metadata_room_bytes))
        return f"{what}; metadata headroom was {headroom}, now {now}"

    def _resume_paused_balance(self, stopping: Callable[[], bool], tell: Tell) -> None:
        operation = self.exclusive_operation()
        if self._balance.is_paused_by_us(operation):
            done = self._balance.resume(stopping=stopping, tell=tell)
            tell(f"resumed the paused balance: {done}")
        elif operation == "none":
            self._balance.forget_pause()

    def _move_data(self, stopping: Callable[[], bool], tell: Tell) -> int:
        """Move data chunks off devices that lack room for metadata; how many were moved."""
        for moved in range(_MOVED_CHUNKS_MAX):
            reading = self.read()
            if not data_can_make_room(reading, data_profile=self._sysfs.data_profile()):
                return moved
            devid = device_to_free(reading).devid
            self._balance.run(f"-ddevid={devid},limit=1", stopping=stopping, tell=tell)
        return _MOVED_CHUNKS_MAX


class _Balance:
    """The one balance that a filesystem can have at a time: ours, or that of another process.

    Ours may outlive this process. Every other is paused while a device is added, and resumed after.
    The kernel does not say who paused a balance, so a file under /run does. It contains the
    balance's fingerprint, which changes if its owner has resumed or replaced it since.
    """

    def __init__(self, mount: BtrfsMount) -> None:
        self._mount = mount
        self._mark = paths.balance_mark(mount.uuid)

    def is_paused_by_us(self, operation: str) -> bool:
        """Whether the filesystem has a balance that we paused; `operation` is what runs now."""
        if operation != "balance paused":
            return False
        try:
            paused = self._mark.read_bytes()
        except OSError:
            return False
        found = self._current()
        # Empty when we were killed while pausing.
        return found is not None and paused in {b"", found.fingerprint}

    def forget_pause(self) -> None:
        """Delete the mark of a balance that we paused; only when none is running or paused."""
        self._mark.unlink(missing_ok=True)

    def run(self, filters: str, *, stopping: Callable[[], bool], tell: Tell) -> str:
        """Run a balance to its end; returns the last message of the tool.

        Raises Transient when it fails or another process ends it; Stopped, after cancelling it,
        once `stopping` returns true.
        """
        argv = ["btrfs", "balance", "start", filters, self._mount.path]
        stopping = self._telling(stopping, tell)
        return self._run(argv, _BALANCE_TIMEOUT_SECONDS, stopping, cancel=self.cancel)

    def pause(self) -> None:
        """Pause the running balance at the end of its chunk; done when it has ended meanwhile.

        Raises Transient.
        """
        try:
            self._mark.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._mark.write_bytes(b"")
            self._command("pause")
            if found := self._current():
                self._mark.write_bytes(found.fingerprint)
            else:
                self.forget_pause()
        except (CommandFailed, OSError) as error:
            raise Transient(
                f"cannot pause the running balance: {error}",
                hint=f"wait for it to finish, or run `btrfs balance cancel {self._mount.path}`",
                cause=Cause.EXCLUSIVE_OPERATION,
            ) from error

    def resume(self, *, stopping: Callable[[], bool], tell: Tell) -> str:
        """Resume the balance that we paused, to its end; returns the last message of the tool.

        Raises Transient when it fails or its owner ends it; Stopped, after pausing it again, once
        `stopping` returns true.
        """
        argv = ["btrfs", "balance", "resume", self._mount.path]
        stopping = self._telling(stopping, tell)
        done = self._run(argv, _RESUME_TIMEOUT_SECONDS, stopping, cancel=self.pause)
        self.forget_pause()
        return done

    def cancel(self) -> None:
        """End the balance for good; done when there is none."""
        self.forget_pause()
        self._command("cancel")

    def progress(self) -> str:
        """How far it is: `3 of 10 chunks moved`; empty when there is none."""
        found = self._current()
        if found is None:
            return ""
        return f"{found.moved_chunks} of {counted(found.expected_chunks, 'chunk')} moved"

    def _current(self) -> ioctl.Balance | None:
        with self._mount.opened() as mount:
            return ioctl.balance(mount.fd)

    def _command(self, verb: str) -> None:
        argv = ["btrfs", "balance", verb, self._mount.path]
        try:
            run(argv, timeout_seconds=_PAUSE_TIMEOUT_SECONDS)
        except CommandFailed as error:
            if error.status != _NO_BALANCE:
                raise

    def _run(
        self,
        argv: list[str],
        timeout_seconds: float,
        stopping: Callable[[], bool],
        *,
        cancel: Callable[[], object],
    ) -> str:
        """Run the tool, which is ended by `cancel` alone.

        A fatal signal can make the kernel abort the transaction and force the filesystem read-only
        ("error in merge_reloc_roots: errno=-4": 2 of 8 kills with much metadata, on 6.18). So the
        balance of a process that is killed runs on, and the next growth treats it like any other.
        """
        try:
            output = run(argv, timeout_seconds=timeout_seconds, stopping=stopping, cancel=cancel)
        except CommandFailed as error:
            self._mount.verify()
            if "by user" in error.stderr:
                raise self._overruled(argv) from error
            raise Transient(
                f"the balance failed: {error}",
                hint="programs can already use the new space",
                cause=Cause.BALANCE,
            ) from error
        # The exit status is also 0 when the balance was paused or cancelled.
        if not output.startswith("Done"):
            raise self._overruled(argv)
        return output.strip()

    def _overruled(self, argv: list[str]) -> Transient:
        """A balance that its owner has paused is not resumed again."""
        self.forget_pause()
        return Transient(
            f"another process paused or cancelled `{' '.join(argv)}`",
            hint=f"if it is paused, run `btrfs balance resume {self._mount.path}`",
            cause=Cause.BALANCE,
        )

    def _telling(self, stopping: Callable[[], bool], tell: Tell) -> Callable[[], bool]:
        """`stopping`, which also tells the progress every two seconds."""
        calls = count(1)

        def stopping_and_tell() -> bool:
            if next(calls) % _TELL_EVERY_CALLS == 0 and (progress := self.progress()):
                tell(f"balance: {progress}")
            return stopping()

        return stopping_and_tell
