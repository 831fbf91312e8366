"""The life of `run`: wait for the mount, watch, reload, run growths, end."""

from ebs_autoscale.daemon.lifecycle import Daemon, run
from ebs_autoscale.daemon.worker import GrowthRequest

__all__ = ["Daemon", "GrowthRequest", "run"]
