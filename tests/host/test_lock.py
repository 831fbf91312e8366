"""Locks between processes, which the kernel releases."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebs_autoscale.errors import Cause, LockHeld, Unfit
from ebs_autoscale.host import lock
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
    """Have another process hold the lock."""
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
    """A path for a lock in a folder that does not exist yet."""
    return tmp_path / "run" / "some.lock"


def test_a_second_process_is_told_who_holds_it(path: Path) -> None:
    """A second process gets LockHeld at once, with the pid of the holder."""
    with held_elsewhere(path) as holder:
        with pytest.raises(LockHeld) as caught:
            Lock(path)
        assert caught.value.cause is Cause.LOCKED
        assert str(holder.pid) in caught.value.what
        with pytest.raises(LockHeld):
            Lock(path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_holder_releases_it(path: Path, how: signal.Signals) -> None:
    """When its holder ends, the lock is free; the file remains and has the new holder's pid."""
    with held_elsewhere(path) as holder:
        holder.send_signal(how)
        holder.wait(60)
        with Lock(path):
            assert path.read_text() == f"{os.getpid()}\n"


def test_an_heir_keeps_it(path: Path) -> None:
    """A process that inherited the descriptor holds the lock after the first has released it."""
    with Lock(path) as lock:
        argv = [sys.executable, "-I", "-c", "import sys; sys.stdin.read()"]
        heir = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=[lock.fileno()])
    with pytest.raises(LockHeld):
        Lock(path)
    heir.communicate(timeout=60)
    Lock(path).close()


def test_it_is_not_inherited_by_accident(path: Path) -> None:
    """A tool that is started meanwhile does not hold the lock."""
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
    """The file has the pid of the holder and nothing of a longer text before."""
    path.parent.mkdir()
    path.write_text("123456789012345 and more\n")
    with Lock(path) as lock:
        lock.sign()
        assert path.read_text() == f"{os.getpid()}\n"


def test_an_unsigned_lock_is_held_too(path: Path) -> None:
    """A holder that has not written its pid yet holds the lock."""
    with held_elsewhere(path):
        path.write_text("")
        with pytest.raises(LockHeld):
            Lock(path)


def test_only_its_owner_can_take_it(path: Path) -> None:
    """Only the owner can read the file: a reader could hold the lock and prevent growth."""
    before = os.umask(0)
    try:
        with Lock(path):
            assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)
        with Lock(path):
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def make_a_link(path: Path) -> None:
    """Put a symlink in the place of the lock."""
    path.parent.mkdir()
    path.symlink_to(path.parent / "victim")


def make_a_file_of_the_folder(path: Path) -> None:
    """Put a file in the place of the folder."""
    path.parent.write_text("in the way")


@pytest.fixture(params=[make_a_link, make_a_file_of_the_folder])
def impossible(request: pytest.FixtureRequest, path: Path) -> Path:
    """A lock whose file cannot be created."""
    request.param(path)
    return path


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file instead of the control device, which only root can open."""
    device = tmp_path / "control"
    device.touch()
    monkeypatch.setattr(lock, "CONTROL_DEVICE", device)
    return device


@pytest.mark.usefixtures("device")
def test_a_lock_needs_no_file(impossible: Path) -> None:
    """Where no file can be created the control device is locked, by one process for each path."""
    with Lock(impossible) as ours:
        with pytest.raises(LockHeld):
            Lock(impossible)
        with Lock(impossible.with_name("other.lock")):
            pass
        inherited = os.dup(ours.fileno())
    with pytest.raises(LockHeld):
        Lock(impossible)
    os.close(inherited)
    with Lock(impossible):
        pass
    assert not (impossible.parent / "victim").exists()


@pytest.mark.usefixtures("device")
def test_a_lock_without_a_file_is_seen_when_there_can_be_one(path: Path) -> None:
    """Space in /run that comes back does not let a second process in."""
    make_a_file_of_the_folder(path)
    with Lock(path):
        path.parent.unlink()
        with pytest.raises(LockHeld):
            Lock(path)
    with Lock(path):
        assert path.exists()


def test_without_both_it_is_unfit(impossible: Path, device: Path) -> None:
    """When nothing can be locked, the error has the path of the file."""
    device.unlink()
    with pytest.raises(Unfit, match=r"some\.lock"):
        Lock(impossible)
