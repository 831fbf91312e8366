"""The daemon's life: start, wait for the mount, watch, reload, end."""

import argparse
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from ebs_autoscale import __version__
from ebs_autoscale.btrfs import BtrfsFilesystem
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import schema as config
from ebs_autoscale.daemon.await_mount import Awaited
from ebs_autoscale.daemon.worker import GrowthProcess
from ebs_autoscale.errors import ConfigInvalid, EbsAutoscaleError, Stopped
from ebs_autoscale.exits import Exit
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.host.service import Notifier, detached
from ebs_autoscale.monitor import Monitor
from ebs_autoscale.policy.shortage import available
from ebs_autoscale.telemetry.events import Event, EventKind, Level
from ebs_autoscale.telemetry.logs import LogSink, Sinks, StatusFile, set_up_logging
from ebs_autoscale.wiring import (
    daemon_lock_path,
    filesystem_of,
    growth_lock_path,
    require_fit_host,
    status_path,
)

LOG_PATH = Path("/var/log/ebs-autoscale.log")


def run(arguments: argparse.Namespace) -> int:
    """Be the daemon until SIGTERM or SIGINT; SIGHUP has the configuration read again."""
    text = config.text_of(arguments.config)
    settings = config.parse(text, name=str(arguments.config))
    if arguments.test:
        return Exit.FINE
    set_up_logging(settings.log_format, arguments.log_level, os.environ, timed=True)
    require_fit_host()
    daemon = Daemon(arguments.config, text, settings)
    with ExitStack() as stack:
        if arguments.wait and not daemon.has_seen_mount():
            return Exit.FINE
        lock = stack.enter_context(Lock(daemon_lock_path(_proved(settings))))
        if arguments.detach:
            pid_path = status_path(settings.mountpoint).with_suffix(".pid")
            keep = (lock.fileno(),)
            stack.enter_context(detached(pid_path=pid_path, log_path=LOG_PATH, keep=keep))
            set_up_logging(
                settings.log_format, arguments.log_level, os.environ, timed=True, log_path=LOG_PATH
            )
            lock.sign()
        daemon.heed_signals()
        return daemon.watch()


def _proved(settings: config.Settings) -> str:
    """The filesystem's UUID, once it is seen to be fit; nothing of the look stays open.

    Detaching closes descriptors, so whatever the daemon holds is opened after it.
    """
    filesystem = filesystem_of(settings, SystemClock())
    filesystem.read()
    return filesystem.uuid


class Daemon:
    """Watches the filesystem of one configuration file, and tells everyone who wants to know."""

    def __init__(self, config_path: Path, config_text: str, settings: config.Settings) -> None:
        self._config_path = config_path
        self._config_text = config_text
        self._settings = settings
        self._clock = SystemClock()
        self._notifier = Notifier()
        self._report = StatusFile(status_path(settings.mountpoint))
        self._emit = Sinks(LogSink())

    def heed_signals(self) -> None:
        """From now on a signal is a wish, taken up when it is safe."""
        self._clock.stop_on(signal.SIGTERM, signal.SIGINT)
        self._clock.wake_on(signal.SIGHUP)

    def has_seen_mount(self) -> bool:
        """Wait until the filesystem is mounted, an orderly state too; False when told to stop."""
        self.heed_signals()
        with suppress(EbsAutoscaleError):
            _proved(self._settings)
            return True
        # What follows may take longer than a start: it asks EC2, and mounts.
        self._notifier.ready()
        awaited = Awaited(
            self._settings.mountpoint,
            config_path=self._config_path,
            clock=self._clock,
            emit=self._emit,
            stopping=self._is_stopping,
        )
        try:
            while view := awaited.look(lambda: _proved(self._settings)):
                self._publish(view)
                self._clock.sleep(self._settings.policy.polling.max_seconds)
                self._reload_if_asked(lambda: None, self._tell_refusal)
        except Stopped:
            return False
        finally:
            self._report.remove()
        return True

    def _tell_refusal(self, sentence: str) -> None:
        self._emit(Event(kind=EventKind.WARNING, sentence=sentence, level=Level.ERROR))

    def _is_stopping(self) -> bool:
        """Asked while a tool runs, which must not look like a loop that hangs."""
        self._notifier.feed_watchdog(self._clock.now_seconds())
        return self._clock.stopping

    def watch(self) -> int:
        """Watch and grow until a stop is requested; returns the exit code."""
        filesystem = filesystem_of(self._settings, self._clock)
        growths = GrowthProcess(
            config_path=self._config_path,
            config_text=self._config_text,
            lock_path=growth_lock_path(filesystem.uuid),
            clock=self._clock,
        )
        monitor = Monitor(
            filesystem=filesystem,
            growths=growths,
            policy=self._settings.policy,
            clock=self._clock,
            emit=self._emit,
            publish=self._publish,
        )

        def follow() -> None:
            growths.config_text = self._config_text
            monitor.follow(self._settings.policy)

        self._tell_start(filesystem)
        self._notifier.ready()
        try:
            return monitor.run(
                before_tick=lambda: self._reload_if_asked(follow, monitor.refuse_configuration),
                on_stop=self._notifier.stopping,
            )
        finally:
            self._report.remove()
            sentence = f"no longer watching {filesystem.mountpoint}"
            self._emit(Event(kind=EventKind.STOPPING, sentence=sentence))

    def _tell_start(self, filesystem: BtrfsFilesystem) -> None:
        sentence = f"watching {filesystem.mountpoint}: {available(filesystem.read())}"
        fields = {"filesystem": filesystem.uuid, "version": __version__}
        self._emit(Event(kind=EventKind.STARTED, sentence=sentence, fields=fields))

    def _reload_if_asked(self, follow: Callable[[], None], refuse: Callable[[str], None]) -> None:
        if not self._clock.was_asked():
            return
        self._notifier.reloading(self._clock.now_seconds())
        try:
            self._reread()
        except ConfigInvalid as error:
            refuse(f"the configuration of before stays: {error}")
        else:
            follow()
            sentence = f"goes by {self._config_path} as it is now"
            self._emit(Event(kind=EventKind.RELOADED, sentence=sentence))
        self._notifier.ready()

    def _reread(self) -> None:
        text = config.text_of(self._config_path)
        settings = config.parse(text, name=str(self._config_path))
        if settings.mountpoint != self._settings.mountpoint:
            raise ConfigInvalid(
                f"{self._config_path}: mountpoint is now {settings.mountpoint}, but "
                f"{self._settings.mountpoint} is watched",
                hint="restart the daemon to watch another filesystem",
            )
        self._config_text, self._settings = text, settings

    def _publish(self, view: Mapping[str, object]) -> None:
        self._notifier.feed_watchdog(self._clock.now_seconds())
        self._notifier.status(_one_line(view))
        self._report.write({"version": __version__, "pid": os.getpid(), **_without_reading(view)})


def _one_line(view: Mapping[str, object]) -> str:
    conditions = view["conditions"]
    if isinstance(conditions, Mapping) and conditions:
        return "; ".join(str(sentence) for sentence in conditions.values())
    return str(view["activity"] or view["low"] or view["state"])


def _without_reading(view: Mapping[str, object]) -> dict[str, object]:
    """`status` looks for itself; a report that changed with every reading would be all writes."""
    volatile = {"reading", "fill_bytes_per_second", "next_try_in_seconds"}
    return {key: value for key, value in view.items() if key not in volatile}
