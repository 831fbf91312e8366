"""The daemon of a box, as its operator sees and controls it."""

import json

import yaml
from ec2_sandbox.client import VolumeSeen

from ebs_autoscale.filesystems.btrfs.reserve import NAME as RESERVE
from ebs_autoscale.telemetry import EventKind
from tests.boxes.box import Box
from tests.system.bench import CONFIG as SMALL

UNIT = "ebs-autoscale.service"
CONFIG_PATH = "/etc/ebs-autoscale/config.yaml"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/test.conf"


def configure(
    box: Box, mountpoint: str = "/scratch", path: str = CONFIG_PATH, **more: object
) -> None:
    """Write a configuration for small filesystems."""
    logging = {"format": "auto"}  # the journal
    box.write(path, yaml.safe_dump({"mountpoint": mountpoint, **SMALL, "logging": logging, **more}))


def initialise(box: Box, mountpoint: str = "/scratch", unit: str = UNIT) -> None:
    """Create a filesystem of 2 GiB, watched by a running service."""
    box.exec("ebs-autoscale", "init", mountpoint, "--size", "2GiB")
    box.wait_until(lambda: state(box, unit) == "active", unit)


def state(box: Box, unit: str = UNIT) -> str:
    """The state of the service, as `systemctl is-active` prints it."""
    return box.exec("systemctl", "is-active", unit, check=False).stdout.strip()


def shown(box: Box, name: str, unit: str = UNIT) -> str:
    """A property of the service."""
    return box.exec("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def fill(box: Box, *, left: int, mountpoint: str = "/scratch", path: str = CONFIG_PATH) -> None:
    """Allocate space, without content, until only this share in percent is available."""
    argv = ("ebs-autoscale", "--config", path, "status", "--json")
    seen = json.loads(box.exec(*argv, check=False).stdout)
    booked = seen["available_bytes"] - seen["size_bytes"] * left // 100
    count = len(box.exec("ls", mountpoint).stdout.split())
    box.exec("fallocate", "-l", str(booked), f"{mountpoint}/filling-{count}")


def journal_of_daemon(box: Box) -> list[dict[str, str]]:
    """The entries of the daemon in the journal, of all boots."""
    return [
        json.loads(line)
        for line in box.journal("-t", "ebs-autoscale", "--output=json").splitlines()
    ]


def count_events(box: Box, kind: EventKind, *, containing: str = "", **fields: str) -> int:
    """How often the daemon has told such an event; `containing` is an id or a path in it.

    `fields` are named as in the journal: CAUSE, DECISION, GROWTH, STEP.
    """
    return sum(
        entry.get("EBS_AUTOSCALE_EVENT") == kind
        and fields.items() <= entry.items()
        and containing in f"{entry['MESSAGE']} {entry.get('GROWTH', '')}"
        for entry in journal_of_daemon(box)
    )


def wait_event(
    box: Box, kind: EventKind, *, containing: str = "", seconds: float = 60.0, **fields: str
) -> None:
    """Wait until the daemon has told such an event; see `count_events`."""
    box.wait_until(
        lambda: count_events(box, kind, containing=containing, **fields),
        f"{kind} {fields} {containing}",
        seconds=seconds,
    )


def wait_growth(box: Box, ordinal: int = 1) -> None:
    """Wait until the growth with this ordinal is complete."""
    wait_event(box, EventKind.GROWTH_DONE, containing=f"-{ordinal}")


def has_reserve(box: Box, mountpoint: str = "/scratch") -> bool:
    """Whether the emergency reserve is held."""
    path = f"{mountpoint}/{RESERVE}"
    return box.exec("test", "-s", path, check=False).returncode == 0


def devices(box: Box, mountpoint: str = "/scratch") -> int:
    """How many devices the filesystem has; 0 while it is not mounted."""
    argv = ("btrfs", "filesystem", "show", mountpoint)
    return box.exec(*argv, check=False).stdout.count("devid")


def volumes(box: Box) -> list[VolumeSeen]:
    """The volumes that carry our tags, in the order of their growths."""
    growth = "ebs-autoscale:growth"
    found = [volume for volume in box.sandbox.state().volumes if growth in volume.tags]
    return sorted(found, key=lambda volume: int(volume.tags[growth]))
