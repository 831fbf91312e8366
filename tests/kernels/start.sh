#!/bin/sh
# Becomes a Linux kernel of another version (user-mode Linux), in mount and pid namespaces of its own.
# Its root is this host's, read-only: a test that goes wrong in it changes nothing here. What it writes is
# in `folder`, and its memory in a tmpfs that ends with it.
set -eu
folder=$1 init=$2 memory=$3
shift 3

mount --make-rprivate /
mkdir "$folder/root" "$folder/memory"
# Not recursive: without the host's /proc, /sys and /dev.
for filesystem in "$@"; do
	mount --bind "$filesystem" "$folder/root$filesystem"
	mount -o remount,bind,ro "$folder/root$filesystem"
done
mount -t tmpfs -o "mode=700,size=$memory" memory "$folder/memory"
export TMPDIR="$folder/memory"
exec setpriv --bounding-set=-all --inh-caps=-all linux.uml \
	rootfstype=hostfs rootflags="$folder/root" ro init="$init" shared="$folder/shared" \
	ubda="$folder/disk" mem="$memory" uml_dir="$folder/memory" con=null con0=null,fd:1 quiet </dev/null
