"""How wide the output of a verb is, what its terminal can show, and redrawing a screen in place."""

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import FrameType
from typing import Self

from ebs_autoscale.errors import Stopped

# No screen is wider, and $COLUMNS may be any number: the bar has that many characters.
_COLUMNS_MAX = 1000


class Paint(Enum):
    """What a part of the screen means; the value is its colour, as a terminal wants it."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    GOOD = "32"
    WARNING = "33"
    ALARM = "31"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the screen can show; `used`, `free` and `unallocated` are the parts of a bar.

    In a pipe `columns` is None: no line is wrapped.
    """

    columns: int | None = None
    colour: bool = False
    used: str = "#"
    free: str = "="
    unallocated: str = "-"

    def painted(self, text: str, paint: Paint) -> str:
        """The text in a colour, where there are any."""
        return f"\x1b[{paint.value}m{text}\x1b[0m" if self.colour and paint.value else text


def look_of_stdout() -> Look:
    """What the present terminal can show, or a pipe."""
    return terminal_look(
        columns(),
        is_terminal=sys.stdout.isatty(),
        encoding=sys.stdout.encoding,
        env=os.environ,
    )


def has_escapes(*, is_terminal: bool, env: Mapping[str, str]) -> bool:
    """Whether there is a terminal that takes escape sequences: colours, redrawing in place."""
    return is_terminal and env.get("TERM") != "dumb"


def terminal_look(
    width: int | None, *, is_terminal: bool, encoding: str, env: Mapping[str, str]
) -> Look:
    """What such a terminal or pipe can show."""
    colour = has_escapes(is_terminal=is_terminal, env=env) and not env.get("NO_COLOR")
    # In the C locale Python writes UTF-8 all the same, and sets LC_CTYPE so (PEP 538 and 540).
    coerced = env.get("LC_CTYPE") == "C.UTF-8"
    locale = env.get("LC_ALL") or (not coerced and env.get("LC_CTYPE")) or env.get("LANG") or ""
    if all("utf8" in name.lower().replace("-", "") for name in (encoding, locale)):
        return Look(columns=width, colour=colour, used="█", free="▒", unallocated="░")
    return Look(columns=width, colour=colour)


def columns() -> int | None:
    """The width of the terminal, or $COLUMNS; None where the output is a pipe or a file.

    There a finding stays on one line, for `grep`.
    """
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return min(shutil.get_terminal_size().columns, _COLUMNS_MAX)
    return None


class Screen:
    """The whole terminal, redrawn in place; as it was before, once this is left."""

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _stop)
        # The alternate screen, without cursor; a line that is too long would move all below it.
        _write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        return self

    def __exit__(self, *_: object) -> None:
        _write("\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l")

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, as far as they fit; without clearing first, which would flicker."""
        rows = max(2, shutil.get_terminal_size().lines - 1)
        if len(lines) > rows:
            hidden = len(lines) - rows + 1
            lines = [*lines[: rows - 1], f"... {hidden} more lines need a taller terminal"]
        _write("\x1b[H" + "".join(f"\x1b[K{line}\n" for line in lines) + "\x1b[J")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
