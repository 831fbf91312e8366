"""`python -m ebs_autoscale.host.process COMMAND ...`: become it, ended when our parent ends."""

import os
import signal
import sys

from ebs_autoscale.host.sd_notify import die_with_parent


def main(argv: list[str]) -> int:
    """Replace this process, whose death signal stays; 127 when there is no such command.

    Not setpriv(1): it asks for capabilities, too, which a service that is confined may not.
    """
    die_with_parent(signal.SIGTERM)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 -- in the place of this process
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
