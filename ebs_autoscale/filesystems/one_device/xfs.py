"""What the kernel says of a mounted XFS."""

import fcntl
import struct
from dataclasses import dataclass
from uuid import UUID

# struct xfs_fsop_geom_v1 of xfs_fs.h, which every kernel fills in (linux/fs/xfs/libxfs).
_GEOMETRY = struct.Struct("=8I4Q16s7I4x")
_XFS_IOC_FSGEOMETRY_V1 = 2 << 30 | _GEOMETRY.size << 16 | ord("X") << 8 | 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The sizes of an XFS; `log_blocks` are those of its own log, 0 for one on another device.

    `inodes_percent` is the share of its blocks that inodes may take, 0 for all.
    """

    uuid: str
    block_bytes: int
    blocks: int
    log_blocks: int
    realtime_blocks: int
    inode_bytes: int
    inodes_percent: int

    @property
    def inodes_max(self) -> int:
        """How many inodes it can have at its size, however much space is left; 0 without a limit.

        Source: fs/xfs/libxfs/xfs_ialloc.c, xfs_ialloc_setup_geometry.
        """
        return self.blocks * self.inodes_percent // 100 * (self.block_bytes // self.inode_bytes)

    @property
    def size_bytes(self) -> int:
        """How far it reaches into its device."""
        return self.blocks * self.block_bytes


def geometry(fd: int) -> Geometry:
    """Its geometry, in microseconds; raises OSError, ENOTTY for another kind of filesystem."""
    found = bytearray(_GEOMETRY.size)
    fcntl.ioctl(fd, _XFS_IOC_FSGEOMETRY_V1, found)
    fields = _GEOMETRY.unpack(found)
    block_bytes, _, _, _, log_blocks, _, inode_bytes, inodes_percent = fields[:8]
    blocks, realtime_blocks, _, log_start, uuid = fields[8:13]
    return Geometry(
        uuid=str(UUID(bytes=uuid)),
        block_bytes=block_bytes,
        blocks=blocks,
        log_blocks=log_blocks if log_start else 0,
        realtime_blocks=realtime_blocks,
        inode_bytes=inode_bytes,
        inodes_percent=inodes_percent,
    )
