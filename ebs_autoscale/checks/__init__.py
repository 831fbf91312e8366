"""`check`: look at everything without changing anything."""

from ebs_autoscale.checks.runner import show

__all__ = ["show"]
