"""The life of `run`: wait for the mount, watch, reload, run growths, end."""

from ebs_autoscale.daemon.lifecycle import run
from ebs_autoscale.daemon.worker import EventPipe, GrowthRequest

__all__ = ["EventPipe", "GrowthRequest", "run"]
