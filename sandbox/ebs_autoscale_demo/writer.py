"""Checksummed data: written at a steady rate, read back from the disk, compared."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Transient

_MIB = 1024**2
_BLOCK_BYTES = _MIB
_FILE_BYTES = 32 * _MIB
_COUNTER_BYTES = 16
# No multiple of a page: no two blocks within a GiB have a page in common.
_STRIDE_BYTES = 1021
_AFTER_ENOSPC_SECONDS = 0.2
# After a longer stall the rate goes on from there: what was missed is not made up in a burst.
_CATCH_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Written:
    path: Path
    digest: bytes


class Writer:
    """A program that fills a folder; it notes the checksum of all it wrote and every ENOSPC."""

    def __init__(self, folder: Path, *, clock: SystemClock) -> None:
        self._folder = folder
        self._clock = clock
        self._pool = os.urandom(2 * _BLOCK_BYTES)
        self._files: list[_Written] = []
        self._due_seconds = 0.0
        self.written_bytes = 0
        self.verified_bytes = 0
        self.enospc = 0

    @property
    def file_count(self) -> int:
        """Files with a known checksum."""
        return len(self._files)

    def fill(
        self, data_bytes: int, *, rate_bytes_per_second: float, between: Callable[[], None]
    ) -> None:
        """Write so much at this rate, calling `between` after each block; raises Stopped.

        ENOSPC is counted and the write tried again; any other error is Transient.
        """
        self._due_seconds = self._clock.now_seconds()
        try:
            while self.written_bytes < data_bytes:
                for _ in self._write_file(min(_FILE_BYTES, data_bytes - self.written_bytes)):
                    self._pace(_BLOCK_BYTES / rate_bytes_per_second)
                    between()
        except OSError as error:
            raise Transient(f"cannot write to {self._folder}: {error}", cause="write") from error

    def verify(self) -> list[Path]:
        """Read everything back, from the disk and not from memory: the files that are wrong."""
        return [file.path for file in self._files if self._digest_of(file.path) != file.digest]

    def _write_file(self, size_bytes: int) -> Iterator[None]:
        path = self._folder / f"{len(self._files):04}.bin"
        digest = blake2b()
        fd = self._patiently(lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        try:
            for _ in range(-(-size_bytes // _BLOCK_BYTES)):
                block = self._block(self.written_bytes // _BLOCK_BYTES)
                digest.update(block)
                self._write(fd, block)
                self.written_bytes += len(block)
                yield
            self._patiently(lambda: os.fsync(fd))
        finally:
            os.close(fd)
        self._files.append(_Written(path, digest.digest()))

    def _block(self, number: int) -> bytes:
        start = number * _STRIDE_BYTES % _BLOCK_BYTES
        body = self._pool[start : start + _BLOCK_BYTES - _COUNTER_BYTES]
        return number.to_bytes(_COUNTER_BYTES, "big") + body

    def _write(self, fd: int, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            piece = rest
            rest = rest[self._patiently(lambda: os.write(fd, piece)) :]  # noqa: B023 -- called at once

    def _patiently(self, act: Callable[[], int | None]) -> int:
        """Do it until there is space for it: the count and the wish to stop go on."""
        while True:
            try:
                return act() or 0
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self.enospc += 1
            self._clock.sleep(_AFTER_ENOSPC_SECONDS)

    def _pace(self, seconds: float) -> None:
        now = self._clock.now_seconds()
        self._due_seconds = max(self._due_seconds + seconds, now - _CATCH_UP_SECONDS)
        self._clock.sleep(max(0.0, self._due_seconds - now))

    def _digest_of(self, path: Path) -> bytes:
        digest = blake2b()
        try:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                while block := os.read(fd, _BLOCK_BYTES):
                    digest.update(block)
                    self.verified_bytes += len(block)
                    self._clock.sleep(0)
            finally:
                os.close(fd)
        except OSError:  # BTRFS refuses to hand out what does not match its own checksum
            return b""
        return digest.digest()
