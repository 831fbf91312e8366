"""`python -m tests.pictures.chart FOLDER <RECORDING`: draw what `filling` recorded."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator, PercentFormatter

from tests.bench.ground import GIB
from tests.pictures.filling import Sample
from tests.pictures.theme import THEMES, Theme, apply, plain_axes, save

THRESHOLD_PERCENT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """From the decision to grow until the device is in the filesystem, then of `size_bytes`."""

    began_seconds: float
    ended_seconds: float
    size_bytes: int
    added_bytes: int


def growths_in(samples: Sequence[Sample]) -> Iterator[Growth]:
    """The growths that were completed, oldest first."""
    for number in range(1, samples[-1].device_count):
        began = next(each for each in samples if each.growths_begun >= number)
        ended = next(each for each in samples if each.device_count > number)
        before = next(each for each in reversed(samples) if each.device_count <= number)
        yield Growth(
            began_seconds=began.seconds,
            ended_seconds=ended.seconds,
            size_bytes=ended.size_bytes,
            added_bytes=ended.size_bytes - before.size_bytes,
        )


def draw(samples: Sequence[Sample], theme: Theme) -> Figure:
    """Above the bytes, used and available up to the capacity; below the share that is available."""
    apply(theme)
    figure = Figure(figsize=(9.2, 5.0), layout="constrained")
    space, share = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    growths = list(growths_in(samples))
    _draw_space(space, samples, theme)
    _draw_share(share, samples, theme)
    for axes in (space, share):
        plain_axes(axes)
        for growth in growths:
            axes.axvspan(
                growth.began_seconds, growth.ended_seconds, color=theme.orange, alpha=0.25, lw=0
            )
    _label_growths(space, growths, theme)
    _draw_legend(figure, theme)
    return figure


def _draw_space(axes: Axes, samples: Sequence[Sample], theme: Theme) -> None:
    seconds = [each.seconds for each in samples]
    capacity = [each.size_bytes / GIB for each in samples]
    used = [(each.size_bytes - each.available_bytes) / GIB for each in samples]
    axes.fill_between(seconds, used, capacity, color=theme.green, alpha=0.22, lw=0)
    axes.fill_between(seconds, used, color=theme.blue, alpha=0.55, lw=0)
    axes.plot(seconds, used, color=theme.blue, lw=1.5)
    axes.plot(seconds, capacity, color=theme.text, lw=1.8, drawstyle="steps-post")
    axes.set_ylabel("GiB")
    axes.set_ylim(0, max(capacity) * 1.12)
    axes.set_xlim(0, seconds[-1])


def _draw_share(axes: Axes, samples: Sequence[Sample], theme: Theme) -> None:
    seconds = [each.seconds for each in samples]
    percent = [100 * each.available_bytes / each.size_bytes for each in samples]
    axes.plot(seconds, percent, color=theme.green, lw=1.8)
    axes.axhline(THRESHOLD_PERCENT, color=theme.red, lw=1.2, linestyle=(0, (5, 3)))
    axes.set_ylabel("available")
    axes.annotate(
        f"threshold, {THRESHOLD_PERCENT} %",
        xy=(0, THRESHOLD_PERCENT),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        color=theme.red,
        size="small",
    )
    axes.set_xlabel("seconds since the job began")
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.yaxis.set_major_locator(MultipleLocator(25))


def _label_growths(axes: Axes, growths: Sequence[Growth], theme: Theme) -> None:
    for growth in growths:
        axes.annotate(
            f"+{growth.added_bytes / GIB:.0f} GiB",
            xy=(growth.ended_seconds, growth.size_bytes / GIB),
            xytext=(-4, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            color=theme.orange,
            weight="bold",
        )


def _draw_legend(figure: Figure, theme: Theme) -> None:
    figure.legend(
        handles=[
            Line2D([], [], color=theme.text, lw=1.8, label="capacity"),
            Patch(color=theme.green, alpha=0.4, lw=0, label="available"),
            Patch(color=theme.blue, alpha=0.7, lw=0, label="used"),
            Patch(color=theme.orange, alpha=0.4, lw=0, label="growing: create, attach, add"),
        ],
        loc="outside upper left",
        ncols=4,
        frameon=False,
    )


if __name__ == "__main__":
    recorded = [Sample(**each) for each in json.load(sys.stdin)]
    for each_theme in THEMES:
        save(draw(recorded, each_theme), Path(sys.argv[1]) / f"filling-{each_theme.name}.svg")
