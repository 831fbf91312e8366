"""How one filesystem gets larger: look, decide, and carry out what is missing."""

from ebs_autoscale.resize.attach import MAPPING_PATIENCE_SECONDS, Attached, protect
from ebs_autoscale.resize.enlarge import decide_on
from ebs_autoscale.resize.growth import Outcome, grow_once, observe
from ebs_autoscale.resize.ports import Filesystem, World
from ebs_autoscale.resize.steps import carry_out

__all__ = [
    "MAPPING_PATIENCE_SECONDS",
    "Attached",
    "Filesystem",
    "Outcome",
    "World",
    "carry_out",
    "decide_on",
    "grow_once",
    "observe",
    "protect",
]
