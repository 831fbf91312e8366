"""The command line of the sandbox."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ec2_sandbox.client import SandboxControl

EXAMPLE = Path(__file__).parents[2] / "sandbox/examples/attach_volume.py"
SHOW_ENVIRONMENT = "import os; print(os.environ['AWS_ENDPOINT_URL_EC2'], os.environ['AWS_REGION'])"


def program(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-I", "-m", "ec2_sandbox", *arguments]


def finished(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the program to its end."""
    return subprocess.run(
        program(*arguments),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def foreground(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program in the foreground, and kill it at the end."""
    with subprocess.Popen(
        program(*arguments), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_prints_what_a_shell_needs(number: signal.Signals) -> None:
    """In the foreground it prints export lines that work, and a signal ends it with 0."""
    with foreground() as process:
        assert process.stdout is not None
        exports = {}
        for line in iter(process.stdout.readline, "# press Ctrl-C to stop\n"):
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exports[name] = value
        region = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1")
        control = SandboxControl(exports["AWS_ENDPOINT_URL_EC2"])
        assert dict(control.environment) | region == exports
        assert control.state().instance_state == "running"
        process.send_signal(number)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("settings", "status", "complaint"),
    [('{"colour": 1}', 2, "unknown key 'colour'"), (None, 2, "cannot read the settings")],
)
def test_wrong_settings_end_it(
    tmp_path: Path, settings: str | None, status: int, complaint: str
) -> None:
    """A mistake in the settings is exit code 2 and one sentence."""
    path = tmp_path / "settings.json"
    if settings is not None:
        path.write_text(settings)
    with foreground("--settings", str(path)) as process:
        assert process.wait(20) == status
        assert process.stderr is not None
        (sentence,) = process.stderr.read().splitlines()
        assert complaint in sentence


def test_a_port_in_use_is_no_traceback() -> None:
    """A host that cannot run the sandbox is exit code 5 and one sentence."""
    with foreground() as first:
        assert first.stdout is not None
        port = urlsplit(first.stdout.readline().strip().partition("=")[2]).port
        with foreground("--port", str(port)) as second:
            assert second.wait(20) == 5
            assert second.stderr is not None
            assert "Address already in use" in second.stderr.read()


def test_a_command_runs_with_the_sandbox_as_its_ec2() -> None:
    """A command gets the sandbox's variables and not the user's profile; its status is returned."""
    script = f"{SHOW_ENVIRONMENT}; sys.exit('AWS_PROFILE' in os.environ or 7)"
    done = finished("--", sys.executable, "-c", f"import sys; {script}", AWS_PROFILE="production")
    assert done.returncode == 7
    url, region = done.stdout.split()
    assert url.startswith("http://127.0.0.1:")
    assert region == "us-east-1"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "status"), [(["sh", "-c", "kill -TERM $$"], 143), (["no-such-command"], 127)]
)
def test_a_failed_command_has_the_exit_status_of_a_shell(command: list[str], status: int) -> None:
    """A command that a signal ended, or that does not exist, has the status that a shell gives."""
    assert finished("--", *command).returncode == status


def test_sigterm_ends_the_command_and_the_sandbox() -> None:
    """SIGTERM is passed on to the command, and the sandbox ends with it."""
    script = f"{SHOW_ENVIRONMENT}; sys.stdout.flush(); sys.stdin.read()"
    argv = program("--", sys.executable, "-c", f"import sys; {script}")
    with subprocess.Popen(
        argv, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        assert SandboxControl(url).state().instance_state == "running"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
        with pytest.raises(ConnectionRefusedError):
            SandboxControl(url).state()


@pytest.mark.kernel
def test_the_example_of_the_readme_works(tmp_path: Path) -> None:
    """The program in the README attaches, formats, detaches and deletes a volume."""
    settings = tmp_path / "settings.json"
    settings.write_text("{}")
    options = ["--block-devices", "nitro", "--settings", str(settings)]
    done = finished(*options, "--directory", str(tmp_path), "--", sys.executable, str(EXAMPLE))
    assert (done.returncode, done.stderr) == (0, "")
    assert 'TYPE="ext4"' in done.stdout
    assert list(tmp_path.iterdir()) == [settings]
