"""The configuration file that `init` writes: the shipped one, with the mountpoint filled in."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.host import paths
from ebs_autoscale.host.paths import escape_path


def settings_for(path: Path, mountpoint: str) -> tuple[Path, config.Settings]:
    """The configuration file for this mountpoint, and its settings; defaults if it does not exist.

    If the default file is for another mountpoint, the file is named after this one, as
    ebs-autoscale@.service expects. Raises ConfigInvalid for a file that is invalid or for
    another mountpoint.
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
        )
    return path, settings


def others(path: Path) -> Iterator[tuple[Path, str]]:
    """The other configuration files of this host, each with its mountpoint without symlinks."""
    for other in sorted(paths.CONFIG_FOLDER.glob("*.yaml")):
        if other == path:
            continue
        with suppress(ConfigInvalid):
            yield other, str(Path(config.load(other).mountpoint).resolve())


def text_for(mountpoint: str) -> str:
    """The shipped file with this mountpoint; every key is commented out and at its default."""
    shipped = resources.files("ebs_autoscale.config").joinpath("config.yaml").read_text("utf-8")
    is_plain = re.fullmatch(r"[A-Za-z0-9/_.-]+", mountpoint)
    # A JSON string is valid YAML.
    written = mountpoint if is_plain else json.dumps(mountpoint, ensure_ascii=False)
    head, _, rest = shipped.partition("\nmountpoint: ")
    _, _, tail = rest.partition("\n")
    return f"{head}\nmountpoint: {written}\n{tail}"


def _is_for(settings: config.Settings, mountpoint: str) -> bool:
    return str(Path(settings.mountpoint).resolve()) == mountpoint
