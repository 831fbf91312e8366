"""The one balance that a filesystem can have at a time: ours, or one that gives way to a growth."""

from collections.abc import Callable
from itertools import count

from ebs_autoscale.errors import Cause, CommandFailed, Stopped, Transient
from ebs_autoscale.filesystems.btrfs.ioctl import balance_progress
from ebs_autoscale.filesystems.btrfs.mount import BtrfsMount
from ebs_autoscale.host import paths
from ebs_autoscale.host.command import run

# 20 s for each GiB of metadata (measured): this is for 500 GiB of it.
_BALANCE_TIMEOUT_SECONDS = 3 * 3600.0
# Somebody else's may move all data there is; only a stop ends our patience with it.
_FOREIGN_TIMEOUT_SECONDS = 30 * 24 * 3600.0
# Both end with the chunk being moved: 1 to 5 s measured, 20 s for 1 GiB at 125 MiB/s.
_PAUSE_TIMEOUT_SECONDS = 60.0
# Exit status of pause and cancel: there is nothing to pause or cancel (btrfs-progs 4.15 to 6.19).
_NOT_RUNNING = 2
# `stopping` is asked five times a second.
_TELL_EVERY_ASKED = 10


def untold(_sentence: str) -> None:
    """Nobody wants to know."""


class Balance:
    """Starts ours, which dies with us; lets somebody else's give way, and takes it up again.

    That a balance was paused by us and not by its owner cannot be seen in the filesystem: a mark
    under /run says so. Both last until the filesystem is unmounted.
    """

    def __init__(self, mount: BtrfsMount) -> None:
        self._mount = mount
        self._mark = paths.balance_mark(mount.uuid)

    def start(
        self, filters: str, *, stopping: Callable[[], bool], tell: Callable[[str], None]
    ) -> str:
        """Run ours to its end; returns the tool's last word.

        Raises Transient when it fails or somebody else ends it; Stopped, after having
        cancelled it, once `stopping` is true.
        """
        argv = ["btrfs", "balance", "start", filters, self._mount.path]
        return self._run(argv, _BALANCE_TIMEOUT_SECONDS, self._watched(stopping, tell), dies=True)

    def gave_way(self, operation: str) -> bool:
        """Whether the filesystem has a balance that we paused, `operation` being what runs now."""
        if operation == "none":
            self._mark.unlink(missing_ok=True)
        return operation == "balance paused" and self._mark.exists()

    def give_way(self) -> None:
        """Pause the balance that runs, at the end of its chunk; raises Transient when it does not.

        Nothing happens to it but that; done too when it ended by itself meanwhile.
        """
        try:
            self._mark.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._mark.touch()
            self._command("pause")
        except (CommandFailed, OSError) as error:
            raise Transient(
                f"somebody else's balance cannot be paused: {error}",
                hint=f"`btrfs balance cancel {self._mount.path}`",
                cause=Cause.EXCLUSIVE_OPERATION,
            ) from error

    def take_up(self, *, stopping: Callable[[], bool], tell: Callable[[str], None]) -> str:
        """Go on with what gave way, to its end; returns the tool's last word.

        Raises Transient when it fails, or its owner ends it; Stopped, after having paused it once
        more, when `stopping` is true.
        """

        def pausing() -> bool:
            if stopping():
                self.give_way()
                raise Stopped("somebody else's balance gives way once more")
            return False

        argv = ["btrfs", "balance", "resume", self._mount.path]
        watched = self._watched(pausing, tell)
        done = self._run(argv, _FOREIGN_TIMEOUT_SECONDS, watched, dies=False)
        self._mark.unlink(missing_ok=True)
        return done

    def cancel(self) -> None:
        """End the balance for good; done when there is none."""
        self._mark.unlink(missing_ok=True)
        self._command("cancel")

    def progress(self) -> str:
        """How far it is: `3 of 10 chunks moved`; empty when there is none."""
        with self._mount.opened() as mount:
            progress = balance_progress(mount.fd)
        return f"{progress.completed} of {progress.expected} chunks moved" if progress else ""

    def _command(self, verb: str) -> None:
        argv = ["btrfs", "balance", verb, self._mount.path]
        try:
            run(argv, timeout_seconds=_PAUSE_TIMEOUT_SECONDS)
        except CommandFailed as error:
            if error.status != _NOT_RUNNING:
                raise

    def _run(
        self, argv: list[str], timeout_seconds: float, stopping: Callable[[], bool], *, dies: bool
    ) -> str:
        try:
            output = run(
                argv, timeout_seconds=timeout_seconds, stopping=stopping, dies_with_us=dies
            )
        except CommandFailed as error:
            self._mount.verify()
            if "by user" in error.stderr:
                raise self._overruled(argv) from error
            raise Transient(
                f"settling metadata failed: {error}",
                hint="the new space is usable all the same",
                cause=Cause.BALANCE,
            ) from error
        # Exit status 0 also when it was paused or cancelled; only this word says that it is done.
        if not output.startswith("Done"):
            raise self._overruled(argv)
        return output.strip()

    def _overruled(self, argv: list[str]) -> Transient:
        """Its owner's word counts: what he pauses is not taken up again."""
        self._mark.unlink(missing_ok=True)
        return Transient(
            f"somebody paused or cancelled `{' '.join(argv)}`",
            hint=f"`btrfs balance resume {self._mount.path}`, if it is paused",
            cause=Cause.BALANCE,
        )

    def _watched(
        self, stopping: Callable[[], bool], tell: Callable[[str], None]
    ) -> Callable[[], bool]:
        asked = count(1)

        def look() -> bool:
            if next(asked) % _TELL_EVERY_ASKED == 0 and (progress := self.progress()):
                tell(f"balance: {progress}")
            return stopping()

        return look
