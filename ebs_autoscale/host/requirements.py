"""What every change needs of this host: root, and the tools of BTRFS."""

import os
import platform
from contextlib import suppress

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host.command import path_of

_STATIC_BUILD = (
    "Amazon Linux has no package btrfs-progs: download btrfs.box.static from "
    "https://github.com/kdave/btrfs-progs/releases and install it as /usr/local/sbin/btrfs and "
    "/usr/local/sbin/mkfs.btrfs"
)


def require_fit_host(*more_tools: str) -> None:
    """Raise Unfit unless this process may and can change a BTRFS filesystem.

    It needs `btrfs` and, for some purposes, more tools of btrfs-progs.
    """
    require_root()
    for tool in ("btrfs", *more_tools):
        if path_of(tool) is None:
            raise Unfit(
                f"the tool `{tool}` is not installed",
                hint=how_to_install_btrfs(),
                cause=Cause.NO_BTRFS_PROGS,
            )


def how_to_install_btrfs() -> str:
    """What to do without btrfs-progs on this distribution."""
    release: dict[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    likes = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if "amzn" in likes:
        return _STATIC_BUILD
    if likes & {"debian", "ubuntu"}:
        return "apt-get install btrfs-progs"
    return "install the package btrfs-progs"


def require_root() -> None:
    """Raise Unfit unless this process runs as root."""
    if os.geteuid() != 0:
        raise Unfit(
            "not running as root: block devices and BTRFS need it",
            hint="use sudo, or the systemd unit",
            cause=Cause.NOT_ROOT,
        )
