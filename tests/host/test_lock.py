"""Locks between processes that die with their holder."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebs_autoscale.errors import Cause, LockHeld, Unfit
from ebs_autoscale.host.lock import Lock

HOLD = (
    "import pathlib, sys\n"
    "from ebs_autoscale.host.lock import Lock\n"
    "with Lock(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock."""
    argv = [sys.executable, "-I", "-c", HOLD, str(path)]
    with subprocess.Popen(
        argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A lock whose folder does not exist yet."""
    return tmp_path / "run" / "some.lock"


def test_a_second_process_is_told_who_holds_it(path: Path) -> None:
    """Whoever comes second gets LockHeld at once, with the first one's pid."""
    with held_elsewhere(path) as holder:
        with pytest.raises(LockHeld, match=rf"\(pid {holder.pid}, ") as caught:
            Lock(path)
        assert caught.value.cause is Cause.LOCKED
        with pytest.raises(LockHeld):
            Lock(path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_death_lets_go(path: Path, how: signal.Signals) -> None:
    """When its holder dies, however, the lock is free; the file stays and names the new one."""
    with held_elsewhere(path) as holder:
        holder.send_signal(how)
        holder.wait(60)
        with Lock(path):
            assert path.read_text() == f"{os.getpid()}\n"


def test_an_heir_keeps_it(path: Path) -> None:
    """A process that inherited the descriptor holds the lock after the first let go."""
    with Lock(path) as lock:
        argv = [sys.executable, "-I", "-c", "import sys; sys.stdin.read()"]
        heir = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[lock.fileno()])
    with pytest.raises(LockHeld):
        Lock(path)
    heir.communicate(timeout=60)
    Lock(path).close()


def test_it_is_not_inherited_by_accident(path: Path) -> None:
    """A tool that is started meanwhile does not keep the lock."""
    with Lock(path) as lock:
        argv = [
            sys.executable,
            "-I",
            "-c",
            "import sys; print('ready', flush=True); sys.stdin.read()",
        ]
        tool = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
        )
        # Until it runs the new program it is still a copy of us.
        assert tool.stdout is not None
        assert tool.stdout.readline() == b"ready\n"
        assert not os.get_inheritable(lock.fileno())
    Lock(path).close()
    tool.communicate(timeout=60)


def test_a_longer_pid_leaves_nothing_behind(path: Path) -> None:
    """The file holds the holder's pid and nothing of an earlier, longer text."""
    path.parent.mkdir()
    path.write_text("123456789012345 and more\n")
    with Lock(path) as lock:
        lock.sign()
        assert path.read_text() == f"{os.getpid()}\n"


def test_an_unsigned_lock_is_held_too(path: Path) -> None:
    """A holder that has not signed yet is unknown, but holds it."""
    with held_elsewhere(path):
        path.write_text("")
        with pytest.raises(LockHeld, match=r"\(pid unknown, "):
            Lock(path)


def test_only_its_owner_can_take_it(path: Path) -> None:
    """Who may read the file could hold the lock and stop all growth: only its owner may."""
    before = os.umask(0)
    try:
        with Lock(path):
            assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)
        with Lock(path):
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """Whoever puts a symbolic link in the way does not make us write elsewhere."""
    path.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(Unfit, match="cannot open the lock"):
        Lock(path)
    assert victim.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_unfit(tmp_path: Path) -> None:
    """Without a place for the lock it says where and why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Unfit, match=r"file/some\.lock: File exists"):
        Lock(tmp_path / "file" / "some.lock")
