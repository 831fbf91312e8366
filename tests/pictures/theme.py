"""The look of the pictures: GitHub's colours in its light and its dark theme."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours on a page of one kind; the background stays transparent."""

    name: str
    text: str
    muted: str
    grid: str
    blue: str
    green: str
    orange: str
    red: str


LIGHT = Theme(
    name="light",
    text="#1f2328",
    muted="#59636e",
    grid="#d1d9e0",
    blue="#0969da",
    green="#2da44e",
    orange="#bc4c00",
    red="#cf222e",
)
DARK = Theme(
    name="dark",
    text="#f0f6fc",
    muted="#9198a1",
    grid="#3d444d",
    blue="#4493f8",
    green="#3fb950",
    orange="#db6d28",
    red="#f85149",
)
THEMES = (LIGHT, DARK)


def apply(theme: Theme) -> None:
    """Set what every new figure of this theme has."""
    mpl.rc("svg", hashsalt="ebs-autoscale")  # the same ids in every run
    mpl.rc("font", family="DejaVu Sans", size=11)  # comes with matplotlib; drawn as paths
    mpl.rc("text", color=theme.text)
    mpl.rc("axes", labelcolor=theme.text, edgecolor=theme.grid, facecolor="none")
    mpl.rc("xtick", color=theme.muted)
    mpl.rc("ytick", color=theme.muted)
    mpl.rc("grid", color=theme.grid)
    mpl.rc("figure", facecolor="none")
    mpl.rc("savefig", facecolor="none")


def plain_axes(axes: Axes) -> None:
    """Horizontal grid lines, and no frame but the bottom."""
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.tick_params(length=0)


def save(figure: Figure, path: Path) -> None:
    """Write it as SVG, without the time of writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
