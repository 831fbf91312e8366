"""Block devices over sparse files, owned by file descriptor."""

import errno
import fcntl
import os
import stat
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ebs_autoscale.errors import Unfit

# linux/loop.h
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_CONFIGURE = 0x4C0A  # Linux 5.8
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
_BLKROSET = 0x125D  # linux/fs.h
# struct loop_config: fd, block_size, struct loop_info64, 8 reserved words.
# Of loop_info64 (232 bytes) only lo_flags is set, 52 bytes in.
_LOOP_CONFIG = struct.Struct("=2I 52x I 176x 64x")

# Between GET_FREE and CONFIGURE any other process may take the same device. Eight test
# runs side by side needed 3 tries at most; a hundred failures have another reason.
_TRIES = 100


class LoopDevice:
    """A block device over an unlinked sparse file, which lives as long as somebody holds it open.

    The kernel detaches it (LO_FLAGS_AUTOCLEAR) when the last holder lets go: this object,
    a mount, or the death of both. It is never detached by name, since by then the
    name may belong to somebody else. Sizes in bytes, multiples of 512.
    """

    def __init__(self, name: str, *, device_fd: int, file_fd: int) -> None:
        self.name = name
        self._device_fd = device_fd
        self._file_fd = file_fd

    @classmethod
    def create(cls, size_bytes: int, *, directory: Path) -> Self:
        """Make one over a new, unlinked file in `directory`.

        Raises Unfit when this host allows no loop devices.
        """
        file_fd = _open_unlinked(directory)
        try:
            os.ftruncate(file_fd, size_bytes)
            name, device_fd = _attach(file_fd)
        except OSError as error:
            os.close(file_fd)
            raise Unfit(
                f"cannot make a loop device: {error.strerror}",
                hint="run as root, outside of a container or in a privileged one",
                cause="no loop devices",
            ) from error
        return cls(name, device_fd=device_fd, file_fd=file_fd)

    @property
    def node(self) -> str:
        """The path of its device node."""
        return f"/dev/{self.name}"

    @property
    def size_bytes(self) -> int:
        """The size that the kernel gives the block device now."""
        return os.lseek(self._device_fd, 0, os.SEEK_END)

    @property
    def stored_bytes(self) -> int:
        """What the sparse file really takes."""
        return os.fstat(self._file_fd).st_blocks * 512

    def resize(self, size_bytes: int) -> None:
        """Give file and device this size; a filesystem on it is not told."""
        os.ftruncate(self._file_fd, size_bytes)
        if self.is_bound:
            fcntl.ioctl(self._device_fd, _LOOP_SET_CAPACITY)

    @property
    def is_bound(self) -> bool:
        """Whether there is a device at present."""
        return self._device_fd >= 0

    def unbind(self) -> None:
        """Take the device away and keep the file; while it is mounted it stays until unmounted."""
        os.close(self._device_fd)
        self._device_fd = -1

    def bind(self) -> None:
        """Give the file a device again, which may have another name; the old content is on it."""
        if not self.is_bound:
            self.name, self._device_fd = _attach(self._file_fd)

    def close(self) -> None:
        """Let go; a second time does nothing. What is mounted stays usable until unmounted."""
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
        # overlayfs before 6.3 and NFS have no O_TMPFILE; EISDIR comes from the oldest kernels.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    fd, path = tempfile.mkstemp(dir=directory)
    Path(path).unlink()
    return fd


def _attach(file_fd: int) -> tuple[str, int]:
    config = _LOOP_CONFIG.pack(file_fd, 0, _LO_FLAGS_AUTOCLEAR)
    control_fd = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control_fd, _LOOP_CTL_GET_FREE)
            device_fd = os.open(_node(number), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device_fd, _LOOP_CONFIGURE, config)
                # What `blockdev --setro` set stays with the name when the device goes.
                fcntl.ioctl(device_fd, _BLKROSET, struct.pack("=i", 0))
            except OSError as error:
                os.close(device_fd)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return f"loop{number}", device_fd
    finally:
        os.close(control_fd)
    raise OSError(errno.EBUSY, f"no free loop device in {_TRIES} tries")


def _node(number: int) -> Path:
    """Make the node where nobody does it for us: in a private /dev there is no devtmpfs."""
    node = Path(f"/dev/loop{number}")
    if not node.exists():
        major, minor = Path(f"/sys/block/loop{number}/dev").read_text("ascii").split(":")
        with suppress(FileExistsError):
            os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(int(major), int(minor)))
    return node
