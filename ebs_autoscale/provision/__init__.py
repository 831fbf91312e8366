"""What `init` sets up on a host, and `uninstall` removes."""

from ebs_autoscale.provision.config_file import text_for
from ebs_autoscale.provision.init import Initialisation, Setup
from ebs_autoscale.provision.older_script import read_older, translation_for
from ebs_autoscale.provision.uninstall import uninstall

__all__ = [
    "Initialisation",
    "Setup",
    "read_older",
    "text_for",
    "translation_for",
    "uninstall",
]
