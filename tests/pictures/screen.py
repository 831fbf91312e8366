"""`python -m tests.pictures.screen FILE`: play the demo, save its screen during a growth as SVG."""

import re
import sys
from io import StringIO
from pathlib import Path

from ebs_autoscale_demo import demo
from ebs_autoscale_demo.progress import Progress
from ebs_autoscale_demo.screen import picture
from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

_COLUMNS = 96
_DEVICES = 3
# A dark terminal in the colours of GitHub's dark theme.
_THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [
        (13, 17, 23),
        (255, 123, 114),
        (63, 185, 80),
        (210, 153, 34),
        (88, 166, 255),
        (188, 140, 255),
        (57, 197, 207),
        (230, 237, 243),
    ],
    [
        (110, 118, 129),
        (255, 161, 152),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (255, 255, 255),
    ],
)


def save(file: Path, screen: RenderableType, *, columns: int, title: str) -> None:
    """Save a screen, without the fonts that rich would have the reader fetch from a third party."""
    console = Console(file=StringIO(), record=True, width=columns, force_terminal=True)
    console.print(screen)
    svg = console.export_svg(title=title, theme=_THEME, unique_id=file.stem)
    file.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), "utf-8")


class ScreenShot:
    """Keeps the screen as it was last while the third volume was being added."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._screen: RenderableType | None = None

    def show(self, progress: Progress) -> None:
        """Keep it when it is the moment."""
        devices = len(progress.space.devices) if progress.space else 0
        if devices == _DEVICES and progress.status.get("state") == "growing":
            self._screen = picture(progress)

    def close(self) -> None:
        """Save it."""
        if self._screen:
            save(self._file, self._screen, columns=_COLUMNS, title="make demo")


if __name__ == "__main__":
    sys.exit(demo.run(rate_bytes_per_second=None, screen=ScreenShot(Path(sys.argv[1]).absolute())))
