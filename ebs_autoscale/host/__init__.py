"""The host: tools, block devices, mounts, files, locks, systemd. Imports nothing by itself."""

__all__ = [
    "blank",
    "block_devices",
    "command",
    "files",
    "fstab",
    "lock",
    "mountinfo",
    "partitions",
    "paths",
    "process",
    "requirements",
    "sd_notify",
    "systemd",
]
