"""`python -m tests.pictures.screen FILE`: play the demo, save its screen during a growth as SVG."""

import re
import sys
from io import StringIO
from pathlib import Path

from ebs_autoscale_demo import demo
from ebs_autoscale_demo.progress import Progress
from ebs_autoscale_demo.screen import picture
from rich.console import Console
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


class ScreenShot:
    """Keeps the screen as it was last while the third volume was being added."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._svg = ""

    def show(self, progress: Progress) -> None:
        """Keep it when it is the moment."""
        devices = len(progress.space.devices) if progress.space else 0
        if devices == _DEVICES and progress.status.get("state") == "growing":
            console = Console(file=StringIO(), record=True, width=_COLUMNS, force_terminal=True)
            console.print(picture(progress))
            self._svg = console.export_svg(title="make demo", theme=_THEME, unique_id="demo")

    def close(self) -> None:
        """Save it, without the fonts that rich would have the reader fetch from a third party."""
        own = re.sub(r"@font-face \{.*?\}\s*", "", self._svg, flags=re.DOTALL)
        self._file.write_text(own, "utf-8")


if __name__ == "__main__":
    sys.exit(demo.run(rate_bytes_per_second=None, screen=ScreenShot(Path(sys.argv[1]).absolute())))
