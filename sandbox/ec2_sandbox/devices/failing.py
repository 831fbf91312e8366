"""Loop devices that can be made to fail, and to work again."""

import fcntl
import os
import struct
from enum import StrEnum
from pathlib import Path
from typing import Self

from ec2_sandbox.devices.loop import LoopDevice, attach, set_read_only
from ec2_sandbox.errors import HostUnfit

# linux/loop.h
_LOOP_SET_STATUS = 0x4C04
_LOOP_GET_STATUS = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_INFO_BYTES = 232
_SIZE_LIMIT_AT = 32
_SECTOR_BYTES = 512

_THROTTLE = Path("/sys/fs/cgroup/blkio")
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

    What hangs is throttled to a byte a second, by the cgroup v1 controller of block devices.
    """

    _below: LoopDevice
    fault: DeviceFault = DeviceFault.NONE

    @classmethod
    def create(cls, size_bytes: int, *, directory: Path) -> Self:
        """Create one that works; raises HostUnfit as LoopDevice does."""
        below = LoopDevice.create(size_bytes, directory=directory)
        fd = os.open(below.node, os.O_RDWR | os.O_CLOEXEC)
        name, device_fd = attach(fd)
        device = cls(name, device_fd=device_fd, file_fd=fd)
        device._below = below
        return device

    @property
    def stored_bytes(self) -> int:
        """The space that the sparse file takes."""
        os.fsync(self._file_fd)
        return self._below.stored_bytes

    def resize(self, size_bytes: int) -> None:
        """Resize the file and both devices; a filesystem on it is not resized."""
        self._below.resize(size_bytes)
        if self.is_bound:
            fcntl.ioctl(self._device_fd, _LOOP_SET_CAPACITY)

    def fail(self, fault: DeviceFault) -> None:
        """Fail like this from now on and no other way, until told otherwise; content is kept.

        Raises HostUnfit when this host cannot make a device hang.
        """
        os.fsync(self._file_fd)
        set_read_only(self._file_fd, on=fault is DeviceFault.WRITES_REFUSED)
        self._limit_size(_SECTOR_BYTES if fault is DeviceFault.REFUSED else 0)
        for direction, hangs in (
            ("read", DeviceFault.READS_HANG),
            ("write", DeviceFault.WRITES_HANG),
        ):
            if hangs in {fault, self.fault}:
                self._throttle(direction, 1 if fault is hangs else _NO_LIMIT)
        self.fault = fault

    def unbind(self) -> None:
        """Let it work again, and remove it; the one below stays."""
        self.fail(DeviceFault.NONE)
        super().unbind()

    def close(self) -> None:
        """Close both devices, working; a mounted device stays usable until unmounted."""
        if self._file_fd >= 0:
            self.fail(DeviceFault.NONE)
        super().close()
        self._below.close()

    def _limit_size(self, size_bytes: int) -> None:
        """Let the device below end here; with 0, where its file ends."""
        info = bytearray(_LOOP_INFO_BYTES)
        fcntl.ioctl(self._file_fd, _LOOP_GET_STATUS, info)
        struct.pack_into("=Q", info, _SIZE_LIMIT_AT, size_bytes)
        fcntl.ioctl(self._file_fd, _LOOP_SET_STATUS, info)

    def _throttle(self, direction: str, bytes_per_second: int) -> None:
        number = Path(self.node).stat().st_rdev
        rule = f"{os.major(number)}:{os.minor(number)} {bytes_per_second}"
        try:
            file = _THROTTLE / f"blkio.throttle.{direction}_bps_device"
            file.write_text(rule, "ascii")
        except OSError as error:
            raise HostUnfit(
                f"cannot make {self.node} hang: {error}",
                hint=f"mount the cgroup v1 controller blkio on {_THROTTLE}",
            ) from error
