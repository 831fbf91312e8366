"""A program that writes data at a steady rate and later verifies its checksums."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ec2_sandbox.errors import SandboxError

from ebs_autoscale_demo.clock import now_seconds, sleep
from ebs_autoscale_demo.sizes import MIB

_BLOCK_BYTES = MIB
_FILE_BYTES = 32 * MIB
_COUNTER_BYTES = 16
# Not a multiple of the page size: no two blocks within 1 GiB have a page in common.
_STRIDE_BYTES = 1021
_RETRY_AFTER_ENOSPC_SECONDS = 0.2
# After a longer stall, the missing data is not made up for in a burst.
_CATCH_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Written:
    path: Path
    digest: bytes


class Writer:
    """Fills a directory; remembers the checksum of each file and counts every ENOSPC."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pool = os.urandom(2 * _BLOCK_BYTES)
        self._files: list[_Written] = []
        self._due_seconds = 0.0
        self.written_bytes = 0
        self.verified_bytes = 0
        self.enospc = 0

    @property
    def file_count(self) -> int:
        """The number of complete files."""
        return len(self._files)

    def fill(
        self, data_bytes: int, *, rate_bytes_per_second: float, between: Callable[[], None]
    ) -> None:
        """Write that much at this rate, calling `between` after each block.

        After ENOSPC the write is repeated; any other error raises SandboxError.
        """
        self._due_seconds = now_seconds()
        try:
            while self.written_bytes < data_bytes:
                for _ in self._write_file(min(_FILE_BYTES, data_bytes - self.written_bytes)):
                    self._pace(_BLOCK_BYTES / rate_bytes_per_second)
                    between()
        except OSError as error:
            raise SandboxError(f"cannot write to {self._directory}: {error}") from error

    def verify(self) -> list[Path]:
        """Read everything back from the block devices; returns the files that differ."""
        return [file.path for file in self._files if self._digest_of(file.path) != file.digest]

    def _write_file(self, size_bytes: int) -> Iterator[None]:
        path = self._directory / f"{len(self._files):04}.bin"
        digest = blake2b()
        fd = self._until_space(lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        try:
            for _ in range(-(-size_bytes // _BLOCK_BYTES)):
                block = self._block(self.written_bytes // _BLOCK_BYTES)
                digest.update(block)
                self._write(fd, block)
                self.written_bytes += len(block)
                yield
            self._until_space(lambda: os.fsync(fd))
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
            rest = rest[self._until_space(lambda: os.write(fd, piece)) :]  # noqa: B023 -- called at once

    def _until_space(self, act: Callable[[], int | None]) -> int:
        """Repeat a system call until there is space for it."""
        while True:
            try:
                return act() or 0
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self.enospc += 1
            sleep(_RETRY_AFTER_ENOSPC_SECONDS)

    def _pace(self, seconds: float) -> None:
        now = now_seconds()
        self._due_seconds = max(self._due_seconds + seconds, now - _CATCH_UP_SECONDS)
        sleep(max(0.0, self._due_seconds - now))

    def _digest_of(self, path: Path) -> bytes:
        digest = blake2b()
        try:
            fd = os.open(path, os.O_RDONLY)
            try:
                # Drop the page cache, so that the data comes from the block devices.
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                while block := os.read(fd, _BLOCK_BYTES):
                    digest.update(block)
                    self.verified_bytes += len(block)
            finally:
                os.close(fd)
        except OSError:  # BTRFS returns EIO for data that does not match its own checksum
            return b""
        return digest.digest()
