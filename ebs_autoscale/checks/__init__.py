"""`check`: look at everything without changing anything."""

from ebs_autoscale.checks.permissions import denied_actions, refusal_to_enlarge
from ebs_autoscale.checks.runner import show

__all__ = ["denied_actions", "refusal_to_enlarge", "show"]
