"""The filesystems that can grow."""

__all__ = ["btrfs"]
