"""`history --plot`: the capacity that growths have added over time, as an SVG."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from ebs_autoscale.model import GIB
from ebs_autoscale.telemetry.history import Alarm, History
from ebs_autoscale.units import counted, printable

_WIDTH, _HEIGHT = 860, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 840, 48, 268
# Below the axis: one row for refusals, one for alarms.
_ROWS = {"refused": (_BOTTOM + 42, "#db6d28"), "alarm": (_BOTTOM + 64, "#e5534b")}
# Both readable on a light and on a dark page.
_TEXT, _LINE = "#808890", "#2f81f7"
_TICKS = 4


def svg_of(history: History) -> str:
    """The picture; a mark has its sentence as a tooltip."""
    top_gib = _rounded_up(history.added_bytes / GIB)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return "\n".join(
        [
            f'{head} font-family="sans-serif" font-size="12" fill="{_TEXT}">',
            _text(_LEFT, 22, _title(history), 'font-size="15"'),
            *_axes(history, top_gib),
            f'<path d="{_steps(history, top_gib)}" fill="none" stroke="{_LINE}" stroke-width="2"/>',
            *_growths(history, top_gib),
            *_marks("refused", history.refusals, history),
            *_marks("alarm", history.alarms, history),
            "</svg>\n",
        ]
    )


def _title(history: History) -> str:
    where = f"{history.mountpoint}: " if history.mountpoint else ""
    growths = counted(len(history.growths), "growth")
    return f"{where}capacity added by {growths} since {_local(history.since_seconds)}"


def _axes(history: History, top_gib: float) -> Iterator[str]:
    yield _text(_LEFT - 8, _TOP - 10, "GiB added", 'text-anchor="end"')
    for tick in range(_TICKS + 1):
        gib = top_gib * tick / _TICKS
        y = _y(gib * GIB, top_gib)
        yield f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="{_TEXT}" stroke-opacity="0.3"/>'
        yield _text(_LEFT - 8, y + 4, f"{gib:g}", 'text-anchor="end"')
        span = history.until_seconds - history.since_seconds
        seconds = history.since_seconds + span * tick / _TICKS
        anchor = "start" if tick == 0 else "end" if tick == _TICKS else "middle"
        place = _x(seconds, history)
        yield _text(place, _BOTTOM + 20, _local(seconds), f'text-anchor="{anchor}"')
    for name, (y, _) in _ROWS.items():
        yield _text(_LEFT - 8, y + 9, name, 'text-anchor="end"')


def _steps(history: History, top_gib: float) -> str:
    path, added = f"M{_LEFT} {_BOTTOM}", 0
    for growth in history.growths:
        added += growth.size_bytes or 0
        path += f"H{_x(growth.at_seconds, history):.1f}V{_y(added, top_gib):.1f}"
    return f"{path}H{_RIGHT}"


def _growths(history: History, top_gib: float) -> Iterator[str]:
    added = 0
    for growth in history.growths:
        added += growth.size_bytes or 0
        x, y = _x(growth.at_seconds, history), _y(added, top_gib)
        told = f"{_local(growth.at_seconds)} growth {growth.growth} {growth.volume}"
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_LINE}">{_tooltip(told)}</circle>'


def _marks(row: str, alarms: Sequence[Alarm], history: History) -> Iterator[str]:
    y, colour = _ROWS[row]
    for alarm in alarms:
        began = _x(alarm.began_seconds, history)
        ended = _x(alarm.ended_seconds or history.until_seconds, history)
        told = f"{_local(alarm.began_seconds)} {alarm.cause}: {alarm.sentence}"
        yield (
            f'<rect x="{began - 1:.1f}" y="{y}" width="{max(3.0, ended - began):.1f}" height="10"'
            f' fill="{colour}">{_tooltip(told)}</rect>'
        )


def _x(seconds: float, history: History) -> float:
    span = max(1.0, history.until_seconds - history.since_seconds)
    share = (seconds - history.since_seconds) / span
    return _LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0)


def _y(size_bytes: float, top_gib: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * size_bytes / GIB / top_gib


def _rounded_up(gib: float) -> float:
    """The end of an axis: 4, 8, 12, 20 or 40, or ten or a hundred times as much, and so on."""
    scale = 1.0
    while gib > 40 * scale:
        scale *= 10
    return next(scale * nice for nice in (4, 8, 12, 20, 40) if gib <= scale * nice)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(printable(text))}</text>'


def _tooltip(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
