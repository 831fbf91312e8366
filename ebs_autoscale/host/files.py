"""Small files of the system, written whole or not at all."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit

_ENCODING = ("utf-8", "surrogateescape")


def read_text(path: Path) -> str:
    """What stands in the file, each byte recoverable; empty when there is none."""
    try:
        return path.read_bytes().decode(*_ENCODING)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Unfit(f"cannot read {path}: {error.strerror}", cause=Cause.FILE) from error


def replace(path: Path, text: str) -> None:
    """Give the file this content at once, through a crash too; a symlink to it is followed.

    Mode, owner and SELinux label stay. Two writers at a time need a lock of their own.
    Raises Unfit, also when what is there is no regular file.
    """
    real = path.resolve()
    if real.exists() and not real.is_file():
        raise Unfit(
            f"cannot write {path}: {real} is not a regular file",
            hint="have a regular file there, or nothing, and repeat",
            cause=Cause.FILE,
        )
    _write(real, text, keep=real.exists(), publish=os.replace)


def create(path: Path, text: str) -> None:
    """Make a new file, readable by all, with this content; one that exists is never overwritten."""
    _write(path, text, keep=False, publish=_link_new)


def _write(real: Path, text: str, *, keep: bool, publish: Callable[[Path, Path], None]) -> None:
    # One name for all tries: what a killed one left is overwritten, and nothing piles up.
    part = real.with_name(f".{real.name}.ebs-autoscale")
    try:
        real.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with part.open("xb") as file:
            if keep:
                status = real.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                shutil.copystat(real, part)
            else:
                os.fchmod(file.fileno(), 0o644)
            file.write(text.encode(*_ENCODING))
            file.flush()
            os.fsync(file.fileno())
        publish(part, real)
        _sync_folder(real.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise Unfit(
            f"cannot write {real}: {error.strerror}",
            hint="is its filesystem writable, and the file not mounted by itself?",
            cause=Cause.FILE,
        ) from error


def _link_new(part: Path, real: Path) -> None:
    os.link(part, real)
    part.unlink()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
