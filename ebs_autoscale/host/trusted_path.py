"""Where a path leads, and whether only root can make it lead elsewhere."""

import os
import stat
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit

# As many as Linux follows: path_resolution(7).
_LINKS_MAX = 40
_WRITABLE_FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class _ChangeableError(Exception):
    """Others than root can change what is in the folder of this name."""


def trusted_path(path: str) -> str:
    """The path without symlinks; raises Unfit if others than root can change where it leads."""
    try:
        return _followed(path)
    except _ChangeableError as error:
        folder = error.args[0]
        raise Unfit(
            f"others than root can change what {folder} contains, and so what would be mounted on",
            hint="choose a mountpoint in a directory that only root can change, such as /scratch, "
            f"or run `chown root {folder}; chmod go-w {folder}`",
            cause=Cause.MOUNTPOINT,
        ) from error


def changeable_part(path: Path) -> str:
    """The file, or the folder above it, that others than root can change; empty if there is none.

    Raises Unfit for a path that cannot be followed, and OSError.
    """
    try:
        found = os.lstat(_followed(str(path)))
    except _ChangeableError as error:
        return str(error.args[0])
    is_root_s = found.st_uid == 0 and not found.st_mode & _WRITABLE_FOR_OTHERS
    return "" if is_root_s else str(path)


def _followed(path: str) -> str:
    """The path without symlinks; raises _ChangeableError, and Unfit.

    In each folder on the way only root may create, rename or remove what comes next: the folder is
    root's, and not writable for others (an ACL shows in the bits of the group), or sticky and what
    comes next is root's. The last folder itself may be anybody's. From the first name that does
    not exist on, the path is as given: only root can create it.
    """
    reached, left = "/", _names_in(path)
    links = 0
    while left:
        name = left.pop(0)
        if name == "..":
            # Nothing reached is a symlink, so that this is the folder's own parent.
            reached = os.path.dirname(reached)  # noqa: PTH120 -- text, not a look at a file
            continue
        try:
            # Up to here, nobody else can change the path: so it may be looked at by name.
            target = _look(reached, name)
        except FileNotFoundError:
            return "/".join([reached.rstrip("/"), name, *left])
        except OSError as error:
            what = f"cannot follow the path {path} beyond {reached}: {error.strerror}"
            raise Unfit(what, cause=Cause.MOUNTPOINT) from error
        if not target:
            reached = f"{reached.rstrip('/')}/{name}"
            continue
        links += 1
        if links > _LINKS_MAX:
            raise Unfit(f"the path {path} has too many symlinks", cause=Cause.MOUNTPOINT)
        left = _names_in(target) + left
        reached = "/" if target.startswith("/") else reached
    return reached


def _names_in(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _look(folder: str, name: str) -> str:
    """The target of a symlink in the folder, empty if it is none; raises OSError, too."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        holder, found = os.fstat(fd), None
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        finally:
            _require_only_root_changes(folder, holder, found)
        return os.readlink(name, dir_fd=fd) if stat.S_ISLNK(found.st_mode) else ""
    finally:
        os.close(fd)


def _require_only_root_changes(
    folder: str, holder: os.stat_result, found: os.stat_result | None
) -> None:
    is_kept = holder.st_mode & stat.S_ISVTX and (found is None or found.st_uid == 0)
    if holder.st_uid == 0 and (is_kept or not holder.st_mode & _WRITABLE_FOR_OTHERS):
        return
    raise _ChangeableError(folder)
