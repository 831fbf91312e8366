"""The filesystems that can grow."""

__all__ = ["btrfs", "copies", "mounted", "one_device", "page_cache", "sighting"]
