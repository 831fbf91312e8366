"""`make hostile`: a hostile user and foreign volumes beside growths, for an hour."""

import argparse
import random
import sys
from functools import partial

from tests.alone import alone
from tests.hostile.hour import hour


def main() -> int:
    """Attack; returns 1 when anything was wrong, 5 when it cannot run here."""
    arguments = _arguments()
    say = partial(print, flush=True)
    folder = alone("hostile-")
    say(f"seed {arguments.seed}: {arguments.minutes:g} minutes")
    tally = hour(seconds=arguments.minutes * 60, seed=arguments.seed, folder=folder, say=say)
    for title, figure in tally.summary():
        say(f"{title:<24}{figure}")
    for wrong in tally.wrongs:
        say(f"WRONG: {wrong}")
    say(f"seed {arguments.seed}: {'FAILED' if tally.wrongs else 'passed'}")
    return 1 if tally.wrongs else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 -- no secret
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
