"""What the policy would do, simulated without a filesystem and without EC2."""

from ebs_autoscale.simulation.steady_writer import (
    Course,
    Created,
    Scenario,
    as_json,
    as_text,
    empty,
    parse_scenario,
    simulate,
)

__all__ = [
    "Course",
    "Created",
    "Scenario",
    "as_json",
    "as_text",
    "empty",
    "parse_scenario",
    "simulate",
]
