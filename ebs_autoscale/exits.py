"""Exit codes, as documented in --help, README and man page."""

from enum import IntEnum


class Exit(IntEnum):
    """What the exit status of every verb means."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    LOCKED = 3
    REFUSED = 4
    UNFIT = 5
