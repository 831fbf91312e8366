"""How the demo is shown: a live picture on a terminal, plain lines elsewhere."""

import os
import signal
import sys
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ebs_autoscale_demo.daemon import LogLine
from ebs_autoscale_demo.filesystem import Device, Space
from ebs_autoscale_demo.progress import Progress
from ebs_autoscale_demo.sizes import GIB, MIB, counted, format_size

_REFRESH_SECONDS = 0.125
_PLAIN_EVERY_SECONDS = 2.0
_LOG_LINES = 8
# The bar has this length from the start, so that the filesystem visibly grows.
_BAR_GIB = 8
_DEVICE_STYLES = ("black on cyan", "black on green", "black on magenta", "black on yellow")
_LEVEL_STYLES = {"warning": "yellow", "error": "bold red"}


class Screen(Protocol):
    """Shows the progress of a demo."""

    def show(self, progress: Progress) -> None:
        """Show the present state."""

    def close(self) -> None:
        """Keep the last state visible and release the terminal."""


def screen_for_stdout() -> Screen:
    """A live picture on a terminal, lines for a pipe or a file."""
    return LiveScreen() if sys.stdout.isatty() else PlainScreen()


class Refresher:
    """A thread that observes and shows the progress until the end of the block.

    An error in it, such as a closed pipe, stops the demo and is raised at the end of the block.
    """

    def __init__(self, progress: Progress, screen: Screen) -> None:
        self._progress = progress
        self._screen = screen
        self._end = Event()
        self._error: Exception | None = None
        self._thread = Thread(target=self._refresh, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _refresh(self) -> None:
        try:
            while not self._end.wait(_REFRESH_SECONDS):
                self._progress.observe()
                self._screen.show(self._progress)
            self._progress.observe()
            self._screen.show(self._progress)
            self._screen.close()
        except Exception as error:  # noqa: BLE001 -- raised again in the main thread
            self._error = error
            os.kill(os.getpid(), signal.SIGTERM)


class PlainScreen:
    """A line for each phase and each log line of the daemon, and one every two seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._log_lines_shown = 0
        self._next_seconds = 0.0

    def show(self, progress: Progress) -> None:
        """Print what is new."""
        if progress.phase != self._phase:
            self._phase = progress.phase
            _print_line(progress.elapsed_seconds, progress.phase)
        for at_seconds, line in progress.log[self._log_lines_shown :]:
            level = "" if line.level == "info" else f"{line.level}: "
            _print_line(at_seconds, f"daemon: {level}{line.message}")
        self._log_lines_shown = len(progress.log)
        if progress.space and progress.elapsed_seconds >= self._next_seconds:
            self._next_seconds = progress.elapsed_seconds + _PLAIN_EVERY_SECONDS
            _print_line(progress.elapsed_seconds, _summary(progress, progress.space))

    def close(self) -> None:
        """Do nothing: the lines stay."""


class LiveScreen:
    """One picture, redrawn in place."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), auto_refresh=False)
        self._live.start()

    def show(self, progress: Progress) -> None:
        """Draw the picture."""
        self._live.update(picture(progress), refresh=True)

    def close(self) -> None:
        """Keep the picture and restore the cursor."""
        self._live.stop()


def _print_line(at_seconds: float, text: str) -> None:
    sys.stdout.write(f"{at_seconds:6.1f} s  {text}\n")
    sys.stdout.flush()


def _summary(progress: Progress, space: Space) -> str:
    done_bytes, total_bytes = progress.done_and_total_bytes
    return (
        f"used {_gib(space.used_bytes)} of {_gib(space.size_bytes)}, "
        f"available {_gib(space.available_bytes)} ({space.available_percent:.0f} %), "
        f"{counted(len(space.devices), 'device')}, {_rate(progress)}, "
        f"{100 * done_bytes / total_bytes:.0f} % done; daemon: {progress.daemon_activity}"
    )


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / GIB:.2f} GiB"


def _rate(progress: Progress) -> str:
    verb = "verifying" if progress.is_verifying else "writing"
    return f"{verb} {progress.bytes_per_second / MIB:.0f} MiB/s"


def picture(progress: Progress) -> RenderableType:
    """The whole screen at this moment."""
    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(ratio=1)
    rows.add_row("phase", Text(progress.phase, style="bold"))
    if progress.space:
        rows.add_row("filesystem", _SpaceBar(progress.space))
        rows.add_row("", _space(progress.space))
    if progress.writer:
        done_bytes, total_bytes = progress.done_and_total_bytes
        rows.add_row("data", ProgressBar(total=total_bytes, completed=done_bytes))
        rows.add_row("", _data(progress, done_bytes, total_bytes))
    rows.add_row(
        "daemon", Text(progress.daemon_activity, style="bold cyan" if progress.status else "")
    )
    rows.add_row("growths", _growths(progress))
    title = f"ebs-autoscale demo: real BTRFS, simulated EC2, {progress.elapsed_seconds:.0f} s"
    return Group(Panel(rows, title=title), Panel(_log(progress), title="log of the daemon"))


class _SpaceBar:
    """Used and available space, and below it the devices of the filesystem, to scale."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def __rich_console__(self, console: Console, options: object) -> list[Text]:
        del console
        width = getattr(options, "max_width", 80)
        space = self._space
        cells = width / max(_BAR_GIB * GIB, space.size_bytes)
        whole = round(space.size_bytes * cells)
        used = min(whole, round(space.used_bytes * cells))
        bar = Text()
        bar.append("█" * used, style=_urgency(space))
        bar.append("░" * (whole - used), style="green")
        bar.append("·" * (width - whole), style="bright_black")
        return [bar, _devices(space.devices, cells)]


def _devices(devices: tuple[Device, ...], cells_per_byte: float) -> Text:
    text = Text(no_wrap=True)
    end_bytes = 0
    for number, device in enumerate(devices):
        end_bytes += device.size_bytes
        width = max(0, round(end_bytes * cells_per_byte) - len(text))
        label = f"{device.name} {format_size(device.size_bytes)}"
        label = label if len(label) < width else device.name[:width]
        text.append(f"{label:^{width}}", style=_DEVICE_STYLES[number % len(_DEVICE_STYLES)])
    return text


def _urgency(space: Space) -> str:
    if space.available_percent < 15:
        return "red"
    return "yellow" if space.available_percent < 40 else "cyan"


def _space(space: Space) -> Text:
    return Text.assemble(
        (f"{_gib(space.used_bytes)} used", _urgency(space)),
        ", ",
        (f"{_gib(space.available_bytes)} available", "green"),
        f" ({space.available_percent:.0f} %) of {_gib(space.size_bytes)}",
    )


def _data(progress: Progress, done_bytes: int, total_bytes: int) -> Text:
    enospc = progress.writer.enospc if progress.writer else 0
    return Text.assemble(
        f"{_gib(done_bytes)} of {_gib(total_bytes)}, {_rate(progress)}, ",
        (f"ENOSPC {enospc}", "bold red" if enospc else "green"),
    )


def _growths(progress: Progress) -> Text:
    seconds = [f"{seconds:.1f} s" for seconds in progress.timer.growth_seconds]
    return Text(f"{len(seconds)}, in {', '.join(seconds)}" if seconds else "none yet")


def _log(progress: Progress) -> Text:
    shown = progress.log[-_LOG_LINES:]
    text = Text(no_wrap=True, overflow="ellipsis")
    for number in range(_LOG_LINES):
        if number < len(shown):
            at_seconds, line = shown[number]
            _append_line(text, at_seconds, line)
        text.append("\n" if number + 1 < _LOG_LINES else "")
    return text


def _append_line(text: Text, at_seconds: float, line: LogLine) -> None:
    text.append(f"{at_seconds:6.1f} s  ", style="dim")
    text.append(line.message, style=_LEVEL_STYLES.get(line.level, ""))
