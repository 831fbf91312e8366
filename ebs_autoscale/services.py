"""The service manager: our units installed, enabled, started, and removed again."""

import string
import sys
from pathlib import Path

from ebs_autoscale.command import run
from ebs_autoscale.errors import Unfit
from ebs_autoscale.files import replace_text

UNIT_FOLDER = Path("/etc/systemd/system")
CONFIG_FOLDER = Path("/etc/ebs-autoscale")
DROP_IN = "mountpoint.conf"
UNITS = ("ebs-autoscale.service", "ebs-autoscale@.service")

# Where the units as shipped expect the program.
_SHIPPED_PREFIX = "/opt/ebs-autoscale/"
# The unit keeps out of these; a mountpoint below one of them is what it is there for.
_HOMES = ("/home", "/root", "/run/user")
# Stopping lasts as long as the step of a growth does: a minute at the most, see the unit.
_TIMEOUT_SECONDS = 120.0
_PLAIN = frozenset(string.ascii_letters + string.digits + ":_.")


def systemd_runs() -> bool:
    """Whether systemd is this host's service manager: sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def escaped(path: str) -> str:
    r"""A path as unit names have it, `systemd-escape --path`: `/a/b-c` is `a-b\x2dc`."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "-"
    name = "-".join("".join(map(_escape, part.encode())) for part in parts)
    return rf"\x2e{name[1:]}" if name.startswith(".") else name


def _escape(byte: int) -> str:
    return chr(byte) if chr(byte) in _PLAIN else rf"\x{byte:02x}"


def mount_unit(mountpoint: str) -> str:
    """The unit that systemd makes of the mountpoint's line in fstab."""
    return f"{escaped(mountpoint)}.mount"


def config_path_of(mountpoint: str) -> Path:
    """The configuration that `ebs-autoscale@.service` reads for this mountpoint."""
    return CONFIG_FOLDER / f"{escaped(mountpoint)}.yaml"


def unit_of(config_path: Path, mountpoint: str) -> str:
    """The unit that reads this configuration; empty when none does."""
    if config_path == CONFIG_FOLDER / "config.yaml":
        return "ebs-autoscale.service"
    if config_path == config_path_of(mountpoint):
        return f"ebs-autoscale@{escaped(mountpoint)}.service"
    return ""


def ensure(*, mountpoint: str, config_path: Path) -> str:
    """Have the daemon run now and after every boot; says how, or what the operator has to do.

    Safe to repeat. It does not wait for the start: during boot that would be to wait for
    oneself. Raises Unfit, Transient or CommandFailed.
    """
    unit = unit_of(config_path, mountpoint)
    if not systemd_runs() or not unit:
        why = f"no unit reads {config_path}" if systemd_runs() else "systemd does not run here"
        return f"{why}: start it with `ebs-autoscale --config {config_path} run --detach`"
    for name in UNITS:
        if not _is_packaged(name):
            replace_text(UNIT_FOLDER / name, _ours(shipped(f"systemd/{name}")))
    replace_text(UNIT_FOLDER / f"{unit}.d" / DROP_IN, _drop_in(mountpoint))
    _systemctl("daemon-reload")
    _systemctl("enable", unit)
    _systemctl("start", "--no-block", unit)
    return f"{unit} is enabled and started"


def shipped(name: str) -> str:
    """A file that comes beside the program; raises Unfit when the installation lacks it."""
    for folder in (Path(sys.prefix) / "share/ebs-autoscale", Path(__file__).parents[1]):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8")
    raise Unfit(f"this installation lacks {name}", hint="install it again", cause="installation")


def _is_packaged(unit: str) -> bool:
    return any((Path(folder) / unit).exists() for folder in ("/usr/lib/systemd/system",))


def _ours(unit: str) -> str:
    return unit.replace(_SHIPPED_PREFIX, f"{sys.prefix}/")


def _drop_in(mountpoint: str) -> str:
    mount = mount_unit(mountpoint)
    lines = [f"[Unit]\nAfter={mount}\nWants={mount}\n"]
    if any(mountpoint == home or mountpoint.startswith(f"{home}/") for home in _HOMES):
        lines.append("[Service]\nProtectHome=no\n")
    return "\n".join(lines)


def remove(*, mountpoint: str, config_path: Path) -> list[str]:
    """Stop the daemon, keep it from starting again, and take its units away; says what was done.

    The units themselves stay as long as another one of them is in use.
    """
    unit = unit_of(config_path, mountpoint)
    done = []
    if unit and systemd_runs() and _is_known(unit):
        _systemctl("disable", "--now", unit)
        done.append(f"stopped and disabled {unit}")
    drop_in = UNIT_FOLDER / f"{unit}.d" / DROP_IN
    if unit and drop_in.exists():
        drop_in.unlink()
        if not any(drop_in.parent.iterdir()):
            drop_in.parent.rmdir()
        done.append(f"removed {drop_in}")
    return done


def _is_known(unit: str) -> bool:
    return run(
        ["systemctl", "show", "--property=LoadState", "--value", unit],
        timeout_seconds=_TIMEOUT_SECONDS,
    ).strip() not in {"not-found", ""}


def _systemctl(*arguments: str) -> None:
    run(["systemctl", *arguments], timeout_seconds=_TIMEOUT_SECONDS)
