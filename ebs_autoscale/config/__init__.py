"""The configuration: from a YAML file to frozen settings, all mistakes reported at once."""

from ebs_autoscale.config.schema import Settings, exists, load, offered, parse, text_of
from ebs_autoscale.config.values import mountpoint

__all__ = ["Settings", "exists", "load", "mountpoint", "offered", "parse", "text_of"]
