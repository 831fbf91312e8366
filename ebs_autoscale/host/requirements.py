"""What every change needs of this host: root, its capabilities, and the tools."""

import os
import platform
from contextlib import suppress
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host import files
from ebs_autoscale.host.command import path_of, require_tools
from ebs_autoscale.model import FilesystemKind

# linux/capability.h
_CAP_SYS_RESOURCE = 24
_GROWN_BY = {FilesystemKind.XFS: "xfs_growfs", FilesystemKind.EXT4: "resize2fs"}

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


def require_able_to_grow(kind: FilesystemKind) -> None:
    """Raise Unfit unless this process may and can grow a filesystem of this kind while mounted."""
    require_tools_of(kind)
    # fs/ext4/resize.c, ext4_resize_begin; XFS and BTRFS ask for CAP_SYS_ADMIN.
    if kind is FilesystemKind.EXT4 and not _has_capability(_CAP_SYS_RESOURCE):
        raise Unfit(
            "this process lacks the capability CAP_SYS_RESOURCE, without which Linux does not grow "
            "ext4",
            hint="run `ebs-autoscale init MOUNTPOINT`, which adds it to the unit, and restart "
            "that; start a container with `--cap-add SYS_RESOURCE`",
            cause=Cause.CAPABILITY,
        )


def require_tools_of(kind: FilesystemKind, *, makes: bool = False) -> None:
    """Raise Unfit unless this process may change such a filesystem, and has the tools for it."""
    mkfs = [f"mkfs.{kind}"] if makes else []
    if kind is FilesystemKind.BTRFS:
        require_fit_host(*mkfs)
        return
    require_root()
    require_tools(_GROWN_BY[kind], *mkfs)


def _has_capability(number: int) -> bool:
    """Whether this process has it, and passes it on to the tools that it starts."""
    status = files.read_text(Path("/proc/self/status"))
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


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
