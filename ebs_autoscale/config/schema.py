"""YAML to frozen settings; all mistakes reported at once."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ebs_autoscale.config import values as read
from ebs_autoscale.config.constraints import broken_laws
from ebs_autoscale.config.yaml_source import (
    Mistake,
    MistakesFound,
    Parsed,
    Parser,
    parse_mapping,
    root_of,
)
from ebs_autoscale.ec2.volume_types import VOLUME_TYPES
from ebs_autoscale.errors import Cause, ConfigInvalid
from ebs_autoscale.model import GIB, Rebalance, VolumeSpec
from ebs_autoscale.policy import GrowthPolicy, Limits, Polling, Sizing, Threshold
from ebs_autoscale.units import parse_share, parse_size

LogFormat = Literal["auto", "journald", "text", "json"]

# The shipped file has 4 KiB; what is as large as this is no configuration (/dev/zero, a log).
MOST_BYTES = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that the operator decided; what the file leaves out has the contract's default."""

    mountpoint: str
    policy: GrowthPolicy = field(default_factory=GrowthPolicy)
    volume: VolumeSpec = field(default_factory=VolumeSpec)
    rebalance: Rebalance = Rebalance.BOUNDED
    reserve_bytes: int | None = None
    adopt: bool = False
    log_format: LogFormat = "auto"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the contract: its path, how it is read, its default, where its value goes.

    `default` is text as an operator writes it, and the default of `field` in `of` as well; a
    test compares them. With no `field` the parser returns the fields; with no `of` nothing is kept.
    """

    path: str
    parse: Parser
    default: str
    of: type[Any] | None = None
    field: str = ""


_SIZE = read.scalar(parse_size)
_SHARE = read.scalar(parse_share)
_BOOLEAN = read.scalar(read.boolean)
_LOG_FORMAT = read.one_of("auto", "journald", "text", "json")
# Below 10 ms polling costs more than it can tell; systemd's watchdog is fed once a tick.
_POLL = read.duration(0.01, 60)
_COOLDOWN = read.duration(0, 30 * 24 * 3600)

# Upper bounds of iops and throughput only catch slips of the pen: EC2's own rise over time.
KEYS = (
    Key("mountpoint", read.scalar(read.mountpoint), "/scratch", Settings, "mountpoint"),
    Key("threshold.available", _SHARE, "20%", Threshold, "available_percent"),
    Key("threshold.available_min", _SIZE, "10GiB", Threshold, "available_min_bytes"),
    Key("threshold.lead_time", read.scalar(read.lead_time), "auto", Threshold, "lead_time_seconds"),
    Key("growth.size", read.scalar(read.growth_size), "50%", Sizing),
    Key("growth.min", _SIZE, "20GiB", Sizing, "min_bytes"),
    Key("growth.max", _SIZE, "1TiB", Sizing, "max_bytes"),
    Key("growth.steps", read.or_null(read.ladder, ()), "null", Sizing, "steps"),
    Key("volume.type", read.one_of(*VOLUME_TYPES), "gp3", VolumeSpec, "type"),
    Key("volume.iops", read.or_null(read.whole(100, 10**6)), "null", VolumeSpec, "iops"),
    Key(
        "volume.throughput",
        read.or_null(read.whole(125, 10**5)),
        "null",
        VolumeSpec,
        "throughput_mib_per_second",
    ),
    Key("volume.encrypted", _BOOLEAN, "true", VolumeSpec, "encrypted"),
    Key(
        "volume.kms_key_id",
        read.or_null(read.scalar(read.kms_key_id)),
        "null",
        VolumeSpec,
        "kms_key_id",
    ),
    Key("volume.delete_on_termination", _BOOLEAN, "true", VolumeSpec, "delete_on_termination"),
    Key("volume.tags", read.tags, "{}", VolumeSpec, "tags"),
    Key("volume.copy_instance_tags", _BOOLEAN, "false", VolumeSpec, "copy_instance_tags"),
    Key("limits.volumes", read.whole(1, 1000, auto=True), "auto", Limits, "volumes"),
    Key("limits.total", _SIZE, "16TiB", Limits, "total_bytes"),
    Key("limits.cooldown", _COOLDOWN, "0s", Limits, "cooldown_seconds"),
    Key(
        "metadata.rebalance",
        read.one_of(*Rebalance, kind=Rebalance),
        "bounded",
        Settings,
        "rebalance",
    ),
    Key("metadata.reserve", read.scalar(read.reserve), "auto", Settings, "reserve_bytes"),
    Key("adopt", _BOOLEAN, "false", Settings, "adopt"),
    Key("poll.min", _POLL, "100ms", Polling, "min_seconds"),
    Key("poll.max", _POLL, "5s", Polling, "max_seconds"),
    Key("logging.format", _LOG_FORMAT, "auto", Settings, "log_format"),
    # The contract has these, this version not yet: nothing but their defaults passes.
    Key("volume.fallback_types", read.not_built_yet("[]"), "[]"),
    Key("metrics.textfile", read.not_built_yet("null"), "null"),
    Key("metrics.listen", read.not_built_yet("null"), "null"),
    Key("notify.command", read.not_built_yet("null"), "null"),
    Key("notify.sns_topic", read.not_built_yet("null"), "null"),
)


def load(path: Path) -> Settings:
    """The settings in a file. Raises ConfigInvalid with everything that is wrong, by line."""
    return parse(text_of(path), name=str(path))


def parse(text: str, *, name: str) -> Settings:
    """The settings in a text; `name` heads the message of ConfigInvalid."""
    try:
        parsed = parse_mapping(root_of(text), {key.path: key.parse for key in KEYS})
    except MistakesFound as found:
        raise _invalid(name, found.mistakes) from found
    if "mountpoint" not in parsed.lines:
        missing = "mountpoint: missing; write for example mountpoint: /scratch"
        parsed.mistakes.append(Mistake(0, missing))
    settings = _settings(parsed)
    unread = parsed.lines.keys() - parsed.values.keys()
    for paths, sentence in broken_laws(settings.policy, settings.volume, unread):
        # None of them need be written: what is may have made a default give way.
        line = next((parsed.lines[path] for path in paths if path in parsed.lines), 0)
        parsed.mistakes.append(Mistake(line, f"{paths[0]}: {sentence}"))
    if parsed.mistakes:
        raise _invalid(name, parsed.mistakes)
    return settings


def exists(path: Path) -> bool:
    """Whether there is such a file. Raises ConfigInvalid for a path that cannot be looked at."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


def text_of(path: Path) -> str:
    """What stands in the file. Raises ConfigInvalid for what cannot be a configuration."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        hint = "write one (`mountpoint: /scratch` is enough) or name another with --config"
        raise ConfigInvalid(
            f"{path}: no such file", hint=hint, cause=Cause.CONFIGURATION
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if len(content) > MOST_BYTES:
        raise _invalid(str(path), [Mistake(0, "larger than 1 MiB, so not a configuration")])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        mistake = Mistake(line, f"not UTF-8: byte 0x{content[error.start]:02x}")
        raise _invalid(str(path), [mistake]) from error


def _settings(parsed: Parsed) -> Settings:
    fields: dict[type[Any], dict[str, Any]] = {key.of: {} for key in KEYS if key.of}
    for key in KEYS:
        if key.of and key.path in parsed.values:
            value = parsed.values[key.path]
            fields[key.of] |= {key.field: value} if key.field else value
    volume = VolumeSpec(**fields[VolumeSpec])
    sold = VOLUME_TYPES[volume.type]
    sizing = replace(
        Sizing(**fields[Sizing]),
        sold_min_bytes=sold.min_gib_with(volume.iops) * GIB,
        sold_max_bytes=sold.max_gib * GIB,
    )
    policy = GrowthPolicy(
        threshold=Threshold(**fields[Threshold]),
        sizing=_give_way(sizing, parsed),
        limits=Limits(**fields[Limits]),
        polling=Polling(**fields[Polling]),
    )
    return Settings(**({"mountpoint": ""} | fields[Settings]), policy=policy, volume=volume)


def _give_way(sizing: Sizing, parsed: Parsed) -> Sizing:
    """Let a bound that nobody wrote give way to the sizes that somebody did."""
    sizes = [step.size_bytes for step in sizing.steps]
    if sizing.fixed_bytes is not None:
        sizes.append(sizing.fixed_bytes)
    written = parsed.values
    if "growth.min" not in parsed.lines:
        ceilings = [written[key] for key in ("growth.max", "limits.total") if key in written]
        sizing = replace(sizing, min_bytes=min([sizing.min_bytes, *sizes, *ceilings]))
    if "growth.max" not in parsed.lines:
        sizing = replace(sizing, max_bytes=max([sizing.max_bytes, sizing.min_bytes, *sizes]))
    return sizing


def _unreadable(path: Path, error: Exception) -> ConfigInvalid:
    reason = getattr(error, "strerror", None) or error
    return ConfigInvalid(f"{path}: cannot be read: {reason}", cause=Cause.CONFIGURATION)


def _invalid(name: str, mistakes: Collection[Mistake]) -> ConfigInvalid:
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    lines = "".join(f"\n  {mistake}" for mistake in sorted(mistakes))
    return ConfigInvalid(f"{name}: {count}:{lines}", cause=Cause.CONFIGURATION)
