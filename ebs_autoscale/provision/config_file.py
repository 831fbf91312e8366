"""The configuration file that `init` writes: the shipped one, for this mountpoint."""

import json
import re
from importlib import resources
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.errors import Cause, ConfigInvalid
from ebs_autoscale.host import paths
from ebs_autoscale.host.systemd import escape_path


def settings_for(path: Path, mountpoint: str) -> tuple[Path, config.Settings]:
    """The file of this mountpoint, and what it says or would say when it is written.

    Where the default file is another mountpoint's, the file is named for this one, as the
    unit ebs-autoscale@.service reads it. Raises ConfigInvalid for a file that is wrong, or
    that is another mountpoint's.
    """
    if (
        path == paths.CONFIG_DEFAULT
        and config.exists(path)
        and not _is_for(config.load(path), mountpoint)
    ):
        path = path.with_name(f"{escape_path(mountpoint)}.yaml")
    if not config.exists(path):
        return path, config.Settings(mountpoint=mountpoint)
    settings = config.load(path)
    if not _is_for(settings, mountpoint):
        raise ConfigInvalid(
            f"{path} is for {settings.mountpoint}, not for {mountpoint}",
            hint="name another file with --config",
            cause=Cause.CONFIGURATION,
        )
    return path, settings


def text_for(mountpoint: str) -> str:
    """The shipped file, each key commented at its default, with this mountpoint filled in."""
    shipped = resources.files("ebs_autoscale.config").joinpath("config.yaml").read_text("utf-8")
    is_plain = re.fullmatch(r"[A-Za-z0-9/_.-]+", mountpoint)
    # What JSON quotes, YAML reads.
    written = mountpoint if is_plain else json.dumps(mountpoint, ensure_ascii=False)
    head, _, rest = shipped.partition("\nmountpoint: ")
    _, _, tail = rest.partition("\n")
    return f"{head}\nmountpoint: {written}\n{tail}"


def _is_for(settings: config.Settings, mountpoint: str) -> bool:
    return str(Path(settings.mountpoint).resolve()) == mountpoint
