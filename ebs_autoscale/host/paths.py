"""Paths of the program's own files: configuration, runtime files, log."""

from pathlib import Path

CONFIG_FOLDER = Path("/etc/ebs-autoscale")
CONFIG_DEFAULT = CONFIG_FOLDER / "config.yaml"
RUNTIME_DIRECTORY = Path("/run/ebs-autoscale")
LOG_FILE = Path("/var/log/ebs-autoscale.log")


def status_file(mountpoint: str) -> Path:
    """The daemon's report: `/scratch` is scratch.json, `/var/lib/docker` var-lib-docker.json."""
    return RUNTIME_DIRECTORY / f"{mountpoint.strip('/').replace('/', '-') or 'root'}.json"


def pid_file(mountpoint: str) -> Path:
    """The pid of a daemon that runs detached."""
    return status_file(mountpoint).with_suffix(".pid")


def daemon_lock(filesystem: str) -> Path:
    """Held by the daemon as long as it runs; `filesystem` is a UUID."""
    return RUNTIME_DIRECTORY / f"{filesystem}.lock"


def growth_lock(filesystem: str) -> Path:
    """Held during a growth, of the daemon or of an operator; `filesystem` is a UUID."""
    return RUNTIME_DIRECTORY / f"{filesystem}.growth.lock"


def init_lock() -> Path:
    """Held by `init`: one at a time on a host, since each of them changes fstab."""
    return RUNTIME_DIRECTORY / "init.lock"


def balance_mark(filesystem: str) -> Path:
    """Exists while a balance is paused that a growth has paused; `filesystem` is a UUID."""
    return RUNTIME_DIRECTORY / f"{filesystem}.balance-gave-way"
