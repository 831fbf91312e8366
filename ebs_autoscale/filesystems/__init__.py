"""The filesystems that can grow."""

__all__ = ["btrfs", "mounted", "one_device"]
