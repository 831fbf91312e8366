"""Every judgement, no effect: when space is short, how much to add, how long to wait."""

from ebs_autoscale.policy.backoff import retry_delay_seconds
from ebs_autoscale.policy.decision import (
    decide,
    describe,
    steps_for,
    unbalanced_metadata,
)
from ebs_autoscale.policy.enlarging import (
    DAY_SECONDS,
    MODIFICATIONS_PER_DAY,
    own_devices,
    without,
)
from ebs_autoscale.policy.forecast import GROWTH_SECONDS_PRIOR, FillHistory, Forecast
from ebs_autoscale.policy.health import (
    NEEDS_DEVICES,
    NEEDS_READING,
    Remark,
    device_problems,
    missing_device,
    problems_of,
    remarks_of,
)
from ebs_autoscale.policy.limits import priced
from ebs_autoscale.policy.loop import Action, LoopState, Phase, next_action
from ebs_autoscale.policy.ownership import (
    NOTHING_TRIED,
    Managed,
    Tried,
    expected,
    failed,
    listed,
    managed,
    may_be_device,
    next_growth,
    unfinished,
    unused_volumes,
    waiting,
)
from ebs_autoscale.policy.reserve import (
    is_reserve_affordable,
    missing_reserve,
    wanted_reserve_bytes,
)
from ebs_autoscale.policy.settings import (
    GrowthMethod,
    GrowthPolicy,
    LadderStep,
    Limits,
    Polling,
    Sizing,
    Threshold,
)
from ebs_autoscale.policy.shortage import (
    Shortage,
    describe_available,
    lead_time_seconds,
    poll_delay_seconds,
    seconds_until_full,
    shortage_of,
)

__all__ = [
    "DAY_SECONDS",
    "GROWTH_SECONDS_PRIOR",
    "MODIFICATIONS_PER_DAY",
    "NEEDS_DEVICES",
    "NEEDS_READING",
    "NOTHING_TRIED",
    "Action",
    "FillHistory",
    "Forecast",
    "GrowthMethod",
    "GrowthPolicy",
    "LadderStep",
    "Limits",
    "LoopState",
    "Managed",
    "Phase",
    "Polling",
    "Remark",
    "Shortage",
    "Sizing",
    "Threshold",
    "Tried",
    "decide",
    "describe",
    "describe_available",
    "device_problems",
    "expected",
    "failed",
    "is_reserve_affordable",
    "lead_time_seconds",
    "listed",
    "managed",
    "may_be_device",
    "missing_device",
    "missing_reserve",
    "next_action",
    "next_growth",
    "own_devices",
    "poll_delay_seconds",
    "priced",
    "problems_of",
    "remarks_of",
    "retry_delay_seconds",
    "seconds_until_full",
    "shortage_of",
    "steps_for",
    "unbalanced_metadata",
    "unfinished",
    "unused_volumes",
    "waiting",
    "wanted_reserve_bytes",
    "without",
]
