"""`status`: every configured mountpoint, once or again and again, as text or JSON."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.cli.look import Looker, Status
from ebs_autoscale.cli.screen import page
from ebs_autoscale.cli.status_json import as_dict
from ebs_autoscale.cli.terminal import Paint, Screen, has_escapes, look_of_stdout
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import Settings
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.host import paths
from ebs_autoscale.units import json_text

WATCH_EVERY_SECONDS = 1.0
# Between the two looks that show how fast the filesystem fills, and whether EBS is too slow, which
# counts once a second.
RATE_AFTER_SECONDS = 0.5
EBS_AFTER_SECONDS = 1.0

Configurations = Mapping[Path, Settings | ConfigInvalid]


def configured(given: Path | None) -> Configurations:
    """The given configuration, else those of all units. Raises ConfigInvalid if none is valid."""
    found: dict[Path, Settings | ConfigInvalid] = {}
    files = [given] if given else paths.configurations()
    for file in files:
        try:
            found[file] = config.load(file)
        except ConfigInvalid as error:
            if len(files) == 1:
                raise
            found[file] = error
    return found


def show(configurations: Configurations, *, as_json: bool, watch: bool) -> int:
    """Print the status once, or every second until Ctrl-C; the exit code is the worst of all."""
    clock = SystemClock()
    lookers = [Looker(path, settings, clock) for path, settings in configurations.items()]
    if watch:
        _watch(lookers, clock, as_json=as_json)
    statuses = [looker.look() for looker in lookers]
    seen = [status.filesystem for status in statuses if status.filesystem]
    if not as_json and seen:
        has_ebs = any(each.throttled.of for each in seen)
        clock.sleep(EBS_AFTER_SECONDS if has_ebs else RATE_AFTER_SECONDS)
        statuses = [looker.look() for looker in lookers]
    _print(statuses, as_json=as_json)
    return max(status.exit for status in statuses)


def _watch(lookers: Sequence[Looker], clock: SystemClock, *, as_json: bool) -> None:
    can_redraw = has_escapes(is_terminal=sys.stdout.isatty(), env=os.environ)
    with Screen() if can_redraw and not as_json else nullcontext() as screen:
        while True:
            statuses = [looker.look() for looker in lookers]
            if screen:
                look = look_of_stdout()
                at = datetime.fromtimestamp(clock.wall_seconds(), UTC)
                title = f"ebs-autoscale status at {at:%H:%M:%S} UTC; Ctrl-C ends it"
                screen.draw([look.painted(title, Paint.DIM), "", *page(statuses, look)])
            else:
                _print(statuses, as_json=as_json)
            clock.sleep(WATCH_EVERY_SECONDS)


def _print(statuses: Sequence[Status], *, as_json: bool) -> None:
    if as_json:
        print(json_text(as_dict(statuses), indent=1), flush=True)
    else:
        print("\n".join(page(statuses, look_of_stdout())), flush=True)
