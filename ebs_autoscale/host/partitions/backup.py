"""Copies of partition tables, made before one is changed."""

import re
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host import files, paths
from ebs_autoscale.host.command import run
from ebs_autoscale.host.partitions.table import Table

# A table changes once a growth; each file has about a KiB.
_KEPT = 50
_SFDISK_TIMEOUT_SECONDS = 20.0
_ENTRY = re.compile(r"^\S+?(\d+) : start= *(\d+), size= *(\d+)", re.MULTILINE)


def back_up(disk: str, table: Table) -> Path:
    """Keep what sfdisk says of the table, for root only; returns the file, from which it restores.

    The same table has the same file. Raises Unfit, also unless sfdisk reads the same partitions.
    """
    text = run(["sfdisk", "--dump", f"/dev/{disk}"], timeout_seconds=_SFDISK_TIMEOUT_SECONDS)
    dumped = {tuple(map(int, found.groups())) for found in _ENTRY.finditer(text)}
    if dumped != {(entry.number, entry.start, entry.sectors) for entry in table.entries}:
        raise Unfit(
            f"sfdisk reads other partitions on {disk} than there are",
            hint=f"nothing was changed; inspect them with `sfdisk --dump /dev/{disk}`",
            cause=Cause.PARTITION,
        )
    try:
        return _kept(paths.PARTITION_TABLES, disk, text)
    except (OSError, Unfit):
        # It may be on the filesystem that is to grow, such as a full /. /run lasts until a reboot.
        return _kept(paths.RUNTIME_DIRECTORY / paths.PARTITION_TABLES.name, disk, text)


def _kept(folder: Path, disk: str, text: str) -> Path:
    path = folder / f"{disk}-{sha256(text.encode()).hexdigest()[:12]}.sfdisk"
    if files.read_text(path) != text:
        path.unlink(missing_ok=True)
        files.create(path, text, mode=0o600)
    if files.read_text(path) != text:
        raise Unfit(f"{path} does not have what was written", cause=Cause.FILE)
    _forget_oldest(folder, path)
    return path


def _forget_oldest(folder: Path, newest: Path) -> None:
    with suppress(OSError):
        others = [path for path in folder.glob("*.sfdisk") if path != newest]
        others.sort(key=lambda path: path.stat().st_mtime)
        for path in others[: max(0, len(others) + 1 - _KEPT)]:
            path.unlink()
