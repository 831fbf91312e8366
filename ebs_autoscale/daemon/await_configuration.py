"""A configuration that cannot be read, or not used: when to wait for it, and when to give up."""

import errno
from collections.abc import Callable
from pathlib import Path

from ebs_autoscale import config
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import ConfigInvalid, Problem
from ebs_autoscale.host import systemd
from ebs_autoscale.host.sd_notify import Notifier
from ebs_autoscale.telemetry import Conditions, Event

# Replacing a file takes a moment for those who do not rename.
REPLACED_WITHIN_SECONDS = 3.0
LOOK_EVERY_SECONDS = 1.0

# What an operator has to change; anything else, such as EIO, may pass.
_LASTING_ERRORS = {
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
}


def await_configuration(
    path: Path, *, clock: SystemClock, notifier: Notifier, emit: Callable[[Event], None]
) -> tuple[str, config.Settings]:
    """The text of the configuration and its settings, once there is a valid one.

    Raises ConfigInvalid when it stays invalid or missing at a start by an operator or at boot,
    who sees a failed service. A daemon that has died and is started again waits for as long as it
    takes: it was watching a filesystem. Raises Stopped when told to stop.
    """
    conditions = Conditions(clock, emit)
    patient_until = clock.now_seconds() + REPLACED_WITHIN_SECONDS
    waits = False
    while True:
        # The look is all that a reload asks for. A wake-up that is not taken would end every sleep.
        clock.take_wake_up()
        try:
            found = _read(path)
        except ConfigInvalid as error:
            if not waits and clock.now_seconds() >= patient_until:
                if not _may_pass(error) and not systemd.was_restarted():
                    raise
                waits = True
                notifier.ready()
            if waits:
                problem = Problem.of_error(error)
                conditions.raised(problem)
                conditions.only({problem.key})
                notifier.status(f"waiting for a valid configuration: {problem.line}")
                notifier.feed_watchdog(clock.now_seconds())
            clock.sleep(LOOK_EVERY_SECONDS)
        else:
            conditions.only(())
            return found


def _read(path: Path) -> tuple[str, config.Settings]:
    text = config.text_of(path)
    return text, config.parse(text, name=str(path))


def _may_pass(error: ConfigInvalid) -> bool:
    reason = error.__cause__
    return isinstance(reason, OSError) and reason.errno not in _LASTING_ERRORS
