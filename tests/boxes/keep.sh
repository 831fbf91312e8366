#!/bin/sh
# Holds what outlives a boot of a box: a network of its own, and a tmpfs with its changes. Started in
# namespaces of its own, so that both end with the last process in them, whoever is killed.
# It ends with its standard input, so with the test run, and removes the two things that no kernel
# removes by itself: the control group and the folder of the sparse files.
set -eu
folder=$1 group=$2

ip link set lo up
# The address of the instance metadata service, see link-local in the EC2 user guide.
ip address add 169.254.169.254/32 dev lo
mount -t tmpfs -o mode=755 box "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root" "$folder/cgroup"
# The one cgroup2 hierarchy, wherever or not this host shows it.
mount -t cgroup2 cgroup2 "$folder/cgroup"
mkdir "$folder/cgroup/$group"
echo ready
trap '' INT TERM HUP

cat >/dev/null

# From Linux 5.14. Before, the end of PID 1 is what ends the rest.
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
