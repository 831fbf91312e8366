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
    head, _, rest = shipped.partition("\nmountpoint: ")
    _, _, tail = rest.partition("\n")
    return f"{head}\nmountpoint: {yaml_word(mountpoint)}\n{tail}"


def yaml_word(text: str) -> str:
    """The text as a value in YAML, in quotes where it needs them."""
    # A JSON string is valid YAML.
    is_plain = re.fullmatch(r"[A-Za-z0-9/_.-]+", text)
    return text if is_plain else json.dumps(text, ensure_ascii=False)
