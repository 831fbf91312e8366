"""`python -m tests.chaos`: hundreds of growths under faults, on real BTRFS."""

import argparse
import random
import sys
from functools import partial

from tests.alone import alone
from tests.chaos.campaign import campaign


def main() -> int:
    """Run the campaign; returns 1 when anything was wrong, 5 when it cannot run here."""
    arguments = _arguments()
    say = partial(print, flush=True)
    folder = alone("chaos-")
    say(f"seed {arguments.seed}: {arguments.growths} growths on {arguments.hosts} hosts")
    tally = campaign(
        growths=arguments.growths,
        hosts=arguments.hosts,
        seed=arguments.seed,
        seconds=arguments.minutes * 60,
        folder=folder,
        say=say,
    )
    for title, figure in tally.summary():
        say(f"{title:<16}{figure}")
    for wrong in tally.wrongs:
        say(f"WRONG: {wrong}")
    say(f"seed {arguments.seed}: {'FAILED' if tally.wrongs else 'passed'}")
    return 1 if tally.wrongs else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--growths", type=int, default=500)
    parser.add_argument("--hosts", type=int, default=10, help="number of hosts in parallel")
    parser.add_argument("--minutes", type=float, default=30, help="time limit of the run")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 -- no secret
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
