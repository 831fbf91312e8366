"""The keys of the configuration file, and from a file to settings."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from errno import EINVAL
from pathlib import Path
from typing import Any, Literal

from ebs_autoscale.config import values
from ebs_autoscale.config.constraints import violations
from ebs_autoscale.config.yaml_source import (
    Mistake,
    MistakesFound,
    Parsed,
    Parser,
    parse_mapping,
    root_of,
)
from ebs_autoscale.ec2.volume_types import VOLUME_TYPES, bytes_per_second_max
from ebs_autoscale.errors import Cause, ConfigInvalid
from ebs_autoscale.model import GIB, MIB, Rebalance, VolumeSpec
from ebs_autoscale.policy import GrowthMethod, GrowthPolicy, Limits, Polling, Sizing, Threshold
from ebs_autoscale.units import counted, parse_percentage, parse_size

LogFormat = Literal["auto", "journald", "text", "json"]

# The shipped file has 4 KiB; anything this large is no configuration (/dev/zero, a log).
FILE_MAX_BYTES = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Where metrics go: a file, and a numeric address and a port to listen on."""

    textfile: Path | None = None
    listen: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can configure; the defaults of all keys are those of these types."""

    mountpoint: str
    policy: GrowthPolicy = field(default_factory=GrowthPolicy)
    volume: VolumeSpec = field(default_factory=VolumeSpec)
    rebalance: Rebalance = Rebalance.BOUNDED
    reserve_bytes: int | None = None
    adopt: bool = False
    log_format: LogFormat = "auto"
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    notify_command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its path, its parser, and the field of the settings that it sets.

    With no `field` the parser returns the fields by name.
    """

    path: str
    parse: Parser
    of: type[Any]
    field: str = ""


_SIZE = values.scalar(parse_size)
_AVAILABLE_MIN = values.scalar(values.available_min)
_PERCENTAGE = values.scalar(parse_percentage)
_BOOLEAN = values.scalar(values.boolean)
_LOG_FORMAT = values.one_of("auto", "journald", "text", "json")
_METHOD = values.one_of(*GrowthMethod, kind=GrowthMethod)
# Polling more often than every 10 ms costs more than it is worth; systemd's watchdog is fed
# once a tick.
_POLL = values.duration(0.01, 60)
_COOLDOWN = values.duration(0, 30 * 24 * 3600)
# The upper bounds of IOPS and throughput only catch typing errors: EC2's own rise over time.
_IOPS = values.or_null(values.whole_number(100, 10**6))
_THROUGHPUT = values.or_null(values.whole_number(125, 10**5))
# Beyond this is a typing error: a host full of the largest volumes costs 700,000 USD a month.
_USD = values.or_null(values.number(0, 10**7))
_PRICE_FACTOR = values.number(0, 100)
_TEXTFILE = values.or_null(values.scalar(values.textfile))
_LISTEN = values.or_null(values.scalar(values.listen_address))
_KMS_KEY = values.or_null(values.scalar(values.kms_key_id))

KEYS = (
    Key("mountpoint", values.scalar(values.mountpoint), Settings, "mountpoint"),
    Key("threshold.available", _PERCENTAGE, Threshold, "available_percent"),
    Key("threshold.available_min", _AVAILABLE_MIN, Threshold, "available_min_bytes"),
    Key("threshold.lead_time", values.scalar(values.lead_time), Threshold, "lead_time_seconds"),
    Key("growth.method", _METHOD, Sizing, "method"),
    Key("growth.size", values.scalar(values.growth_size), Sizing),
    Key("growth.min", _SIZE, Sizing, "min_bytes"),
    Key("growth.max", _SIZE, Sizing, "max_bytes"),
    Key("growth.steps", values.or_null(values.ladder, ()), Sizing, "steps"),
    Key("volume.type", values.one_of(*VOLUME_TYPES), VolumeSpec, "type"),
    Key("volume.iops", _IOPS, VolumeSpec, "iops"),
    Key("volume.throughput", _THROUGHPUT, VolumeSpec, "throughput_mib_per_second"),
    Key("volume.encrypted", _BOOLEAN, VolumeSpec, "encrypted"),
    Key("volume.kms_key_id", _KMS_KEY, VolumeSpec, "kms_key_id"),
    Key("volume.delete_on_termination", _BOOLEAN, VolumeSpec, "delete_on_termination"),
    Key("volume.tags", values.tags, VolumeSpec, "tags"),
    Key("volume.copy_instance_tags", _BOOLEAN, VolumeSpec, "copy_instance_tags"),
    Key("limits.volumes", values.whole_number(1, 1000, auto=True), Limits, "volumes"),
    Key("limits.total", _SIZE, Limits, "total_bytes"),
    Key("limits.cooldown", _COOLDOWN, Limits, "cooldown_seconds"),
    Key("limits.monthly", _USD, Limits, "monthly_usd"),
    Key("prices.factor", _PRICE_FACTOR, VolumeSpec, "price_factor"),
    Key("metadata.rebalance", values.one_of(*Rebalance, kind=Rebalance), Settings, "rebalance"),
    Key("metadata.reserve", values.scalar(values.reserve), Settings, "reserve_bytes"),
    Key("adopt", _BOOLEAN, Settings, "adopt"),
    Key("poll.min", _POLL, Polling, "min_seconds"),
    Key("poll.max", _POLL, Polling, "max_seconds"),
    Key("logging.format", _LOG_FORMAT, Settings, "log_format"),
    Key("metrics.textfile", _TEXTFILE, MetricsSettings, "textfile"),
    Key("metrics.listen", _LISTEN, MetricsSettings, "listen"),
    Key("notify.command", values.or_null(values.command, ()), Settings, "notify_command"),
)


def load(path: Path) -> Settings:
    """The settings in a file. Raises ConfigInvalid with every mistake and its line."""
    return parse(text_of(path), name=str(path))


def parse(text: str, *, name: str) -> Settings:
    """The settings in a text. Raises ConfigInvalid, whose message begins with `name`."""
    try:
        parsed = parse_mapping(root_of(text), {key.path: key.parse for key in KEYS})
    except MistakesFound as found:
        raise _invalid(name, found.mistakes) from found
    if "mountpoint" not in parsed.lines:
        missing = "missing; for example `mountpoint: /scratch`"
        parsed.mistakes.append(Mistake(0, "mountpoint", missing))
    settings = _settings(parsed)
    unread = parsed.lines.keys() - parsed.values.keys()
    for paths, sentence in violations(settings.policy, settings.volume, unread):
        # The key at fault may be absent: its default may have been adjusted to another key.
        line = next((parsed.lines[path] for path in paths if path in parsed.lines), 0)
        parsed.mistakes.append(Mistake(line, paths[0], sentence))
    if parsed.mistakes:
        raise _invalid(name, parsed.mistakes)
    return settings


def exists(path: Path) -> bool:
    """Whether the file exists. Raises ConfigInvalid when that cannot be known."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


def text_of(path: Path) -> str:
    """The content of the file. Raises ConfigInvalid for what cannot be a configuration."""
    try:
        # To open a pipe waits for its writer. One without a name, of `--config <(...)`, has one.
        if Path(os.path.realpath(path)).is_fifo():
            raise OSError(EINVAL, "it is a pipe, not a file")  # noqa: TRY301 -- told as the others
        with path.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError as error:
        hint = "run `ebs-autoscale init MOUNTPOINT`, which writes it, or name another by --config"
        raise ConfigInvalid(
            f"{path}: no such file", hint=hint, cause=Cause.CONFIGURATION
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if len(content) > FILE_MAX_BYTES:
        raise _invalid(
            str(path), [Mistake(0, "", "larger than 1 MiB, too large for a configuration")]
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        mistake = Mistake(line, "", f"not UTF-8: byte 0x{content[error.start]:02x}")
        raise _invalid(str(path), [mistake]) from error


def _settings(parsed: Parsed) -> Settings:
    fields: dict[type[Any], dict[str, Any]] = {key.of: {} for key in KEYS}
    for key in KEYS:
        if key.path in parsed.values:
            value = parsed.values[key.path]
            fields[key.of] |= {key.field: value} if key.field else value
    volume = VolumeSpec(**fields[VolumeSpec])
    sizing = offered(Sizing(**fields[Sizing]), volume)
    policy = GrowthPolicy(
        threshold=Threshold(**fields[Threshold]),
        sizing=_adjust_bounds(sizing, parsed),
        limits=Limits(**fields[Limits]),
        polling=Polling(**fields[Polling]),
    )
    return Settings(
        **({"mountpoint": ""} | fields[Settings]),
        policy=policy,
        volume=volume,
        metrics=MetricsSettings(**fields[MetricsSettings]),
    )


def offered(sizing: Sizing, volume: VolumeSpec) -> Sizing:
    """The same within what EC2 offers of volumes of this kind."""
    offer = VOLUME_TYPES[volume.type]
    return replace(
        sizing,
        sold_min_bytes=offer.min_gib_with(volume.iops) * GIB,
        sold_max_bytes=offer.max_gib * GIB,
        sold_bytes_per_second=bytes_per_second_max(
            volume.type,
            offer.max_gib * GIB,
            iops=volume.iops,
            mib_per_second=volume.throughput_mib_per_second,
        ),
    )


def _adjust_bounds(sizing: Sizing, parsed: Parsed) -> Sizing:
    """Extend a default bound so that it includes the sizes that are configured."""
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
    return ConfigInvalid(f"cannot read {path}: {reason}", cause=Cause.CONFIGURATION)


def _invalid(name: str, mistakes: Collection[Mistake]) -> ConfigInvalid:
    count = counted(len(mistakes), "mistake")
    lines = "".join(f"\n  {mistake}" for mistake in sorted(mistakes))
    return ConfigInvalid(f"{name}: {count}:{lines}", cause=Cause.CONFIGURATION)
