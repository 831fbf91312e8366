"""Processes that end with their parent."""

import subprocess
import sys


def test_a_child_dies_with_its_parent() -> None:
    """A child is ended when its parent is killed."""
    child = (
        "import signal\n"
        "from ebs_autoscale.host.process import die_with_parent\n"
        "die_with_parent(signal.SIGTERM)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    parent = (
        "import signal, subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-I', '-c', {child!r}])\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-c", parent], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        # The pipe ends when the last process that holds it has ended.
        assert process.stdout.read() == ""


def test_a_missing_command_is_reported() -> None:
    """A command that does not exist ends with status 127 and names it."""
    argv = [sys.executable, "-I", "-m", "ebs_autoscale.host.process", "deaf", "no-such-command"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "no-such-command" in done.stderr
