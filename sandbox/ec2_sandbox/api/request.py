"""One call of an EC2 action, on its way through the sandbox."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ec2_sandbox.world.state import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Parsed parameters, and how a fault rule bends the effect."""

    params: Mapping[str, Any]
    stuck: bool = False
    ghost: bool = False


Effect = Callable[[], dict[str, Any] | None]
"""What a call does once it may, giving the result; until it runs nothing has changed."""

Action = Callable[[World, Request], Effect]
"""Checks a call, raising ApiError, and gives back its effect: so DryRun never has any."""
