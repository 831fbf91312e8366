"""The filesystems that can grow."""
