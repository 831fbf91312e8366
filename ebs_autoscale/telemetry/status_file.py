"""The daemon's report under /run: written by the daemon, read by `status` and `check`."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebs_autoscale import __version__
from ebs_autoscale.errors import Cause, Problem, Unfit
from ebs_autoscale.host import files
from ebs_autoscale.telemetry.view import SCHEMA, View
from ebs_autoscale.units import json_text


class StatusFile:
    """The report: replaced atomically, removed at the end, never read back by the daemon.

    Everybody may read it, whatever the umask: nothing in it is secret, and `status` needs no root.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""

    def write(self, view: View) -> Problem | None:
        """Replace the report if it changed; returns what prevents that, such as a full /run."""
        report = {"schema": SCHEMA, "version": __version__, "pid": os.getpid(), **view.report()}
        text = json_text(report, indent=1)
        if text == self._written:
            return None
        try:
            files.make_folder(self._path.parent)
            files.publish(self._path, text)
        except OSError as error:
            return Problem(
                Cause.STATUS_FILE,
                f"cannot write {self._path}: {error.strerror}",
                "free up space there or make it writable; until then `status` shows old figures "
                "or no daemon",
            )
        self._written = text
        return None

    def remove(self) -> None:
        """Delete the file, so that no daemon seems to be running."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


# What JSON of any other shape ends in, one nested too deeply or with infinite numbers among it.
NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

# All sizes, rates and times are far below.
_NUMBER_MAX = 2.0**63


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningDaemon:
    """A daemon that runs, and its last report."""

    pid: int
    version: str
    resident_bytes: int
    view: View


def _bounded(text: str) -> float:
    """The number, which no calculation with it makes infinite; raises ValueError."""
    number = float(text)
    if not abs(number) < _NUMBER_MAX:
        raise ValueError(f"{text[:20]} is not a number that a daemon reports")
    return int(text) if text.removeprefix("-").isdigit() else number


def running_daemon(path: Path) -> RunningDaemon | None:
    """The daemon that wrote the report at this path; None when it does not run (any more).

    Raises Unfit when this user may not read it.
    """
    import psutil  # noqa: PLC0415 -- the daemon writes reports and never reads one

    try:
        report = json.loads(
            path.read_text("utf-8"),
            parse_int=_bounded,
            parse_float=_bounded,
            parse_constant=_bounded,
        )
        process = psutil.Process(report["pid"])
        if not any("ebs" in part for part in process.cmdline()):
            return None
        return RunningDaemon(
            pid=process.pid,
            version=str(report["version"]),
            resident_bytes=process.memory_info().rss,
            view=View.from_report(report),
        )
    except PermissionError as error:
        raise Unfit(
            f"no permission to read the status file {path}", hint="use sudo", cause=Cause.NOT_ROOT
        ) from error
    except (OSError, *NOT_OURS, psutil.Error):
        return None
