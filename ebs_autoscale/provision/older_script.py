"""What the older script has left on this host: its configuration, and its daemon if that runs."""

from collections.abc import Iterator
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.errors import Cause, ConfigInvalid, Unfit
from ebs_autoscale.host import systemd
from ebs_autoscale.model import FilesystemKind
from ebs_autoscale.provision.mounting import growable_at
from ebs_autoscale.provision.translate import Older, Translation, read, translate

_PROC = Path("/proc")
_SHELLS = frozenset({"sh", "bash", "dash"})


def read_older(path: Path) -> Older:
    """Its configuration. Raises ConfigInvalid, or Unfit for a filesystem on LVM."""
    if not config.exists(path):
        hint = "name the configuration of the older script, such as /etc/ebs-autoscale.json"
        raise ConfigInvalid(f"{path}: no such file", hint=hint, cause=Cause.USAGE)
    return read(config.text_of(path), name=str(path))


def translation_for(mountpoint: str, older: Older) -> Translation:
    """Our configuration instead of it. Raises Unfit while its daemon runs, or ConfigInvalid."""
    require_not_running()
    mount = growable_at(mountpoint)
    is_mounted = mount is not None and mount.kind == FilesystemKind.BTRFS
    return translate(older, mountpoint=mountpoint, is_mounted=is_mounted)


def require_not_running(proc: Path = _PROC) -> None:
    """Raise Unfit while it does: two daemons would grow the same filesystem."""
    if found := sorted(_processes(proc)):
        pid, command = found[0]
        stop = "systemctl disable --now ebs-autoscale" if systemd.is_running() else f"kill {pid}"
        raise Unfit(
            f"the daemon of the older script is still running: pid {pid}, `{command}`",
            hint=f"once its log shows no growth under way, run `{stop}`, then try again",
            cause=Cause.UNIT,
        )


def _processes(proc: Path) -> Iterator[tuple[int, str]]:
    """Shells that run a script of our name, with no argument or the mountpoint; ours has a verb."""
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            argv = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
        except OSError:
            continue
        names = [Path(word).name for word in argv[:2]]
        is_script = len(names) == 2 and names[0] in _SHELLS and names[1] == "ebs-autoscale"
        if is_script and (not argv[2:] or argv[2].startswith("/")):
            yield int(folder.name), " ".join(argv)
