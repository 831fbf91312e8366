#!/bin/sh
# PID 1 in user-mode Linux: runs the command in the shared folder, leaves its output and status there.
# `shared` comes from the kernel's command line.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=755 run /run
# Where partition tables are kept.
mount -t tmpfs -o mode=755 lib /var/lib
# Tests let a device hang by throttling it.
mount -t tmpfs cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/blkio
mount -t cgroup -o blkio blkio /sys/fs/cgroup/blkio
# The files behind loop devices, too large for the memory of this kernel.
mount -o discard /dev/ubda /dev/shm
mount -t hostfs -o "$shared" shared /mnt
ip link set lo up
mkdir -p /run/lib/modules
ln -s "/usr/lib/uml/modules/$(uname -r)" /run/lib/modules/
modprobe --dirname /run --all loop autofs4

uname -r >/mnt/release
sh /mnt/command >/mnt/output 2>&1
echo $? >/mnt/status
umount /dev/shm
echo o >/proc/sysrq-trigger
# Until the power is off: a kernel whose PID 1 ends panics.
sleep 60
