"""The daemon's life: start, wait for the mount, watch, reload, end."""

import argparse
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from ebs_autoscale import __version__, config
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.daemon.await_configuration import await_configuration
from ebs_autoscale.daemon.await_mount import MountWaiter
from ebs_autoscale.daemon.installation import Installation
from ebs_autoscale.daemon.metadata import InstanceMetadata
from ebs_autoscale.daemon.worker import GrowthProcess
from ebs_autoscale.errors import (
    Cause,
    ConfigInvalid,
    EbsAutoscaleError,
    Exit,
    Problem,
    Stopped,
)
from ebs_autoscale.host import paths, systemd
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.host.process import detached
from ebs_autoscale.host.requirements import require_root
from ebs_autoscale.host.sd_notify import Notifier
from ebs_autoscale.monitor import Monitor
from ebs_autoscale.policy import describe_available
from ebs_autoscale.telemetry import (
    Conditions,
    Event,
    EventKind,
    Exporter,
    Level,
    LogSink,
    NotifyCommand,
    Sinks,
    StatusFile,
    View,
    dropped_lines,
    set_up_logging,
)
from ebs_autoscale.wiring import MountedFilesystem, filesystem_of


def run(arguments: argparse.Namespace) -> int:
    """Be the daemon until SIGTERM or SIGINT; SIGHUP reloads the configuration."""
    clock, notifier = SystemClock(), Notifier()
    try:
        text, settings = _configuration(arguments, clock, notifier)
    except Stopped:
        return Exit.SUCCESS
    if arguments.test:
        return Exit.SUCCESS
    set_up_logging(settings.log_format, arguments.log_level, os.environ, is_daemon=True)
    require_root()
    daemon = Daemon(arguments.config, text, settings, clock=clock, notifier=notifier)
    with ExitStack() as stack:
        if arguments.wait and not daemon.wait_for_mount():
            return Exit.SUCCESS
        lock = stack.enter_context(Lock(paths.daemon_lock(_verified_uuid(settings))))
        if arguments.detach:
            pid_path = paths.pid_file(settings.mountpoint)
            keep = (lock.fileno(),)
            stack.enter_context(detached(pid_path=pid_path, log_path=paths.LOG_FILE, keep=keep))
            set_up_logging(
                settings.log_format,
                arguments.log_level,
                os.environ,
                is_daemon=True,
                log_path=paths.LOG_FILE,
            )
            lock.sign()
        daemon.handle_signals()
        return daemon.watch()


def _configuration(
    arguments: argparse.Namespace, clock: SystemClock, notifier: Notifier
) -> tuple[str, config.Settings]:
    if not arguments.wait:
        text = config.text_of(arguments.config)
        return text, config.parse(text, name=str(arguments.config))
    set_up_logging("auto", arguments.log_level, os.environ, is_daemon=True)
    clock.stop_on(signal.SIGTERM, signal.SIGINT)
    clock.wake_on(signal.SIGHUP)
    emit = Sinks(LogSink())
    return await_configuration(arguments.config, clock=clock, notifier=notifier, emit=emit)


def _verified_uuid(settings: config.Settings) -> str:
    """The filesystem's UUID, once it is seen to be fit; nothing of the look stays open.

    Detaching closes descriptors, so whatever the daemon holds is opened after it.
    """
    filesystem = filesystem_of(settings, SystemClock())
    filesystem.read()
    return filesystem.uuid


class Daemon:
    """Watches the filesystem of one configuration file; reports to log, status file and systemd."""

    def __init__(
        self,
        config_path: Path,
        config_text: str,
        settings: config.Settings,
        *,
        clock: SystemClock,
        notifier: Notifier,
    ) -> None:
        self._config_path = config_path
        self._config_text = config_text
        self._settings = settings
        self._clock = clock
        self._notifier = notifier
        self._installation = Installation(clock)
        self._status_file = StatusFile(paths.status_file(settings.mountpoint))
        self._notify = NotifyCommand(settings.mountpoint)
        self._exporter = Exporter(settings.mountpoint, clock)
        self._emit = Sinks(LogSink(), self._notify, mountpoint=settings.mountpoint)
        self._conditions = Conditions(clock, self._emit)
        self._unwritten: Problem | None = None
        self._is_restarted: bool | None = None

    def handle_signals(self) -> None:
        """From now on a signal is a request, taken up when it is safe."""
        self._clock.stop_on(signal.SIGTERM, signal.SIGINT)
        self._clock.wake_on(signal.SIGHUP)

    def wait_for_mount(self) -> bool:
        """Wait until the filesystem is mounted, and mount it if fstab says so.

        Returns False when told to stop.
        """
        self.handle_signals()
        with suppress(EbsAutoscaleError):
            _verified_uuid(self._settings)
            return True
        # What follows may take longer than a start: it asks EC2, and mounts.
        self._notifier.ready()
        self._inform_others()
        waiter = MountWaiter(
            self._settings.mountpoint,
            config_path=self._config_path,
            clock=self._clock,
            emit=self._emit,
            stopping=self._is_stopping,
        )
        try:
            while view := waiter.advance(lambda: _verified_uuid(self._settings)):
                self._publish(view)
                self._clock.sleep(self._settings.policy.polling.max_seconds)
                self._reload_if_asked(lambda: None, self._tell_refusal)
                self._leave_if_replaced()
        except Stopped:
            return False
        finally:
            self._status_file.remove()
        return True

    def _tell_refusal(self, error: ConfigInvalid) -> None:
        self._emit(Event.of_error(EventKind.WARNING, error, level=Level.ERROR))

    def _is_stopping(self) -> bool:
        """Asked while a tool runs, which must not look like a loop that hangs."""
        self._notifier.feed_watchdog(self._clock.now_seconds())
        return self._clock.stopping

    def watch(self) -> int:
        """Watch and grow until a stop is requested; returns the exit code."""
        self._inform_others()
        filesystem = filesystem_of(self._settings, self._clock)
        metadata = InstanceMetadata()
        growths = GrowthProcess(
            config_path=self._config_path,
            config_text=self._config_text,
            lock_path=paths.growth_lock(filesystem.uuid),
            clock=self._clock,
            metadata=metadata,
        )
        monitor = Monitor(
            filesystem=filesystem,
            growths=growths,
            policy=self._settings.policy,
            clock=self._clock,
            emit=self._emit,
            publish=self._publish,
        )

        def before_tick() -> None:
            self._reload_if_asked(follow, monitor.report_rejected_configuration)
            if not growths.running:
                self._leave_if_replaced()

        def follow() -> None:
            growths.config_text = self._config_text
            metadata.renew()
            monitor.set_policy(self._settings.policy)
            monitor.set_reserve(self._settings.reserve_bytes)

        monitor.reload_command = systemd.reload_command(
            self._config_path, pid=os.getpid(), is_running=systemd.is_running()
        )
        monitor.set_reserve(self._settings.reserve_bytes)
        self._tell_start(filesystem)
        metadata.start()
        self._notifier.ready()
        try:
            return monitor.run(before_tick=before_tick, on_stop=self._notifier.stopping)
        finally:
            self._status_file.remove()
            sentence = f"no longer watching {filesystem.mountpoint}"
            self._emit(Event(kind=EventKind.STOPPING, sentence=sentence))

    def _inform_others(self) -> None:
        """Start what the configuration says about metrics and notify.command; needs threads."""
        self._exporter.follow(self._settings.metrics)
        self._notify.follow(self._settings.notify_command)

    def _tell_start(self, filesystem: MountedFilesystem) -> None:
        available = describe_available(filesystem.read())
        self._emit(
            Event(
                kind=EventKind.STARTED,
                sentence=f"watching {filesystem.mountpoint}: {available}",
                filesystem=filesystem.uuid,
                version=__version__,
            )
        )

    def _reload_if_asked(
        self, follow: Callable[[], None], refuse: Callable[[ConfigInvalid], None]
    ) -> None:
        if not self._clock.take_wake_up():
            return
        self._notifier.reloading(self._clock.now_seconds())
        try:
            self._reread()
        except ConfigInvalid as error:
            what = f"keeping the previous configuration: {error.what}"
            refuse(ConfigInvalid(what, hint=error.hint, cause=error.cause))
        else:
            follow()
            sentence = f"reloaded {self._config_path}"
            self._emit(Event(kind=EventKind.RELOADED, sentence=sentence))
        self._notifier.ready()

    def _reread(self) -> None:
        text = config.text_of(self._config_path)
        settings = config.parse(text, name=str(self._config_path))
        if settings.mountpoint != self._settings.mountpoint:
            raise ConfigInvalid(
                f"{self._config_path}: mountpoint is now {settings.mountpoint}, but "
                f"{self._settings.mountpoint} is being watched",
                hint="restart the daemon to watch another filesystem",
            )
        self._config_text, self._settings = text, settings
        self._inform_others()

    def _leave_if_replaced(self) -> None:
        """Make room for the program that is installed now, if systemd starts it.

        A unit of an older version, or an operator's own, may restart it only after a failure.
        """
        if not (self._notifier.is_service and self._installation.is_replaced()):
            return
        if self._is_restarted is None:
            self._is_restarted = systemd.is_always_restarted()
        if self._is_restarted:
            sentence = "the program or its Python was replaced: restarting"
            self._emit(Event(kind=EventKind.TENDED, sentence=sentence))
            raise Stopped

    def _publish(self, view: View) -> None:
        self._report_problems()
        view = replace(
            view,
            conditions={**view.conditions, **self._conditions.lines},
            dropped_log_lines=dropped_lines(),
            dropped_notifications=self._notifier.dropped,
            dropped_metrics=self._exporter.dropped,
            dropped_events=self._notify.dropped,
        )
        self._exporter.publish(view)
        self._notifier.feed_watchdog(self._clock.now_seconds())
        self._notifier.status(view.line)
        self._unwritten = self._status_file.write(view)

    def _report_problems(self) -> None:
        """Tell what is wrong with the daemon itself, and what no longer is."""
        if warning := self._notify.take_warning():
            self._emit(warning)
        problems = [*self._exporter.problems, *filter(None, [self._unwritten])]
        if self._installation.is_replaced():
            problems.append(
                Problem(
                    Cause.REPLACED,
                    f"the program or its Python was replaced; this daemon is {__version__}",
                    "restart the daemon",
                )
            )
        for problem in problems:
            self._conditions.raised(problem, Level.WARNING)
        self._conditions.only(problem.key for problem in problems)
