"""The Linux host: tools, processes, block devices, mounts, fstab, locks and systemd."""
