"""Which configuration file is for which mountpoint."""

from pathlib import Path

from ebs_autoscale.config.schema import Settings, exists, load
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.host import paths
from ebs_autoscale.host.paths import escape_path


def settings_for(path: Path, mountpoint: str) -> tuple[Path, Settings]:
    """The configuration file for this mountpoint, and its settings; defaults if it does not exist.

    If the default file is for another mountpoint, the file is named after this one, as
    ebs-autoscale@.service expects. Raises ConfigInvalid for a file that is invalid or for
    another mountpoint.
    """
    if path == paths.CONFIG_DEFAULT and exists(path) and not _is_for(load(path), mountpoint):
        path = path.with_name(f"{escape_path(mountpoint)}.yaml")
    if not exists(path):
        return path, Settings(mountpoint=mountpoint)
    settings = load(path)
    if not _is_for(settings, mountpoint):
        raise ConfigInvalid(
            f"{path} is for {settings.mountpoint}, not for {mountpoint}",
            hint="name another file with --config",
        )
    return path, settings


def _is_for(settings: Settings, mountpoint: str) -> bool:
    return str(Path(settings.mountpoint).resolve()) == mountpoint
