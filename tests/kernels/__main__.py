"""`make test-older-kernel`: kernel tests on Linux 6.1 in user-mode Linux.

All by default; `part` is those of `tests.kernels.part`.
"""

import sys
import tempfile
from pathlib import Path

from tests.kernels.guest import GuestFailed, run_tests, why_no_guest
from tests.kernels.part import PART

_SECONDS = 5400.0


def main(selection: list[str]) -> str:
    """What passed; exits with what did not."""
    if reason := why_no_guest():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="ebs-kernel-") as folder:
        try:
            results = run_tests(*selection, folder=Path(folder), seconds=_SECONDS)
        except GuestFailed as error:
            sys.exit(str(error))
    if results.wrong:
        sys.exit(f"{results.summary}\n\n{results.wrong}")
    return results.summary


if __name__ == "__main__":
    selection = sys.argv[1:] or ["tests/kernel", "tests/kernels/in_place.py"]
    sys.stdout.write(main(PART if selection == ["part"] else selection) + "\n")
