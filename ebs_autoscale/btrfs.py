"""One BTRFS filesystem: read sysfs, add device, settle metadata."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from ebs_autoscale import btrfs_reserve
from ebs_autoscale.btrfs_ioctl import MemberExtent, devids_with_metadata, members, superblock_uuid
from ebs_autoscale.btrfs_mount import BtrfsMount, Look
from ebs_autoscale.btrfs_settle import (
    has_starved_metadata,
    member_to_relieve,
    members_with_room,
    takes_next_metadata,
)
from ebs_autoscale.btrfs_space import (
    PROFILES,
    available_bytes,
    metadata_headroom_bytes,
    unallocated_bytes,
)
from ebs_autoscale.btrfs_sysfs import BtrfsSysfs
from ebs_autoscale.command import never, run
from ebs_autoscale.errors import CommandFailed, Transient, Unfit
from ebs_autoscale.model import Member, Reading, Rebalance

# 12 to 430 ms measured for 10 GiB to 16 TiB; the rest is for hosts that drown in writes.
_ADD_TIMEOUT_SECONDS = 120.0
_LOOK_EVERY_SECONDS = 0.5
# A resize or an add by somebody else ends in this time, a balance of GiB chunks rarely
# does; then other things are worth looking at before the next try.
_FOREIGN_OPERATION_SECONDS = 60.0
# Since Linux 5.17; older kernels refuse, which costs nothing.
_ADD_IS_ALLOWED = ("none", "balance paused")
# 20 s for each GiB of metadata (measured): this is for 500 GiB of it.
_BALANCE_TIMEOUT_SECONDS = 3 * 3600.0
# Writers must not be through with the reserve before the add is: at 1 GB/s 256 MiB last for
# 0.25 s, an add took up to 0.2 s (measured).
_TIGHT_FACTOR = 4
# Of a tenth of the filesystem each, at most: more will not make the room that one did not.
_MOST_CHUNKS_MOVED = 8


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
        with self._look() as look:
            return self._reading(look)

    def add_device(self, name: str) -> None:
        """Make the block device with this kernel name a member, without force, unless it is one.

        Only for a device that is proved blank: what no tool recognises is overwritten.
        Waits for another exclusive operation, within bounds. Raises Unfit or Transient,
        and Stopped while waiting.
        """
        if self._is_member(name):
            return
        self._wait_for_exclusive_operation()
        argv = ["btrfs", "device", "add", "-K", f"/dev/{name}", self.mountpoint]
        try:
            self._give_up_reserve_when_tight()
            run(argv, timeout_seconds=_ADD_TIMEOUT_SECONDS)
        except CommandFailed as error:
            # When our timeout met a device add that was through, nothing has failed.
            if not self._is_member(name):
                raise _add_failure(name, error) from error
        if not self._is_member(name):
            raise Transient(f"{name} was added, but is not a member", cause="add")

    def needs_settling(self, mode: Rebalance, newest: str) -> bool:
        """Whether settling would change something now, `newest` being the last member's name.

        Derived from the filesystem alone. For `full`: no metadata is on the newest member,
        though the next chunk would go there. For `bounded` as for `full`: metadata
        in copies on several members finds room on too few.
        """
        if mode is Rebalance.OFF:
            return False
        with self._look() as look:
            reading = self._reading(look)
            if has_starved_metadata(reading, data_profile=self._sysfs.data_profile()):
                return True
            if mode is Rebalance.BOUNDED or not takes_next_metadata(reading, newest):
                return False
            devids = {member.devid for member in reading.members if member.name == newest}
            return devids.isdisjoint(devids_with_metadata(look.fd))

    def settle(self, mode: Rebalance, *, stopping: Callable[[], bool] = never) -> str:
        """Make metadata safe on the members there are; says what it chose and why.

        Safe to repeat. `bounded` moves the least that protects, `full` rewrites all metadata:
        about 20 s for each GiB at 125 MiB/s, with writers waiting for up to 14 s (measured).
        Raises Transient while another exclusive operation runs, and when a balance
        fails; Stopped, after having cancelled the balance, once `stopping` is true.
        """
        if mode is Rebalance.OFF:
            return "nothing to do: metadata.rebalance is off"
        reading = self.read()
        if reading.exclusive_operation != "none":
            raise Transient(
                f"somebody else's {reading.exclusive_operation} keeps metadata from being settled",
                hint=f"see `btrfs balance status {self.mountpoint}`",
                cause="exclusive operation",
            )
        moved = self._relieve_members(stopping)
        if mode is Rebalance.FULL:
            done = self._balance("-m", stopping=stopping)
            self._relieve_members(stopping)  # what was moved may have taken that room
            return f"rewrote all metadata: {done}"
        profile = reading.metadata_profile
        if moved:
            return f"moved {moved} data chunks: {profile} metadata has room on enough members again"
        if PROFILES[profile].least_members > 1:
            roomy = members_with_room(reading)
            return f"nothing to do: {profile} metadata has room on {roomy} members"
        self._balance("-musage=10,limit=1", stopping=stopping)
        return f"nothing to do: {profile} metadata takes its next chunk on the new member by itself"

    def keep_reserve(self, data_bytes: int) -> str:
        """Hold an emergency reserve of this much data, none for 0; says what was done, or "".

        Raises Transient when it cannot be done now, having taken nothing, and Unfit when the name
        belongs to somebody else's file.
        """
        with self._look() as look, self._reserving():
            if not data_bytes:
                given = btrfs_reserve.give_up(look.fd)
                return f"gave up the reserve of {given.data_bytes} bytes" if given.data_bytes else ""
            taken = btrfs_reserve.take(look.fd, data_bytes)
            return f"took a reserve of {data_bytes} bytes" if taken else ""

    def _give_up_reserve_when_tight(self) -> None:
        """Let writers that spin on ENOSPC out of it before an add (facts: see `btrfs_reserve`).

        A failure is no reason not to add: worse than the kernel's race is no space at all.
        """
        reading = self.read()
        metadata_bytes = btrfs_reserve.metadata_bytes(reading.reserve_bytes)
        if (
            reading.available_bytes < _TIGHT_FACTOR * reading.reserve_bytes
            or reading.metadata_headroom_bytes < _TIGHT_FACTOR * metadata_bytes
        ):
            with suppress(Transient, Unfit):
                self.keep_reserve(0)

    @contextmanager
    def _reserving(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise Unfit(
                f"{self.mountpoint}/{btrfs_reserve.NAME} is not the reserve, but somebody's file",
                hint="move it away, or set `metadata.reserve: off`",
                cause="reserve",
            ) from error
        except OSError as error:
            raise Transient(f"cannot change the reserve: {error}", cause="reserve") from error

    def _relieve_members(self, stopping: Callable[[], bool]) -> int:
        """Move data chunks off members that have no room for metadata; how many it took."""
        for moved in range(_MOST_CHUNKS_MOVED):
            reading = self.read()
            if not has_starved_metadata(reading, data_profile=self._sysfs.data_profile()):
                return moved
            devid = member_to_relieve(reading).devid
            self._balance(f"-ddevid={devid},limit=1", stopping=stopping)
        return _MOST_CHUNKS_MOVED

    def _balance(self, filters: str, *, stopping: Callable[[], bool]) -> str:
        argv = ["btrfs", "balance", "start", filters, self.mountpoint]
        try:
            output = run(argv, timeout_seconds=_BALANCE_TIMEOUT_SECONDS, stopping=stopping)
        except CommandFailed as error:
            self._mount.prove()
            raise Transient(
                f"settling metadata failed: {error}",
                hint="the new space is usable all the same",
                cause="balance",
            ) from error
        # Exit status 0 also when it was paused or cancelled; only this word says that it is done.
        if not output.startswith("Done"):
            raise Transient(
                f"somebody paused or cancelled `{' '.join(argv)}`",
                hint=f"`btrfs balance resume {self.mountpoint}`, if it is paused",
                cause="balance",
            )
        return output.strip()

    def _is_member(self, name: str) -> bool:
        """Whether it is one in sysfs and on disk; on one side only, a human has to look."""
        if not self.read().has_member(name):
            return False
        try:
            found = superblock_uuid(f"/dev/{name}")
        except OSError as error:
            raise Transient(
                f"cannot read the superblock on {name}: {error}", cause="add"
            ) from error
        if found == self.uuid:
            return True
        raise Unfit(
            f"the kernel lists {name} as a member of {self.uuid}, but its superblock does not",
            hint=f"stop the users of {self.mountpoint}, unmount it and mount it again",
            cause="half added",
        )

    def _wait_for_exclusive_operation(self) -> None:
        deadline_seconds = self._clock.now_seconds() + _FOREIGN_OPERATION_SECONDS
        while (operation := self.read().exclusive_operation) not in _ADD_IS_ALLOWED:
            if self._clock.now_seconds() >= deadline_seconds:
                raise Transient(
                    f"somebody else's {operation} keeps devices from being added",
                    hint=f"let it end, or `btrfs balance pause {self.mountpoint}`",
                    cause="exclusive operation",
                )
            self._clock.sleep(_LOOK_EVERY_SECONDS)

    @contextmanager
    def _look(self) -> Iterator[Look]:
        try:
            with self._mount.look() as look:
                yield look
        except OSError as error:
            self._mount.prove()
            raise Transient(
                f"cannot read the state of {self.mountpoint}: {error}", cause="reading"
            ) from error

    def _reading(self, look: Look) -> Reading:
        data, metadata = self._sysfs.allocated()
        present = self._members(tuple(members(look.fd, look.identity)))
        unallocated = [member.unallocated_bytes for member in present if not member.missing]
        raw_bytes = sum(member.size_bytes for member in present)
        return Reading(
            filesystem=self.uuid,
            mountpoint=self.mountpoint,
            taken_at_seconds=self._clock.now_seconds(),
            size_bytes=look.statvfs.f_blocks * look.statvfs.f_frsize,
            available_bytes=available_bytes(
                data, metadata, unallocated, filesystem_bytes=raw_bytes
            ),
            statvfs_available_bytes=look.statvfs.f_bavail * look.statvfs.f_frsize,
            metadata_headroom_bytes=metadata_headroom_bytes(metadata, unallocated),
            metadata_profile=metadata.profile,
            members=present,
            exclusive_operation=self._sysfs.exclusive_operation(),
            reserve_bytes=btrfs_reserve.held(look.fd).data_bytes,
        )

    def _members(self, extents: tuple[MemberExtent, ...]) -> tuple[Member, ...]:
        names = self._sysfs.names()
        return tuple(
            Member(
                devid=extent.devid,
                name=_name_of(extent.path, self._sysfs, names),
                size_bytes=extent.size_bytes,
                unallocated_bytes=unallocated_bytes(
                    size_bytes=extent.size_bytes, allocated_bytes=extent.allocated_bytes
                ),
                missing=not extent.path or self._sysfs.is_missing(extent.devid),
            )
            for extent in extents
        )


def _name_of(path: str, sysfs: BtrfsSysfs, names: frozenset[str]) -> str:
    """The kernel's name of a member, given the path it was registered by: any link or alias."""
    name = os.path.basename(path)  # noqa: PTH119 -- runs each tick
    if name in names or not path:
        return name
    try:
        number = os.stat(path).st_rdev  # noqa: PTH116 -- the same
    except OSError:
        return ""
    device = f"{os.major(number)}:{os.minor(number)}"
    return next((name for name in names if sysfs.device_number(name) == device), "")


def _add_failure(name: str, error: CommandFailed) -> Transient | Unfit:
    if "appears to contain" in error.stderr:
        return Unfit(
            f"{name} is not blank: {error.stderr.splitlines()[0]}",
            hint="look what is on it; nothing is ever overwritten",
            cause="not blank",
        )
    if "exclusive operation" in error.stderr or "in progress" in error.stderr:
        return Transient(f"cannot add {name} now: {error}", cause="exclusive operation")
    return Transient(f"cannot add {name}: {error}", cause="add")
