"""How a demo looks: a live picture in a terminal, plain lines elsewhere."""

import sys

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ebs_autoscale.model import GIB, Device, Reading
from ebs_autoscale.units import format_size
from ebs_autoscale_demo.daemon import JournalLine
from ebs_autoscale_demo.progress import Scene
from ebs_autoscale_demo.watch import View

_PLAIN_EVERY_SECONDS = 2.0
_JOURNAL_LINES = 8
# The bar has this much room from the start, so that the filesystem can be seen to grow.
_BAR_GIB = 8
_MEMBER_STYLES = ("black on cyan", "black on green", "black on magenta", "black on yellow")
_LEVEL_STYLES = {"warning": "yellow", "error": "bold red"}


def view_for_stdout() -> View:
    """The picture for a terminal, lines for a pipe or a file."""
    return LiveView() if sys.stdout.isatty() else PlainView()


class PlainView:
    """A line for each act and each word of the daemon, and one every two seconds."""

    def __init__(self) -> None:
        self._act = ""
        self._journal_shown = 0
        self._next_seconds = 0.0

    def show(self, scene: Scene) -> None:
        """Print what is new."""
        if scene.act != self._act:
            self._act = scene.act
            _line(scene.elapsed_seconds, scene.act)
        for at_seconds, line in scene.journal[self._journal_shown :]:
            _line(at_seconds, f"daemon: {_sentence(line)}")
        self._journal_shown = len(scene.journal)
        if scene.reading and scene.elapsed_seconds >= self._next_seconds:
            self._next_seconds = scene.elapsed_seconds + _PLAIN_EVERY_SECONDS
            _line(scene.elapsed_seconds, _figures(scene, scene.reading))

    def close(self) -> None:
        """Nothing to leave."""


class LiveView:
    """One picture, drawn anew in place."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), auto_refresh=False)
        self._live.start()

    def show(self, scene: Scene) -> None:
        """Draw it."""
        self._live.update(picture(scene), refresh=True)

    def close(self) -> None:
        """Leave it standing, and give the cursor back."""
        self._live.stop()


def _line(at_seconds: float, text: str) -> None:
    sys.stdout.write(f"{at_seconds:6.1f} s  {text}\n")
    sys.stdout.flush()


def _sentence(line: JournalLine) -> str:
    level = "" if line.level == "info" else f"{line.level}: "
    return f"{level}{line.sentence}"


def _figures(scene: Scene, reading: Reading) -> str:
    done, of = scene.progress
    return (
        f"used {_gib(_used_bytes(reading))} of {_gib(reading.size_bytes)}, "
        f"available {_gib(reading.available_bytes)} ({reading.available_percent:.0f} %), "
        f"{len(reading.devices)} {'member' if len(reading.devices) == 1 else 'members'}, "
        f"{_rate(scene)}, {100 * done / of:.0f} % done; daemon: {scene.doing}"
    )


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / GIB:.2f} GiB"


def _used_bytes(reading: Reading) -> int:
    return reading.size_bytes - reading.available_bytes


def _rate(scene: Scene) -> str:
    verb = "checking" if scene.is_verifying else "filling"
    return f"{verb} at {scene.bytes_per_second / 1024**2:.0f} MiB/s"


def picture(scene: Scene) -> RenderableType:
    """The whole screen at this moment."""
    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(ratio=1)
    rows.add_row("now", Text(scene.act, style="bold"))
    if scene.reading:
        rows.add_row("filesystem", _SpaceBar(scene.reading))
        rows.add_row("", _space(scene.reading))
    if scene.writer:
        done, of = scene.progress
        rows.add_row("progress", ProgressBar(total=of, completed=done))
        rows.add_row("", _writing(scene, done, of))
    rows.add_row("daemon", Text(scene.doing, style="bold cyan" if scene.report else ""))
    rows.add_row("growths", _growths(scene))
    title = f"ebs-autoscale demo: real BTRFS, simulated EC2, {scene.elapsed_seconds:.0f} s"
    return Group(Panel(rows, title=title), Panel(_journal(scene), title="journal of the daemon"))


class _SpaceBar:
    """Used and available space, and below it the members that it is made of, to scale."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __rich_console__(self, console: Console, options: object) -> list[Text]:
        del console
        width = getattr(options, "max_width", 80)
        reading = self._reading
        cells = width / max(_BAR_GIB * GIB, reading.size_bytes)
        whole = round(reading.size_bytes * cells)
        used = min(whole, round(_used_bytes(reading) * cells))
        space = Text()
        space.append("█" * used, style=_urgency(reading))
        space.append("░" * (whole - used), style="green")
        space.append("·" * (width - whole), style="bright_black")
        return [space, _members(reading.devices, cells)]


def _members(members: tuple[Device, ...], cells_per_byte: float) -> Text:
    text = Text(no_wrap=True)
    end_bytes = 0
    for number, member in enumerate(members):
        end_bytes += member.size_bytes
        width = max(0, round(end_bytes * cells_per_byte) - len(text))
        label = f"{member.name} {format_size(member.size_bytes)}"
        label = label if len(label) < width else member.name[:width]
        text.append(f"{label:^{width}}", style=_MEMBER_STYLES[number % len(_MEMBER_STYLES)])
    return text


def _urgency(reading: Reading) -> str:
    if reading.available_percent < 15:
        return "red"
    return "yellow" if reading.available_percent < 40 else "cyan"


def _space(reading: Reading) -> Text:
    return Text.assemble(
        (f"{_gib(_used_bytes(reading))} used", _urgency(reading)),
        ", ",
        (f"{_gib(reading.available_bytes)} available", "green"),
        f" ({reading.available_percent:.0f} %) of {_gib(reading.size_bytes)}",
    )


def _writing(scene: Scene, done: int, of: int) -> Text:
    enospc = scene.writer.enospc if scene.writer else 0
    return Text.assemble(
        f"{_gib(done)} of {_gib(of)}, {_rate(scene)}, ",
        (f"ENOSPC {enospc}", "bold red" if enospc else "green"),
    )


def _growths(scene: Scene) -> Text:
    seconds = [f"{seconds:.1f} s" for seconds in scene.stopwatch.growth_seconds]
    return Text(f"{len(seconds)}, low to grown in {', '.join(seconds)}" if seconds else "none yet")


def _journal(scene: Scene) -> Text:
    shown = scene.journal[-_JOURNAL_LINES:]
    text = Text(no_wrap=True, overflow="ellipsis")
    for number in range(_JOURNAL_LINES):
        if number < len(shown):
            at_seconds, line = shown[number]
            text.append(f"{at_seconds:6.1f} s  ", style="dim")
            text.append(line.sentence, style=_LEVEL_STYLES.get(line.level, ""))
        text.append("\n" if number + 1 < _JOURNAL_LINES else "")
    return text
