"""How wide the output of a verb is."""

import os
import shutil
import sys


def columns() -> int | None:
    """The width of the terminal, or $COLUMNS; None where the output is a pipe or a file.

    There a finding stays on one line, for `grep`.
    """
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return None
