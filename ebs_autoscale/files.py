"""Files of the host that we write: whole, or as they were."""

import contextlib
import os
import tempfile
from pathlib import Path

from ebs_autoscale.errors import Transient


def replace_text(path: Path, text: str) -> bool:
    """Have the file hold this text whenever the machine stops; False when it held it before.

    Its folder is made; mode and owner of a file that is there stay, and a symlink stays one.
    A new one can be read by everybody. Raises Transient.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target = path.resolve()
        with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
            if target.read_text("utf-8") == text:
                return False
        _replace(target, text)
    except OSError as error:
        raise Transient(f"cannot write {path}: {error.strerror}", cause="file") from error
    return True


def _replace(target: Path, text: str) -> None:
    fd, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(fd, 0o644)
            with contextlib.suppress(FileNotFoundError):
                there = target.stat()
                os.fchmod(fd, there.st_mode & 0o7777)
                os.fchown(fd, there.st_uid, there.st_gid)
            file.flush()
            os.fsync(fd)
        Path(part).replace(target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
