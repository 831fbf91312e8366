"""The result of `make bench-fill` as an SVG picture."""

from collections.abc import Callable, Iterator, Sequence
from html import escape

from tests.bench.fill import Found, Limit, Sample

WIDTH, HEIGHT = 960, 420
_LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 60, 70, 380, 280
_RIGHT_LEFT = 540
_HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    ' font-family="sans-serif" font-size="13">'
)
_GREY, _BLUE, _RED = "#888888", "#1f6fb2", "#c23b22"


def svg(limit: Limit, found: Sequence[Found]) -> str:
    """Left the highest rates and the limit, right the available space in one trial of ours."""
    best = next(each for each in found if each.guard == "ours")
    survived = [trial for trial in best.trials if trial.survived] or best.trials
    shown = max(survived, key=lambda trial: trial.rate)
    title = f"survived rate of writing; limit {limit.rate / 1e6:.0f} MB/s"
    trace = f"one trial of ours: {shown.rate / 1e6:.0f} MB/s, {best.mode}"
    return "\n".join(
        [
            _HEAD,
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            _text(_LEFT, 40, title),
            *_bars(limit, found),
            _text(_RIGHT_LEFT, 40, trace),
            *_curves(shown.trace),
            "</svg>\n",
        ]
    )


def _bars(limit: Limit, found: Sequence[Found]) -> Iterator[str]:
    width = _PLOT_WIDTH / len(found)
    bottom = _TOP + _PLOT_HEIGHT
    scale = _PLOT_HEIGHT / (limit.rate * 1.1)
    for number, each in enumerate(found):
        left, tall = _LEFT + number * width, each.rate * scale
        colour = _BLUE if each.guard == "ours" else _RED
        yield (
            f'<rect x="{left + 10:.1f}" y="{bottom - tall:.1f}" width="{width - 20:.1f}"'
            f' height="{tall:.1f}" fill="{colour}"/>'
        )
        share = f"{each.rate / 1e6:.0f} MB/s, {each.rate / limit.rate:.0%}"
        yield _text(left + 2, bottom - tall - 6, share, size=11)
        yield _text(left + 10, bottom + 18, each.guard)
        yield _text(left + 10, bottom + 34, each.mode, size=11)
    top = bottom - limit.rate * scale
    yield _line([(_LEFT, top), (_LEFT + _PLOT_WIDTH, top)], _GREY, dashed=True)


def _curves(trace: Sequence[Sample]) -> Iterator[str]:
    bottom = _TOP + _PLOT_HEIGHT
    across = _PLOT_WIDTH / max(sample.seconds for sample in trace)
    down = _PLOT_HEIGHT / max(max(sample.available_bytes, sample.statvfs_bytes) for sample in trace)

    def curve(of: Callable[[Sample], int]) -> list[tuple[float, float]]:
        return [(_RIGHT_LEFT + k.seconds * across, bottom - of(k) * down) for k in trace]

    yield _line(curve(lambda sample: sample.statvfs_bytes), _RED)
    yield _line(curve(lambda sample: sample.available_bytes), _BLUE)
    yield _line([(_RIGHT_LEFT, bottom), (_RIGHT_LEFT + _PLOT_WIDTH, bottom)], _GREY)
    yield _text(_RIGHT_LEFT, bottom + 18, f"{trace[-1].seconds:.0f} s; blue: available as we read")
    yield _text(_RIGHT_LEFT, bottom + 34, "it, red: as df shows it")


def _line(points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>'


def _text(x: float, y: float, words: str, *, size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}">{escape(words)}</text>'
