"""From the configuration of the older script to ours, key by key, with a report. Pure.

The older script is awslabs/amazon-ebs-autoscale with its forks. They share /etc/ebs-autoscale.json,
whose installer writes numbers as strings, and differ in a few keys. Sizes in GB are GiB there.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ebs_autoscale import config
from ebs_autoscale.config import values
from ebs_autoscale.config.yaml_source import (
    Entry,
    Mistake,
    MistakesFound,
    Parser,
    parse_mapping,
    root_of,
)
from ebs_autoscale.ec2.volume_types import VOLUME_TYPES
from ebs_autoscale.errors import Cause, ConfigInvalid, Unfit
from ebs_autoscale.provision.config_file import yaml_word
from ebs_autoscale.units import counted, quoted

_THRESHOLD = "limits.initial_utilization_threshold"

# What the older script does without the key; up to version 2.4.2 most of it was hard-coded.
_DEFAULTS = {
    "limits.min_ebs_volume_size": 150,
    "limits.max_ebs_volume_size": 1500,
    "limits.max_logical_volume_size": 8000,
    "limits.max_ebs_volume_count": 16,
    _THRESHOLD: 50,
}

# From how many devices on: the use in percent at which it grows, and the usual size in GiB. The
# first threshold is configured. A fork that also shrinks has other thresholds and its own keys.
_THRESHOLDS = {4: 80, 7: 90}
_THRESHOLDS_OF_SHRINKING = {3: 90, 10: 95}
_SIZES_GIB = {1: 0, 4: 300, 7: 1000, 11: 65_536}

_POLL_BOUNDS_SECONDS = 0.1, 5.0

_WITHOUT_COUNTERPART = {
    "filesystem": "it is always BTRFS",
    "imdsv2": "IMDSv2 is always used",
    "lvm.volume_group": "not used with BTRFS",
    "lvm.logical_volume": "not used with BTRFS",
    f"{_THRESHOLD}_down": "a filesystem is never shrunk",
    "logging.log_file": "the log goes to the journal; without systemd, to "
    "/var/log/ebs-autoscale.log",
    "logging.log_interval": "the daemon logs what happens, and its state every hour",
}

_RENAMED = {
    "detection_interval": "poll.max",
    "limits.min_ebs_volume_size": "growth.min",
    "limits.max_ebs_volume_size": "growth.max",
    "limits.max_logical_volume_size": "limits.total",
    "limits.max_ebs_volume_count": "limits.volumes",
    "limits.min_free_space": "threshold.available_min",
}

_CHANGES = """\
What changes:
  - Space is what programs can still write, data and metadata, not the percentage of df.
  - It also grows when less than 10 GiB (at most half) is available, or when it would be full
    before a volume could be added: see threshold.available_min and threshold.lead_time.
  - Steps count the devices of the filesystem, not tagged volumes: with a first device that the
    older script did not create, each step begins one volume earlier.
  - A volume is larger than its step says, up to growth.max, where programs write so fast that the
    step would not last until the next volume.
  - The last volume is made smaller to fit limits.total, which the older script went beyond.
  - Metadata is balanced only when needed: for a full balance, set metadata.rebalance: full.
  - Changes of a fork to the script itself, such as fixed sizes, are not in the file: compare
    growth.steps with it.
"""

_PLACEHOLDER = re.compile(r"%%\w+%%")
_ANY = values.scalar(str)
_GIB = values.whole_number(1, 1_000_000)
_PERCENT = values.whole_number(1, 100)


def _flag(text: str) -> bool:
    return text == "1" if text in {"0", "1"} else values.boolean(text)


_KEYS = {
    **dict.fromkeys(_WITHOUT_COUNTERPART, _ANY),
    "mountpoint": values.scalar(values.mountpoint),
    "volume.type": values.one_of(*VOLUME_TYPES),
    "volume.iops": values.whole_number(1, 1_000_000),
    "volume.throughput": values.whole_number(1, 100_000),
    "volume.encrypted": values.scalar(_flag),
    "detection_interval": values.number(0, 86_400),
    "limits.min_ebs_volume_size": _GIB,
    "limits.max_ebs_volume_size": _GIB,
    "limits.max_logical_volume_size": _GIB,
    "limits.max_ebs_volume_count": values.whole_number(1, 1000),
    _THRESHOLD: _PERCENT,
    f"{_THRESHOLD}_up": _PERCENT,
    "limits.min_free_space": values.whole_number(0, 1_000_000),
}


@dataclass(frozen=True, slots=True)
class Older:
    """The values of a file of the older script by key path, and as written; null is none."""

    name: str
    values: Mapping[str, Any]
    written: Mapping[str, str]

    @property
    def mountpoint(self) -> str:
        """Empty if the file has none."""
        return str(self.values.get("mountpoint", ""))

    def number(self, key: str) -> int:
        """The value, or what the older script does without it."""
        return int(self.values.get(key, _DEFAULTS[key]))


@dataclass(frozen=True, slots=True)
class Translation:
    """The text of our configuration file, and what became of each key."""

    text: str
    report: str


def read(text: str, *, name: str) -> Older:
    """The older script's configuration. Raises ConfigInvalid, or Unfit for a filesystem on LVM."""
    if match := _PLACEHOLDER.search(text):
        raise ConfigInvalid(
            f"{name} is a template: {match[0]} is not filled in",
            hint="name the file that the older script's installer wrote, /etc/ebs-autoscale.json",
            cause=Cause.CONFIGURATION,
        )
    try:
        json.loads(text)
        # JSON is YAML but for tabs, which JSON has only between its tokens.
        root = root_of(text.replace("\t", " "))
        written: dict[str, str] = {}
        parsers = {key: _noting(key, parse, written) for key, parse in _KEYS.items()}
        parsed = parse_mapping(root, parsers)
        mistakes = parsed.mistakes
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg} at column {error.colno}"
        raise _invalid(name, [Mistake(error.lineno, "", what)]) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(name, [Mistake(0, "", f"not JSON: {error}")]) from error
    except MistakesFound as error:
        raise _invalid(name, list(error.mistakes)) from error
    found = {key: value for key, value in parsed.values.items() if value is not None}
    _require_btrfs(found.get("filesystem", "btrfs"), name)
    older = Older(name, found, written)
    key, high = "limits.min_ebs_volume_size", older.number("limits.max_ebs_volume_size")
    if (low := found.get(key, 0)) > high:
        what = f"{low} is more than limits.max_ebs_volume_size ({high})"
        mistakes.append(Mistake(parsed.lines.get(key, 0), key, what))
    if mistakes:
        raise _invalid(name, mistakes)
    return older


def translate(older: Older, *, mountpoint: str, is_mounted: bool) -> Translation:
    """Our file for this mountpoint; whether BTRFS is mounted there decides on adoption.

    Raises ConfigInvalid where the file asks for volumes that EC2 does not offer.
    """
    new = {"mountpoint": yaml_word(mountpoint), **_translated(older)}
    if is_mounted:
        new["adopt"] = "true"
    text = _yaml(new, older.name)
    try:
        config.parse(text, name=older.name)
    except ConfigInvalid as error:
        what = error.what.replace(older.name, f"{older.name} would become an invalid file", 1)
        raise ConfigInvalid(what, cause=Cause.CONFIGURATION) from error
    return Translation(text, "\n".join(_report(older, new, mountpoint)))


def _report(older: Older, new: Mapping[str, str], mountpoint: str) -> Iterator[str]:
    for key, written in older.written.items():
        yield f"  {key} {written} -> {_became(key, older, new)}"
    for key in _absent(older):
        yield f"  {key}, absent: {_DEFAULTS[key]} -> {_became(key, older, new)}"
    yield "  tags of the instance, always copied -> volume.copy_instance_tags: true"
    yield "  volumes of the older script -> " + (
        "adopt: true, as BTRFS is mounted there: the daemon takes them over; the role needs the "
        "statement of `ebs-autoscale iam-policy --adopt`"
        if "adopt" in new
        else f"adopt: false, as no BTRFS filesystem is mounted on {mountpoint}"
    )
    yield _CHANGES.rstrip()


def _noting(key: str, parse: Parser, written: dict[str, str]) -> Parser:
    def noting(entry: Entry) -> Any:
        written[key] = entry.written
        return values.or_null(parse)(entry)

    return noting


def _require_btrfs(filesystem: str, name: str) -> None:
    if filesystem != "btrfs":
        kind = "LVM" if filesystem.startswith("lvm.") else "of another kind"
        raise Unfit(
            f"{name}: the filesystem is {kind} ({quoted(filesystem)}), and only BTRFS can be taken "
            "over",
            hint="it cannot be converted in place: run `ebs-autoscale init` for another "
            "mountpoint, copy the data, then change over, see docs/migration.md",
            cause=Cause.NOT_BTRFS,
        )


def _translated(older: Older) -> dict[str, str]:
    """What is in our file besides the mountpoint and `adopt`, by key path and in its order."""
    low, high, total = _bounds_gib(older)
    found: dict[str, str] = {}
    floor = older.values.get("limits.min_free_space")
    if floor:
        # With it the older script ignores all percentages; ours have to be above 0.
        found |= {"threshold.available": "1%", "threshold.available_min": f"{floor}GiB"}
    found |= {"growth.min": f"{min(low, total)}GiB", "growth.max": f"{high}GiB"}
    if floor:
        found["growth.size"] = f"{low}GiB"
    else:
        found["growth.steps"] = "".join(f"\n    - {step}" for step in _steps(older, low, high))
    kind = VOLUME_TYPES[older.values.get("volume.type", "gp3")]
    offered = {"volume.iops": kind.min_iops, "volume.throughput": kind.min_mib_per_second}
    for key in ("volume.type", "volume.iops", "volume.throughput", "volume.encrypted"):
        if key in older.values and offered.get(key, True):
            found[key] = str(older.values[key]).lower()
    found["volume.copy_instance_tags"] = "true"
    found["limits.volumes"] = str(older.number("limits.max_ebs_volume_count"))
    found["limits.total"] = f"{total}GiB"
    if seconds := older.values.get("detection_interval"):
        shortest, longest = _POLL_BOUNDS_SECONDS
        found["poll.max"] = f"{min(max(seconds, shortest), longest):g}s"
    return found


def _bounds_gib(older: Older) -> tuple[int, int, int]:
    """Minimum and maximum size of a volume, as EC2 offers it, and the total."""
    kind = VOLUME_TYPES[older.values.get("volume.type", "gp3")]
    low, high = (
        min(max(older.number(f"limits.{each}_ebs_volume_size"), kind.min_gib), kind.max_gib)
        for each in ("min", "max")
    )
    return min(low, high), high, older.number("limits.max_logical_volume_size")


def _steps(older: Older, low: int, high: int) -> Iterator[str]:
    """The ladder that is in the older script, within the configured sizes."""
    shrinking = older.values.get(f"{_THRESHOLD}_up")
    first = shrinking or older.number(_THRESHOLD)
    later = _THRESHOLDS_OF_SHRINKING if shrinking else _THRESHOLDS
    percents = {1: first, **later}
    before = None
    for devices in sorted({*percents, *_SIZES_GIB}):
        used = percents[max(each for each in percents if each <= devices)]
        usual = _SIZES_GIB[max(each for each in _SIZES_GIB if each <= devices)]
        step = f"available: {max(100 - used, 1)}%, size: {min(max(usual, low), high)}GiB"
        if step != before:
            yield f"{{members: {devices}, {step}}}"
        before = step


def _absent(older: Older) -> Iterator[str]:
    for key in _DEFAULTS:
        if key not in older.values and f"{key}_up" not in older.values:
            yield key


def _became(key: str, older: Older, new: Mapping[str, str]) -> str:
    """What the report says about one key of the older script."""
    ours = _RENAMED.get(key, key)
    if key in older.written and key not in older.values:
        return "as without the key"
    if key.startswith(_THRESHOLD) and "growth.steps" in new and not key.endswith("_down"):
        return "growth.steps, with the later thresholds and the sizes of the script"
    if ours not in new:
        return f"no counterpart: {_why_none(key, older)}"
    more = ", less while space is short: a look calls no API" if ours == "poll.max" else ""
    return f"{ours}: {new[ours]}{more}"


def _why_none(key: str, older: Older) -> str:
    if key.startswith("volume."):
        return f"cannot be set for {older.values.get('volume.type', 'gp3')}"
    if key == "limits.min_free_space":
        return "0 turns it off"
    return _WITHOUT_COUNTERPART.get(key, "the script ignores it with limits.min_free_space")


def _yaml(new: Mapping[str, str], name: str) -> str:
    """The file: one section after the other, as in `new`."""
    lines = [
        f"# Translated from {quoted(name)} by `ebs-autoscale init --from`.",
        "# All keys and their defaults: ebs-autoscale.yaml(5).",
    ]
    section = ""
    for path, value in new.items():
        head, _, key = path.rpartition(".")
        if head != section and head:
            lines += ["", f"{head}:"]
        elif not head and section:
            lines.append("")
        section = head
        space = "" if value.startswith("\n") else " "
        lines.append(f"{'  ' if head else ''}{key}:{space}{value}")
    return "\n".join(lines) + "\n"


def _invalid(name: str, mistakes: list[Mistake]) -> ConfigInvalid:
    lines = "".join(f"\n  {each}" for each in sorted(mistakes))
    what = f"{name}: {counted(len(mistakes), 'mistake')}:{lines}"
    return ConfigInvalid(what, cause=Cause.CONFIGURATION)
