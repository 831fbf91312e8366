#!/bin/sh
# Holds what a box keeps between boots: its network, and a tmpfs with its changes. Started in its own
# namespaces, so that both end with the last process in them, whatever is killed.
# Ends when its standard input is closed, as at the end of the test run, and removes what the kernel
# does not remove by itself: the control group and the folder of the sparse files.
set -eu
folder=$1 group=$2

ip link set lo up
# The address of the instance metadata service, see link-local in the EC2 user guide.
ip address add 169.254.169.254/32 dev lo
mount -t tmpfs -o mode=755 box "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root" "$folder/cgroup"
# The cgroup2 hierarchy, also where it is not mounted on this host.
mount -t cgroup2 cgroup2 "$folder/cgroup"
mkdir "$folder/cgroup/$group"
echo ready
trap '' INT TERM HUP

cat >/dev/null

# Since Linux 5.14. Before that, all other processes end with PID 1.
echo 1 2>/dev/null >"$folder/cgroup/$group/cgroup.kill" || true
tries=100
while [ $tries -gt 0 ] && grep -q 'populated 1' "$folder/cgroup/$group/cgroup.events"; do
	sleep 0.1
	tries=$((tries - 1))
done
find "$folder/cgroup/$group" -depth -type d -exec rmdir {} +
umount --lazy "$folder/cgroup"
umount --lazy "$folder"
rmdir "$folder"
