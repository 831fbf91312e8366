"""The shipped config.yaml, and the defaults that its commented keys show."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

import ebs_autoscale

SHIPPED = Path(ebs_autoscale.__file__).parent / "config/config.yaml"
SHIPPED_TEXT = SHIPPED.read_text(encoding="utf-8")


def uncommented(text: str) -> str:
    """The file with all keys, which are commented by `#` or `#  `; comments are `# ` and `##`."""
    return re.sub(r"^#(?=[a-z]|  )", "", text, flags=re.MULTILINE)


def keys_in(text: str) -> list[tuple[str, str]]:
    """The key paths in a text, each with its value as it is written."""
    return list(_leaves(yaml.compose(text, Loader=yaml.SafeLoader)))


def shipped_defaults() -> dict[str, str]:
    """The default of each key, as the shipped file shows it."""
    keys = keys_in(uncommented(SHIPPED_TEXT))
    assert len(dict(keys)) == len(keys)
    return dict(keys)


def _leaves(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, str]]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if isinstance(value, yaml.ScalarNode):
            yield path, value.value
        elif value.value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, "{}" if isinstance(value, yaml.MappingNode) else "[]"
