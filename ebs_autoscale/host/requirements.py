"""What every change needs of this host: root, and the tools of BTRFS."""

import os

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host.command import path_of


def require_fit_host() -> None:
    """Raise Unfit unless this process may and can change a BTRFS filesystem."""
    require_root()
    if path_of("btrfs") is None:
        raise Unfit(
            "the tool `btrfs` is not installed",
            hint="on Debian and Ubuntu: apt-get install btrfs-progs",
            cause=Cause.NO_BTRFS_PROGS,
        )


def require_root() -> None:
    """Raise Unfit unless this process runs as root."""
    if os.geteuid() != 0:
        raise Unfit(
            "not running as root: block devices and BTRFS need it",
            hint="use sudo, or the systemd unit",
            cause=Cause.NOT_ROOT,
        )
