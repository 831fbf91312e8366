#!/bin/sh
# Becomes PID 1 of a box: `unshare` has made it the first process of new pid, mount, uts and ipc namespaces.
set -eu
tree=$1 folder=$2 group=$3 step=${4-join}

# The control group first, its namespace after: the group is then the root that systemd sees. Only
# PID 1 joins: a group with processes of its own cannot hand controllers on to its children.
if [ "$step" = join ]; then
	echo 0 >"$folder/cgroup/$group/cgroup.procs"
	exec unshare --cgroup sh "$0" "$tree" "$folder" "$group" mount
fi

mount --make-rprivate /
mount -t overlay box -o "lowerdir=$tree,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t proc -o nosuid,nodev,noexec proc proc
# PID 1 raises fs.nr_open and fs.file-max, which are the host's.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
# A sysfs of its own shows the network namespace; writable, else udevd does not start and systemd
# takes no entry of fstab that names a device. Its block and fs/btrfs are the host's.
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
# cgroup2 alone, also where the host has its controllers in version 1: services are then tracked and
# killed as usual, without limits.
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
# No devtmpfs: there is one for all, and the links of udevd would show on the host.
mount -t tmpfs -o mode=755,nosuid dev dev
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev run run
# Without devtmpfs systemd listens to udevd only if it is there before; its socket takes the place.
mkdir run/udev
: >run/udev/control
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
	IFS=: read -r name major minor <<-END
		$node
	END
	mknod -m 666 "dev/$name" c "$major" "$minor"
done
for name in btrfs-control loop-control; do
	number=$(cat "/sys/class/misc/$name/dev")
	mknod -m 600 "dev/$name" c "${number%:*}" "${number#*:}"
done
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
ln -s pts/ptmx dev/ptmx
ln -s null dev/console

pivot_root . mnt
umount --lazy /mnt
# systemd itself does this only on a machine: what is mounted later reaches the services that have a
# mount namespace of their own.
mount --make-rshared /
# `container` keeps systemd off what is the host's: clock, console, and above all the loop devices,
# all of which systemd-shutdown would detach on a machine.
exec env -i container=box PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal
