"""What the program tells: events, conditions, log lines, the view and the status file."""

from ebs_autoscale.telemetry.conditions import Conditions
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.telemetry.exporter import Exporter
from ebs_autoscale.telemetry.logs import (
    LogSink,
    Sinks,
    dropped_lines,
    last_words,
    record,
    set_up_logging,
)
from ebs_autoscale.telemetry.notify import NotifyCommand
from ebs_autoscale.telemetry.status_file import RunningDaemon, StatusFile, running_daemon
from ebs_autoscale.telemetry.tally import RecentGrowth, Tally
from ebs_autoscale.telemetry.view import ManagedVolumes, State, View

__all__ = [
    "Conditions",
    "Event",
    "EventKind",
    "Exporter",
    "Level",
    "LogSink",
    "ManagedVolumes",
    "NotifyCommand",
    "RecentGrowth",
    "RunningDaemon",
    "Sinks",
    "State",
    "StatusFile",
    "Tally",
    "View",
    "dropped_lines",
    "last_words",
    "record",
    "running_daemon",
    "set_up_logging",
]
