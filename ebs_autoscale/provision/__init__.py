"""What `init` sets up on a host, and `uninstall` removes."""

from ebs_autoscale.provision.init import Initialisation, Setup
from ebs_autoscale.provision.uninstall import uninstall

__all__ = ["Initialisation", "Setup", "uninstall"]
