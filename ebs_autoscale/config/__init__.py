"""The configuration: from a YAML file to frozen settings, all mistakes reported at once."""

from ebs_autoscale.config.location import settings_for
from ebs_autoscale.config.schema import (
    MetricsSettings,
    Settings,
    exists,
    load,
    offered,
    parse,
    text_of,
)
from ebs_autoscale.config.values import mountpoint

__all__ = [
    "MetricsSettings",
    "Settings",
    "exists",
    "load",
    "mountpoint",
    "offered",
    "parse",
    "settings_for",
    "text_of",
]
