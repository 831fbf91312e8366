"""systemd: names and state of units, and our units installed, enabled and removed."""

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale.errors import Cause, EbsAutoscaleError, Unfit
from ebs_autoscale.host import files, paths
from ebs_autoscale.host.command import run
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.model import FilesystemKind

UNIT_FOLDER = Path("/etc/systemd/system")
UNITS = ("ebs-autoscale.service", "ebs-autoscale@.service")
CATALOG = Path("/usr/lib/systemd/catalog/ebs-autoscale.catalog")
"""What `journalctl -x` says about each kind of event."""

PROPERTIES = (
    "Id",
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "ExecMainStatus",
)
"""What `parse_show` reads."""

# Where a distribution's package would install units; files in UNIT_FOLDER would override them.
_PACKAGED_FOLDER = Path("/usr/lib/systemd/system")
# `systemctl mask` makes the unit a link to this.
_MASK = Path("/dev/null")
# Where the program is according to the units as shipped.
_SHIPPED_PREFIX = "/opt/ebs-autoscale/"
# The hardening of the units that hides a mountpoint below these folders, and how to lift it.
_LIFTED_FOR = {
    "ProtectHome=no": ("/home/", "/root/", "/run/user/"),
    "PrivateTmp=no": ("/tmp/", "/var/tmp/"),  # noqa: S108 -- no file is created there
    "ProtectSystem=no": ("/usr/", "/boot/", "/efi/", "/etc/"),
}
# What a kind of filesystem needs besides; a second line adds to the capabilities of the unit.
_NEEDED_BY: dict[str, tuple[str, ...]] = {
    FilesystemKind.EXT4: ("CapabilityBoundingSet=CAP_SYS_RESOURCE",)
}
# A stop takes as long as the current step of a growth, see TimeoutStopSec in the unit.
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The state of one unit in systemd's own words; `restarts` counts automatic restarts."""

    name: str
    load_state: str
    file_state: str
    active_state: str
    sub_state: str
    result: str
    restarts: int
    exit_status: int


def parse_show(text: str) -> tuple[Unit, ...]:
    """Units in the output of `systemctl show --property=…`: key=value lines, separated by a blank.

    Properties that an older systemd does not print are empty or 0 (NRestarts came with 235).
    """
    units = []
    for block in text.strip().split("\n\n"):
        found = dict(line.split("=", 1) for line in block.split("\n") if "=" in line)
        if "Id" in found:
            units.append(
                Unit(
                    name=found["Id"],
                    load_state=found.get("LoadState", ""),
                    file_state=found.get("UnitFileState", ""),
                    active_state=found.get("ActiveState", ""),
                    sub_state=found.get("SubState", ""),
                    result=found.get("Result", ""),
                    restarts=_number(found.get("NRestarts", "")),
                    exit_status=_number(found.get("ExecMainStatus", "")),
                )
            )
    return tuple(units)


# Python refuses to convert thousands of digits; systemd's numbers have 20 at most.
_NUMBER_LENGTH = 21


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < _NUMBER_LENGTH else 0


def is_running() -> bool:
    """Whether systemd is this host's service manager: sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def was_restarted() -> bool:
    """Whether systemd has started this service again by itself; also if systemd does not say."""
    return _own_property("NRestarts") != "0"


def is_always_restarted() -> bool:
    """Whether systemd starts this service again after it has ended without a failure."""
    return _own_property("Restart") == "always"


def _own_property(name: str) -> str:
    """A property of the service that this process belongs to; empty if there is no answer."""
    groups = files.read_text(Path("/proc/self/cgroup")).split()
    services = [Path(group).name for group in groups if group.endswith(".service")]
    try:
        return _property(name, services[0]) if services else ""
    except EbsAutoscaleError:
        return ""


def mount_unit(mountpoint: str) -> str:
    """The unit that systemd generates from the mountpoint's line in fstab."""
    return f"{paths.escape_path(mountpoint)}.mount"


def unit_of_config(config_path: Path) -> str:
    """The unit that uses this file, whether or not the file exists; empty when none would."""
    plain, template = UNITS
    if config_path.parent != paths.CONFIG_FOLDER:
        return ""
    if config_path.name == "config.yaml":
        return plain
    return template.replace("@", f"@{config_path.stem}")


def unit_of(config_path: Path, mountpoint: str) -> str:
    """The unit that uses this file for this mountpoint; empty when none does."""
    is_named_for_it = config_path.name in {"config.yaml", f"{paths.escape_path(mountpoint)}.yaml"}
    return unit_of_config(config_path) if is_named_for_it else ""


def reload_command(config_path: Path, *, pid: int, is_running: bool) -> str:
    """What has the daemon `pid` read this file again, with or without systemd running it."""
    unit = unit_of_config(config_path) if is_running else ""
    # An escaped mountpoint contains backslashes.
    return (
        f"systemctl reload {shlex.quote(unit.removesuffix('.service'))}"
        if unit
        else (f"kill -HUP {pid}")
    )


def require_usable_units(*, mountpoint: str, config_path: Path) -> None:
    """Raise Unfit when a unit that `enable_service` writes is masked or runs another program."""
    unit = unit_of(config_path, mountpoint)
    if not is_running() or not unit:
        return
    for name in (*UNITS, unit):
        if (UNIT_FOLDER / name).resolve() == _MASK:
            raise Unfit(
                f"{name} is masked",
                hint=f"run `systemctl unmask {name}`, then try again",
                cause=Cause.UNIT,
            )
    # amazon-ebs-autoscale's unit has the same name as ours. Its process is inspected and not the
    # unit file, which `make install` may have replaced while its daemon was running.
    plain = UNITS[0]
    if _property("ActiveState", plain) != "active":
        return
    argv = files.read_text(Path("/proc", _property("MainPID", plain), "cmdline")).split("\0")
    if argv[0] and "run" not in argv:
        raise Unfit(
            f"{plain} runs another autoscaler: `{' '.join(argv).strip()}`",
            hint=f"run `systemctl disable --now {plain}`, then try again",
            cause=Cause.UNIT,
        )


def enable_service(*, mountpoint: str, config_path: Path) -> str:
    """Have the daemon run now and after every boot; returns what was done, or is left to do.

    Safe to repeat. Does not wait for the start, which would deadlock during boot. Raises Unfit,
    Transient or CommandFailed.
    """
    unit = unit_of(config_path, mountpoint)
    if not is_running() or not unit:
        why = f"no unit uses {config_path}" if is_running() else "systemd is not running"
        return f"{why}: start the daemon with `ebs-autoscale --config {config_path} run --detach`"
    for name in UNITS:
        if not _is_packaged(name):
            files.replace(UNIT_FOLDER / name, _for_this_program(shipped(f"systemd/{name}")))
    mounted = MountTable().at(mountpoint)
    kind = mounted.kind if mounted else ""
    files.replace(_drop_in_path(unit), drop_in(mountpoint, kind=kind))
    # What `journalctl -x` explains is not worth an `init` that fails, as where /usr is read-only.
    with suppress(EbsAutoscaleError):
        files.replace(CATALOG, shipped(f"systemd/{CATALOG.name}"))
        _update_catalog()
    reload_units()
    _systemctl("enable", unit)
    _systemctl("start", "--no-block", unit)
    return f"enabled and started {unit}"


def disable_service(*, mountpoint: str, config_path: Path) -> list[str]:
    """Stop the daemon now and at every boot; returns what was done, nothing when nothing was.

    Raises Unfit, Transient or CommandFailed.
    """
    unit = unit_of(config_path, mountpoint)
    done = []
    if unit and is_running() and _is_known(unit):
        _systemctl("disable", "--now", unit)
        done.append(f"stopped and disabled {unit}")
    drop_in = _drop_in_path(unit)
    if unit and drop_in.exists():
        drop_in.unlink()
        _remove_empty(drop_in.parent)
        done.append(f"removed {drop_in}")
    return done


def remove_units() -> list[str]:
    """Remove the units once no configuration is left that they would use; returns what was done."""
    if any(paths.CONFIG_FOLDER.glob("*.yaml")):
        return []
    found = [UNIT_FOLDER / name for name in UNITS if (UNIT_FOLDER / name).is_file()]
    for path in found:
        path.unlink()
    with suppress(EbsAutoscaleError, OSError):
        if found:
            CATALOG.unlink()
            found.append(CATALOG)
            _update_catalog()
    reload_units()
    return [f"removed {path}" for path in found]


def reload_units() -> None:
    """Have systemd read its units and fstab again, where it is running."""
    if is_running():
        _systemctl("daemon-reload")


def _update_catalog() -> None:
    if is_running():
        run(["journalctl", "--update-catalog"], timeout_seconds=_TIMEOUT_SECONDS)


def shipped(name: str) -> str:
    """A file that is installed with the program; raises Unfit when it is missing."""
    for folder in (paths.PREFIX / "share/ebs-autoscale", paths.LIBRARY):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8")
    raise Unfit(
        f"{name} is missing from this installation",
        hint="reinstall ebs-autoscale",
        cause=Cause.INSTALLATION,
    )


def _for_this_program(unit: str) -> str:
    return unit.replace(_SHIPPED_PREFIX, f"{paths.PREFIX}/")


def _drop_in_path(unit: str) -> Path:
    return UNIT_FOLDER / f"{unit}.d/mountpoint.conf"


def drop_in(mountpoint: str, *, kind: str) -> str:
    """What a unit is told of its mountpoint and of the kind of filesystem on it."""
    mount = mount_unit(mountpoint)
    text = f"[Unit]\nAfter={mount}\nWants={mount}\n"
    lifted = [key for key, folders in _LIFTED_FOR.items() if f"{mountpoint}/".startswith(folders)]
    for setting in [*lifted, *_NEEDED_BY.get(kind, ())]:
        text += f"\n[Service]\n{setting}\n"
    return text


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_packaged(name: str) -> bool:
    # The installer of amazon-ebs-autoscale also puts a unit of this name there.
    return " run --wait\n" in files.read_text(_PACKAGED_FOLDER / name)


def _is_known(unit: str) -> bool:
    return _property("LoadState", unit) not in {"not-found", ""}


def _property(name: str, unit: str) -> str:
    argv = ["systemctl", "show", f"--property={name}", "--value", unit]
    return run(argv, timeout_seconds=_TIMEOUT_SECONDS).strip()


def _systemctl(*arguments: str) -> None:
    run(["systemctl", *arguments], timeout_seconds=_TIMEOUT_SECONDS)
