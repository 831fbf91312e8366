"""What BTRFS says of itself, and its arithmetic: sysfs, ioctls, chunks, mounts."""
