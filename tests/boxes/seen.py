"""The daemon of a box, as its operator sees and steers it."""

import json

import yaml
from ec2_sandbox.client import VolumeSeen

from tests.boxes.box import Box
from tests.system.bench import CONFIG as SMALL

UNIT = "ebs-autoscale.service"
CONFIG_PATH = "/etc/ebs-autoscale/config.yaml"


def configure(
    box: Box, mountpoint: str = "/scratch", path: str = CONFIG_PATH, **more: object
) -> None:
    """Write a configuration for small filesystems."""
    box.write(path, yaml.safe_dump({"mountpoint": mountpoint, **SMALL, **more}))


def initialise(box: Box, mountpoint: str = "/scratch") -> None:
    """Have a filesystem of 2 GiB, watched by a service that is up."""
    box.exec("ebs-autoscale", "init", mountpoint, "--size", "2GiB")
    box.wait_until(lambda: state(box) == "active", "the service")


def state(box: Box, unit: str = UNIT) -> str:
    """What systemd calls the state of the service."""
    return box.exec("systemctl", "is-active", unit, check=False).stdout.strip()


def shown(box: Box, name: str, unit: str = UNIT) -> str:
    """A property of the service."""
    return box.exec("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def fill(box: Box, *, left: int, mountpoint: str = "/scratch", path: str = CONFIG_PATH) -> None:
    """Book space without content until only this share, in percent, is available."""
    argv = ("ebs-autoscale", "--config", path, "status", "--json")
    seen = json.loads(box.exec(*argv, check=False).stdout)
    booked = seen["available_bytes"] - seen["size_bytes"] * left // 100
    count = len(box.exec("ls", mountpoint).stdout.split())
    box.exec("fallocate", "-l", str(booked), f"{mountpoint}/filling-{count}")


def has_said(box: Box, words: str) -> bool:
    """Whether the journal of the daemon has these words."""
    return words in box.journal("-t", "ebs-autoscale")


def wait_for(box: Box, words: str, *, seconds: float = 60.0) -> None:
    """Wait until the daemon has said so."""
    box.wait_until(lambda: has_said(box, words), words, seconds=seconds)


def devices(box: Box, mountpoint: str = "/scratch") -> int:
    """How many devices the filesystem has."""
    return box.exec("btrfs", "filesystem", "show", mountpoint).stdout.count("devid")


def volumes(box: Box) -> list[VolumeSeen]:
    """The volumes that carry our tags, in the order of their growths."""
    growth = "ebs-autoscale:growth"
    found = [volume for volume in box.sandbox.state().volumes if growth in volume.tags]
    return sorted(found, key=lambda volume: int(volume.tags[growth]))
