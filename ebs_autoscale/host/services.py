"""The service manager: our units installed, enabled, started, and removed again."""

import sys
from pathlib import Path

from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.host import files, paths
from ebs_autoscale.host.command import run
from ebs_autoscale.host.unit_names import escape_path

UNIT_FOLDER = Path("/etc/systemd/system")
UNITS = ("ebs-autoscale.service", "ebs-autoscale@.service")

# Where a package of a distribution would put them; ours would hide those.
_PACKAGED_FOLDER = Path("/usr/lib/systemd/system")
# What `systemctl mask` makes of a unit: a link to it.
_MASK = Path("/dev/null")
# Where the units as shipped expect the program.
_SHIPPED_PREFIX = "/opt/ebs-autoscale/"
# What the units are kept out of, by the setting that lets them in to a mountpoint below.
_LETS_INTO = {
    "ProtectHome=no": ("/home/", "/root/", "/run/user/"),
    "PrivateTmp=no": ("/tmp/", "/var/tmp/"),  # noqa: S108 -- no file is made there
    "ProtectSystem=no": ("/usr/", "/boot/", "/efi/", "/etc/"),
}
# A stop lasts as long as the step of a growth does; see TimeoutStopSec in the unit.
_TIMEOUT_SECONDS = 120.0


def systemd_runs() -> bool:
    """Whether systemd is this host's service manager: sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def mount_unit(mountpoint: str) -> str:
    """The unit that systemd makes of the mountpoint's line in fstab."""
    return f"{escape_path(mountpoint)}.mount"


def unit_reading(config_path: Path) -> str:
    """The unit that reads this file, be there one or not; empty for a file that none reads."""
    plain, template = UNITS
    if config_path.parent != paths.CONFIG_FOLDER:
        return ""
    if config_path.name == "config.yaml":
        return plain
    return template.replace("@", f"@{config_path.stem}")


def unit_of(config_path: Path, mountpoint: str) -> str:
    """The unit that reads this configuration for this mountpoint; empty when none does."""
    is_named_for_it = config_path.name in {"config.yaml", f"{escape_path(mountpoint)}.yaml"}
    return unit_reading(config_path) if is_named_for_it else ""


def require_free(*, mountpoint: str, config_path: Path) -> None:
    """Raise Unfit when a unit that `ensure` would write is masked, or runs another program."""
    unit = unit_of(config_path, mountpoint)
    if not systemd_runs() or not unit:
        return
    for name in (*UNITS, unit):
        if (UNIT_FOLDER / name).resolve() == _MASK:
            raise Unfit(
                f"{name} is masked",
                hint=f"`systemctl unmask {name}`, then repeat",
                cause=Cause.UNIT,
            )
    # The older family's unit has the name of ours. What runs is asked, not what the unit says:
    # `make install` may have replaced it under its daemon. Ours is not active before it is ready.
    plain = UNITS[0]
    if _property("ActiveState", plain) != "active":
        return
    argv = files.read_text(Path("/proc", _property("MainPID", plain), "cmdline")).split("\0")
    if argv[0] and "run" not in argv:
        raise Unfit(
            f"{plain} runs another autoscaler: `{' '.join(argv).strip()}`",
            hint=f"`systemctl disable --now {plain}`, then repeat",
            cause=Cause.UNIT,
        )


def ensure(*, mountpoint: str, config_path: Path) -> str:
    """Have the daemon run now and after every boot; says so, or what the operator has to do.

    Safe to repeat. It does not wait for the start, which during boot would be to wait for
    oneself. Raises Unfit, Transient or CommandFailed.
    """
    unit = unit_of(config_path, mountpoint)
    if not systemd_runs() or not unit:
        why = f"no unit reads {config_path}" if systemd_runs() else "systemd does not run here"
        return f"{why}: start it with `ebs-autoscale --config {config_path} run --detach`"
    for name in UNITS:
        if not _is_packaged(name):
            files.replace(UNIT_FOLDER / name, _for_this_program(shipped(f"systemd/{name}")))
    files.replace(_drop_in_path(unit), _drop_in(mountpoint))
    reload_units()
    _systemctl("enable", unit)
    _systemctl("start", "--no-block", unit)
    return f"enabled and started {unit}"


def remove(*, mountpoint: str, config_path: Path) -> list[str]:
    """Stop the daemon and keep it from starting again; says what was done, nothing when it was so.

    Raises Unfit, Transient or CommandFailed.
    """
    unit = unit_of(config_path, mountpoint)
    done = []
    if unit and systemd_runs() and _is_known(unit):
        _systemctl("disable", "--now", unit)
        done.append(f"stopped and disabled {unit}")
    drop_in = _drop_in_path(unit)
    if unit and drop_in.exists():
        drop_in.unlink()
        _remove_empty(drop_in.parent)
        done.append(f"removed {drop_in}")
    return done


def remove_units() -> list[str]:
    """Remove the units themselves, once no configuration is left that they would read."""
    if any(paths.CONFIG_FOLDER.glob("*.yaml")):
        return []
    found = [UNIT_FOLDER / name for name in UNITS if (UNIT_FOLDER / name).is_file()]
    for path in found:
        path.unlink()
    reload_units()
    return [f"removed {path}" for path in found]


def reload_units() -> None:
    """Let systemd read its units and fstab again, where it runs."""
    if systemd_runs():
        _systemctl("daemon-reload")


def shipped(name: str) -> str:
    """A file that comes beside the program; raises Unfit when the installation lacks it."""
    for folder in (Path(sys.prefix) / "share/ebs-autoscale", Path(__file__).parents[2]):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8")
    raise Unfit(
        f"this installation lacks {name}", hint="install it again", cause=Cause.INSTALLATION
    )


def _for_this_program(unit: str) -> str:
    return unit.replace(_SHIPPED_PREFIX, f"{sys.prefix}/")


def _drop_in_path(unit: str) -> Path:
    return UNIT_FOLDER / f"{unit}.d/mountpoint.conf"


def _drop_in(mountpoint: str) -> str:
    mount = mount_unit(mountpoint)
    text = f"[Unit]\nAfter={mount}\nWants={mount}\n"
    for setting, places in _LETS_INTO.items():
        if f"{mountpoint}/".startswith(places):
            text += f"\n[Service]\n{setting}\n"
    return text


def _remove_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_packaged(name: str) -> bool:
    # The older family's installer copies a unit of this name there, too.
    return " run --wait\n" in files.read_text(_PACKAGED_FOLDER / name)


def _is_known(unit: str) -> bool:
    return _property("LoadState", unit) not in {"not-found", ""}


def _property(name: str, unit: str) -> str:
    argv = ["systemctl", "show", f"--property={name}", "--value", unit]
    return run(argv, timeout_seconds=_TIMEOUT_SECONDS).strip()


def _systemctl(*arguments: str) -> None:
    run(["systemctl", *arguments], timeout_seconds=_TIMEOUT_SECONDS)
