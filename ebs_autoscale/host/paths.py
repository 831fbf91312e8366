"""Where the program's own files are: configuration, runtime files, log."""

from pathlib import Path

CONFIG_FOLDER = Path("/etc/ebs-autoscale")
CONFIG_DEFAULT = CONFIG_FOLDER / "config.yaml"
RUNTIME_DIRECTORY = Path("/run/ebs-autoscale")
LOG_FILE = Path("/var/log/ebs-autoscale.log")


def status_file(mountpoint: str) -> Path:
    """The daemon's report: `/scratch` is scratch.json, `/var/lib/docker` var-lib-docker.json."""
    return RUNTIME_DIRECTORY / f"{mountpoint.strip('/').replace('/', '-') or 'root'}.json"


def pid_file(mountpoint: str) -> Path:
    """Names the process of a daemon that detached itself."""
    return status_file(mountpoint).with_suffix(".pid")


def daemon_lock(filesystem: str) -> Path:
    """Held by the daemon for its whole life; `filesystem` is a UUID."""
    return RUNTIME_DIRECTORY / f"{filesystem}.lock"


def growth_lock(filesystem: str) -> Path:
    """Held by whoever grows, daemon or operator, as long as the growth takes."""
    return RUNTIME_DIRECTORY / f"{filesystem}.growth.lock"


def init_lock() -> Path:
    """Held by `init`: one at a time on a host, since all of them write the same fstab."""
    return RUNTIME_DIRECTORY / "init.lock"


def balance_mark(filesystem: str) -> Path:
    """There while a balance is paused because a growth needed its place."""
    return RUNTIME_DIRECTORY / f"{filesystem}.balance-gave-way"
