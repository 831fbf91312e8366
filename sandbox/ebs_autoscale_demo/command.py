"""Run the tools of an operator: mkfs.btrfs, mount, umount, btrfs."""

import os
import subprocess

from ec2_sandbox.errors import HostUnfit, SandboxError

_TIMEOUT_SECONDS = 60.0
_SBIN = "/usr/sbin:/sbin"
"""Missing in the PATH of root after `su` without a dash."""


class ToolFailed(SandboxError):
    """A tool ended with a non-zero status or timed out."""


def run(argv: list[str]) -> str:
    """Run a tool to its end and return its output; raises ToolFailed or HostUnfit."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            env={**os.environ, "LC_ALL": "C", "PATH": path},
            check=False,
        )
    except OSError as error:
        raise HostUnfit(
            f"cannot run {argv[0]}: {error.strerror}", hint=f"install {argv[0]}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(f"`{' '.join(argv)}` timed out after {_TIMEOUT_SECONDS:.0f} s") from error
    if done.returncode:
        message = done.stderr.strip().splitlines()[-1:] or ["no error message"]
        raise ToolFailed(f"`{' '.join(argv)}` failed ({done.returncode}): {message[0]}")
    return done.stdout
