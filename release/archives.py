"""Archives that are the same byte for byte whenever and by whomever they are built."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple


class Entry(NamedTuple):
    """A file, or a symbolic link if `link` is set."""

    content: bytes = b""
    mode: int = 0o644
    link: str = ""


Tree = Mapping[str, Entry]
"""The entries of an archive by their paths; the folders follow from them."""


def tar_gz(tree: Tree, *, epoch: int, dot: bool = False) -> bytes:
    """A compressed tar archive, all of root's and of one time; `dot` begins each path with `./`."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=epoch) as stream,
        tarfile.open(mode="w", fileobj=stream, format=tarfile.GNU_FORMAT) as archive,
    ):
        folders = {str(above) for name in tree for above in PurePosixPath(name).parents}
        for name in sorted({*tree, *folders} - {"."}):
            member = tarfile.TarInfo(f"./{name}" if dot else name)
            member.mtime = epoch
            member.uname = member.gname = "root"
            if name not in tree:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            content, member.mode, member.linkname = tree[name]
            if member.linkname:
                member.type = tarfile.SYMTYPE
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def read_tar_gz(packed: bytes) -> dict[str, Entry]:
    """The files in a compressed tar archive."""
    with tarfile.open(mode="r:gz", fileobj=io.BytesIO(packed)) as archive:
        return {
            member.name: Entry(content.read(), 0o755 if member.mode & 0o100 else 0o644)
            for member in archive
            if (content := archive.extractfile(member)) is not None
        }


def deb(control: Tree, data: Tree, *, epoch: int) -> bytes:
    """A package of Debian: an ar archive with two tar archives. Source: man 5 deb."""
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tar_gz(control, epoch=epoch, dot=True),
        "data.tar.gz": tar_gz(data, epoch=epoch, dot=True),
    }
    packed = b"!<arch>\n"
    for name, content in parts.items():
        packed += f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return packed
