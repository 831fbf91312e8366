"""Read small text files, and write them atomically."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit

_ENCODING = ("utf-8", "surrogateescape")


def read_text(path: Path) -> str:
    """The text of the file, empty when there is none; `replace` writes the same bytes again."""
    try:
        return path.read_bytes().decode(*_ENCODING)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Unfit(f"cannot read {path}: {error.strerror}", cause=Cause.FILE) from error


def replace(path: Path, text: str) -> None:
    """Replace the content of the file atomically, also in a crash; symlinks are followed.

    Keeps mode, owner and SELinux label. Concurrent writers need a lock. Raises Unfit, also when
    there is something other than a regular file.
    """
    real = Path(os.path.realpath(path))
    # A link that leads to itself is there, too.
    is_there = os.path.lexists(real)
    if is_there and not real.is_file():
        raise Unfit(
            f"cannot write {path}: {real} is not a regular file",
            hint="move it elsewhere, then try again",
            cause=Cause.FILE,
        )
    _write(real, text, keep=is_there, publish=os.replace)


def create(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Create the file with this content, readable by all; raises Unfit when it exists."""
    _write(path, text, keep=False, publish=_link_new, mode=mode)


def publish(path: Path, text: str) -> None:
    """Replace the file atomically by one that everybody may read; raises OSError.

    Neither a link nor a pipe that others put in its place is followed or opened, and nothing waits
    for the device: a report may get lost.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        # Never what is there already: opening a pipe would wait for its reader.
        part.unlink(missing_ok=True)
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def make_folder(path: Path) -> None:
    """Create the folder, which everybody may list whatever the umask; raises OSError."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)


def _write(
    real: Path,
    text: str,
    *,
    keep: bool,
    publish: Callable[[Path, Path], None],
    mode: int = 0o644,
) -> None:
    # Always the same name, so that what a killed process left is overwritten.
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
                os.fchmod(file.fileno(), mode)
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
            hint="check that its filesystem is writable and that the file is not a mountpoint",
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
