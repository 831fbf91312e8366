"""Loop devices that can be made to fail, and to work again."""

import fcntl
import os
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Self

from ec2_sandbox.devices.loop import LoopDevice, attach, remove_unused, set_read_only
from ec2_sandbox.errors import HostUnfit

# linux/loop.h
_LOOP_SET_STATUS = 0x4C04
_LOOP_GET_STATUS = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_SET_DIRECT_IO = 0x4C08
_LOOP_INFO_BYTES = 232
_SIZE_LIMIT_AT = 32
_SECTOR_BYTES = 512

# linux/fs.h
_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878
# What ext4 needs beside one file, and room in which that can grow: 1 MiB on disk.
_ROOM_BYTES = 128 * 1024**3

# A device that hangs in a commit can make the kernel hang for every BTRFS of the host, and one that
# hangs in a read for every sync(2): this ends it even if we are killed.
HANG_MAX_SECONDS = 30
_LATER = f"import fcntl, pathlib, time; time.sleep({HANG_MAX_SECONDS}); "

_THROTTLE = Path("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device")
_NO_LIMIT = 0


class DeviceFault(StrEnum):
    """How a block device fails: calls are refused with an I/O error, or do not return."""

    NONE = ""
    WRITES_REFUSED = "writes refused"
    REFUSED = "refused"
    WRITES_HANG = "writes hang"
    READS_HANG = "reads hang"


class FailingDevice(LoopDevice):
    """A loop device over another one, which refuses what it is told to refuse.

    The file below is in a small ext4 of its own, so that writes hang while that is frozen. Reads
    hang by throttling to a byte a second, which needs the cgroup v1 controller of block devices and
    does not reach the metadata that a filesystem reads. Both for HANG_MAX_SECONDS at most.
    """

    _below: LoopDevice
    _folder_fd: int
    _ends: "subprocess.Popen[bytes] | None" = None
    fault: DeviceFault = DeviceFault.NONE

    @classmethod
    def create(cls, size_bytes: int, *, directory: Path) -> Self:
        """Create one that works; raises HostUnfit as LoopDevice does."""
        folder_fd = _own_filesystem(size_bytes, directory)
        below = LoopDevice.create(size_bytes, directory=Path(f"/proc/self/fd/{folder_fd}"))
        fd = os.open(below.node, os.O_RDWR | os.O_CLOEXEC)
        # A look at all block devices of a host must not wait for those of other tests.
        name, device_fd = attach(fd, unshared=True)
        # Else a write ends in the page cache of the device below.
        fcntl.ioctl(device_fd, _LOOP_SET_DIRECT_IO, 1)
        device = cls(name, device_fd=device_fd, file_fd=fd)
        device._below, device._folder_fd = below, folder_fd
        return device

    @property
    def stored_bytes(self) -> int:
        """The space that the sparse file takes."""
        return self._below.stored_bytes

    @property
    def file_bytes(self) -> int:
        """The size of the file below."""
        return self._below.file_bytes

    def resize(self, size_bytes: int) -> None:
        """Resize the file, by 128 GiB at most, and both devices, which work for that moment."""
        fault = self.fault
        self.fail(DeviceFault.NONE)
        self._below.resize(size_bytes)
        if self.is_bound:
            fcntl.ioctl(self._device_fd, _LOOP_SET_CAPACITY)
        self.fail(fault)

    def fail(self, fault: DeviceFault) -> None:
        """Fail like this from now on and no other way, until told otherwise; content is kept.

        Raises HostUnfit when this host cannot make a device hang.
        """
        before, self.fault = self.fault, fault
        if self._ends:
            self._ends.kill()
            self._ends.wait()
            self._ends = None
        if before is DeviceFault.WRITES_HANG:
            self._thaw()
        if before is DeviceFault.READS_HANG:
            self._throttle_reads(_NO_LIMIT)
        set_read_only(self._file_fd, on=fault is DeviceFault.WRITES_REFUSED)
        self._limit_size(_SECTOR_BYTES if fault is DeviceFault.REFUSED else 0)
        if fault is DeviceFault.WRITES_HANG:
            self._freeze()
        if fault is DeviceFault.READS_HANG:
            self._throttle_reads(1)
            self._end_later(
                f"pathlib.Path({str(_THROTTLE)!r}).write_text({self._rule(_NO_LIMIT)!r})"
            )

    def unbind(self) -> None:
        """Let it work again, and remove it; the one below stays."""
        self.fail(DeviceFault.NONE)
        super().unbind()

    def bind(self) -> None:
        """Give it a device again, possibly under another name."""
        super().bind()
        fcntl.ioctl(self._device_fd, _LOOP_SET_DIRECT_IO, 1)

    def close(self) -> None:
        """Close both devices, working; a mounted device stays usable until unmounted."""
        if self._file_fd < 0:
            return
        self.fail(DeviceFault.NONE)
        super().close()
        remove_unused(self.name)
        self._below.close()
        os.close(self._folder_fd)

    def _end_later(self, statement: str) -> None:
        self._ends = subprocess.Popen(
            [sys.executable, "-I", "-c", _LATER + statement],
            pass_fds=[self._folder_fd],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _freeze(self) -> None:
        self._end_later(f"fcntl.ioctl({self._folder_fd}, {_FITHAW}, 0)")
        fcntl.ioctl(self._folder_fd, _FIFREEZE, 0)

    def _thaw(self) -> None:
        # EINVAL: it was thawed meanwhile.
        with suppress(OSError):
            fcntl.ioctl(self._folder_fd, _FITHAW, 0)

    def _limit_size(self, size_bytes: int) -> None:
        """Let the device below end here; with 0, where its file ends."""
        info = bytearray(_LOOP_INFO_BYTES)
        fcntl.ioctl(self._file_fd, _LOOP_GET_STATUS, info)
        struct.pack_into("=Q", info, _SIZE_LIMIT_AT, size_bytes)
        fcntl.ioctl(self._file_fd, _LOOP_SET_STATUS, info)

    def _rule(self, bytes_per_second: int) -> str:
        number = Path(self.node).stat().st_rdev
        return f"{os.major(number)}:{os.minor(number)} {bytes_per_second}"

    def _throttle_reads(self, bytes_per_second: int) -> None:
        try:
            _THROTTLE.write_text(self._rule(bytes_per_second), "ascii")
        except OSError as error:
            raise HostUnfit(
                f"cannot make reads of {self.node} hang: {error}",
                hint=f"mount the cgroup v1 controller blkio on {_THROTTLE.parent}",
            ) from error


def _own_filesystem(size_bytes: int, directory: Path) -> int:
    """The root of a new ext4 that is mounted nowhere, opened; it ends with its last user."""
    with LoopDevice.create(size_bytes + _ROOM_BYTES, directory=directory) as loop:
        small = ["-m", "0", "-N", "16", "-O", "^has_journal,^resize_inode", "-E", "nodiscard"]
        subprocess.run(["mkfs.ext4", "-q", *small, loop.node], check=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["mount", loop.node, folder], check=True)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            subprocess.run(["umount", "--lazy", folder], check=True)
    return fd
