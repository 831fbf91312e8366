"""Make a BTRFS filesystem on a blank device."""

from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, Unfit
from ebs_autoscale.host.command import run

# Takes 0.1 s on an idle volume.
_MKFS_TIMEOUT_SECONDS = 120.0
# The longest label that mkfs.btrfs accepts.
_LABEL_BYTES = 255


def make(node: Path, *, filesystem: str, label: str) -> None:
    """Make an empty filesystem with this UUID on a device that was verified to be blank.

    Data single, metadata dup, the profiles that a single device can have, whatever the defaults of
    the installed btrfs-progs are; all options exist in 4.15, the oldest release in use. Without
    force, so that a device with a signature is refused. Without TRIM, which EBS does not support
    and mkfs.btrfs does before its last checks. Raises Unfit.
    """
    argv = ["mkfs.btrfs", "-q", "-K", "-d", "single", "-m", "dup"]
    argv += ["-U", filesystem, "-L", label.encode()[:_LABEL_BYTES].decode(errors="ignore")]
    try:
        run([*argv, str(node)], timeout_seconds=_MKFS_TIMEOUT_SECONDS)
    except CommandFailed as error:
        raise Unfit(
            f"cannot make a filesystem on {node}: {error}",
            hint="see dmesg for device errors; btrfs-progs must be 4.15 or later",
            cause=Cause.MKFS,
        ) from error
