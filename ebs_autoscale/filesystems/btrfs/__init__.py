"""BTRFS: its state, its arithmetic, mkfs and the emergency reserve. Imports nothing by itself."""

__all__ = [
    "chunks",
    "ioctl",
    "metadata",
    "mkfs",
    "mount",
    "reading",
    "reserve",
    "scan",
    "superblock",
    "sysfs",
]
