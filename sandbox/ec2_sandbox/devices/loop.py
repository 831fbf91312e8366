"""Loop devices over sparse files, owned by file descriptor."""

import errno
import fcntl
import os
import random
import stat
import struct
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ec2_sandbox.devices.namespace import hint_for_refusal
from ec2_sandbox.devices.partitions import has_table, show_partitions
from ec2_sandbox.errors import HostUnfit

# linux/loop.h
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_CONFIGURE = 0x4C0A  # Linux 5.8
_LOOP_CTL_ADD = 0x4C80
_LOOP_CTL_REMOVE = 0x4C81
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
# Else partitions outlive the device, and the next one with its name has them.
_LO_FLAGS_PARTSCAN = 8
_BLKROSET = 0x125D  # linux/fs.h
# struct loop_config: fd, block_size, struct loop_info64, 8 reserved words.
# Of loop_info64 (232 bytes) only lo_flags is set, 52 bytes in.
_LOOP_CONFIG = struct.Struct("=2I 52x I 176x 64x")

# Between GET_FREE and CONFIGURE another process may take the same device. Eight concurrent test
# runs needed 3 attempts at most; a hundred failures have another reason.
_ATTEMPTS = 100

# GET_FREE counts from 0.
_UNSHARED_NUMBERS = (10_000, 1_000_000)


class LoopDevice:
    """A loop device over an unlinked sparse file; it exists while it is open or mounted.

    The kernel detaches it (LO_FLAGS_AUTOCLEAR) when its last user closes it, even by being
    killed. It is never detached by name, because another process may have the name by then.
    Sizes are in bytes, in multiples of 512.
    """

    def __init__(self, name: str, *, device_fd: int, file_fd: int) -> None:
        self.name = name
        self._device_fd = device_fd
        self._file_fd = file_fd

    @classmethod
    def create(cls, size_bytes: int, *, directory: Path) -> Self:
        """Create one over a new, unlinked file in `directory`.

        Raises HostUnfit when this host does not permit loop devices.
        """
        file_fd = _open_unlinked(directory)
        try:
            os.ftruncate(file_fd, size_bytes)
            name, device_fd = attach(file_fd)
        except OSError as error:
            os.close(file_fd)
            raise HostUnfit(
                f"cannot create a loop device: {error.strerror}",
                hint=hint_for_refusal(),
            ) from error
        return cls(name, device_fd=device_fd, file_fd=file_fd)

    @property
    def node(self) -> str:
        """The path of its device node."""
        return f"/dev/{self.name}"

    @property
    def size_bytes(self) -> int:
        """The size of the block device as the kernel reports it."""
        return os.lseek(self._device_fd, 0, os.SEEK_END)

    @property
    def file_bytes(self) -> int:
        """The size of what is behind the device, which it has unless it fails."""
        return os.lseek(self._file_fd, 0, os.SEEK_END)

    @property
    def stored_bytes(self) -> int:
        """The space that the sparse file takes."""
        return os.fstat(self._file_fd).st_blocks * 512

    def resize(self, size_bytes: int) -> None:
        """Resize file and device; a filesystem on it is not resized."""
        os.ftruncate(self._file_fd, size_bytes)
        if self.is_bound:
            fcntl.ioctl(self._device_fd, _LOOP_SET_CAPACITY)

    def write(self, content: Mapping[int, bytes]) -> None:
        """Write these bytes at these offsets."""
        for offset, data in content.items():
            os.pwrite(self._device_fd, data, offset)

    def show_partitions(self) -> None:
        """Have the partitions on it, if there are any, appear as those of a real device do."""
        if has_table(self._file_fd):
            show_partitions(self.name)

    @property
    def is_bound(self) -> bool:
        """Whether the file has a device at present."""
        return self._device_fd >= 0

    def unbind(self) -> None:
        """Remove the device and keep the file; a mounted device stays until it is unmounted."""
        os.close(self._device_fd)
        self._device_fd = -1

    def bind(self) -> None:
        """Give the file a device again, possibly under another name."""
        if not self.is_bound:
            self.name, self._device_fd = attach(self._file_fd)

    def close(self) -> None:
        """Close device and file; a mounted device stays usable until unmounted. Safe to repeat."""
        fds, self._device_fd, self._file_fd = (self._device_fd, self._file_fd), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _open_unlinked(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # overlayfs before Linux 6.3 and NFS have no O_TMPFILE; old kernels return EISDIR.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    fd, path = tempfile.mkstemp(dir=directory)
    Path(path).unlink()
    return fd


def set_read_only(device_fd: int, *, on: bool) -> None:
    """Set the flag of `blockdev --setro`, which stays with the name of the device."""
    fcntl.ioctl(device_fd, _BLKROSET, struct.pack("=i", on))


def attach(file_fd: int, *, unshared: bool = False) -> tuple[str, int]:
    """Give an open file or block device a loop device: its name and descriptor.

    The name of an `unshared` one is not in the /dev of other namespaces, where it was never used.
    """
    config = _LOOP_CONFIG.pack(file_fd, 0, _LO_FLAGS_AUTOCLEAR | _LO_FLAGS_PARTSCAN)
    control_fd = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = _added(control_fd) if unshared else fcntl.ioctl(control_fd, _LOOP_CTL_GET_FREE)
            device_fd = os.open(_node(number), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device_fd, _LOOP_CONFIGURE, config)
                set_read_only(device_fd, on=False)
            except OSError as error:
                os.close(device_fd)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return f"loop{number}", device_fd
    finally:
        os.close(control_fd)
    raise OSError(errno.EBUSY, f"no free loop device in {_ATTEMPTS} attempts")


def _added(control_fd: int) -> int:
    while True:
        number = random.randrange(*_UNSHARED_NUMBERS)  # noqa: S311 -- a name, not a secret
        with suppress(FileExistsError):
            return int(fcntl.ioctl(control_fd, _LOOP_CTL_ADD, number))


def remove_unused(name: str) -> None:
    """Take back the name of an unshared loop device, once nothing uses it any more."""
    control_fd = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.ioctl(control_fd, _LOOP_CTL_REMOVE, int(name.removeprefix("loop")))
    os.close(control_fd)


def _node(number: int) -> Path:
    """The path of the device node; created here in a private /dev, which is not a devtmpfs."""
    node = Path(f"/dev/loop{number}")
    if not node.exists():
        major, minor = Path(f"/sys/block/loop{number}/dev").read_text("ascii").split(":")
        with suppress(FileExistsError):
            os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(int(major), int(minor)))
    return node
