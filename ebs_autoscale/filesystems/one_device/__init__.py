"""XFS and ext4, which have one device and grow with it. Imports nothing by itself."""

__all__ = ["filesystem", "mkfs", "mount", "place", "reading", "superblock", "xfs"]
