"""What the policy would do, simulated without a filesystem and without EC2."""

from ebs_autoscale.simulation.report import Report, as_json, as_text, report
from ebs_autoscale.simulation.scenario import Scenario, parse_scenario
from ebs_autoscale.simulation.steady_writer import Course, Created, empty, simulate

__all__ = [
    "Course",
    "Created",
    "Report",
    "Scenario",
    "as_json",
    "as_text",
    "empty",
    "parse_scenario",
    "report",
    "simulate",
]
