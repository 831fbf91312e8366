"""The types of the fixtures that tests of block devices and BTRFS use."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ec2_sandbox.devices.loop import LoopDevice

Loop = Callable[[int], LoopDevice]


class Btrfs(Protocol):
    """The `btrfs_at` fixture."""

    def __call__(
        self, *devices: LoopDevice, mkfs: tuple[str, ...] = ..., at: Path | None = ...
    ) -> Path:
        """Make and mount."""


class Foreign(Protocol):
    """The fixtures `foreign_balance` and `foreign_removal`."""

    def __call__(self, path: Path) -> AbstractContextManager[Callable[[], None]]:
        """Let one run on this path; it can be cancelled."""


class FakeClock(Protocol):
    """The `clock` fixture."""

    seconds: float
    on_sleep: Callable[[], object]

    def now_seconds(self) -> float:
        """Seconds since nothing in particular."""

    def sleep(self, seconds: float) -> None:
        """Pass at once."""
