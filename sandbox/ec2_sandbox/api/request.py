"""A call of an EC2 action, and what an action does with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ec2_sandbox.world.state import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Parsed parameters, and the fault that is injected into the effect.

    Whom the `policy` of the role does not concern is an operator.
    """

    params: Mapping[str, Any]
    stuck: bool = False
    ghost: bool = False
    failed: bool = False
    undone: bool = False
    is_operator: bool = False


Effect = Callable[[], dict[str, Any] | None]
"""Makes the changes of a valid call and returns the result; nothing changes before."""

Action = Callable[[World, Request], Effect]
"""Validates a call, raising ApiError, and returns its effect, which DryRun does not run."""
