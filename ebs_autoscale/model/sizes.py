"""Units of size, in bytes."""

MIB = 1024**2
GIB = 1024**3
SYSFS_SECTOR_BYTES = 512  # whatever the sector size of the device
