"""`python -m tests.bench`: measurements on this machine, each with a reference."""

import argparse
import sys
from functools import partial
from pathlib import Path

from ebs_autoscale.model import FilesystemKind
from tests.alone import alone
from tests.bench import accuracy, cost, fill, imds, notified, picture, scenarios, storm
from tests.simulated import programs


def main() -> int:
    """Run the measurements; returns 1 when a target was missed, 5 when they cannot run here."""
    arguments = _arguments()
    say = partial(print, flush=True)
    folder = alone("bench-")
    wrong: list[str] = []
    for what in arguments.what or WHAT:
        say(f"== {what}")
        wrong += WHAT[what](folder, arguments, say)
    for each in wrong:
        say(f"WRONG: {each}")
    return 1 if wrong else 0


def _fill(folder: Path, arguments: argparse.Namespace, say: fill.Say) -> list[str]:
    kind = FilesystemKind(arguments.filesystem)
    guards = list(fill.GUARDS) if arguments.quick_df else ["ours", "reference"]
    if not kind.takes_devices:
        # The reference adds devices.
        guards = ["ours"]
    make, size_bytes = fill.host_maker(folder, kind), fill.SIZE_BYTES[kind]
    limit, found = fill.run(
        make, say, size_bytes=size_bytes, trials=arguments.trials, guards=guards
    )
    for line in fill.table(limit, found):
        say(line)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    arguments.picture.write_text(picture.svg(limit, found), "utf-8")
    say(f"picture: {arguments.picture}")
    return fill.broken(limit, found)


def _accuracy(folder: Path, _: argparse.Namespace, say: fill.Say) -> list[str]:
    found = accuracy.run(folder)
    for line in accuracy.table(found):
        say(line)
    return [
        f"{each.devices} devices, {each.profile}, {each.mode}: a reading misses the target"
        for each in found
        if not each.good
    ]


def _storm(folder: Path, _: argparse.Namespace, say: fill.Say) -> list[str]:
    storms = [storm.storm(folder, guard) for guard in ("ours", "reference")]
    for line in storm.table(storms):
        say(line)
    return [] if storms[0].survived else ["ENOSPC while small files were written"]


def _scenarios(folder: Path, _: argparse.Namespace, say: fill.Say) -> list[str]:
    say(scenarios.HEADING)
    wrong = []
    for name in scenarios.SCENARIOS:
        found = scenarios.play(folder, name)
        say(found.told)
        wrong += [] if found.good else [f"{name}: ENOSPC, or too many growths"]
    return wrong


def _cost(folder: Path, _: argparse.Namespace, say: fill.Say) -> list[str]:
    figures = cost.measure(folder)
    for figure in figures:
        say(figure.told)
    return []


def _imds(folder: Path, _: argparse.Namespace, say: fill.Say) -> list[str]:
    limit = fill.measure_limit(fill.host_maker(folder), fill.SIZE_BYTES[FilesystemKind.BTRFS])
    say(limit.told)
    say(imds.HEADING)
    found = []
    for case in imds.CASES:
        found.append(imds.play(folder, case, rate=imds.RATE_SHARE * limit.rate))
        say(found[-1].told)
    return [f"{each.case}: ENOSPC" for each in found if each.enospc]


def _workloads(_folder: Path, _: argparse.Namespace, say: fill.Say) -> list[str]:
    for line in programs.table():
        say(line)
    return []


def _notify(folder: Path, _: argparse.Namespace, say: fill.Say) -> list[str]:
    for line in notified.table(folder):
        say(line)
    return []


WHAT = {
    "workloads": _workloads,
    "cost": _cost,
    "accuracy": _accuracy,
    "scenarios": _scenarios,
    "storm": _storm,
    "fill": _fill,
    "imds": _imds,
    "notify": _notify,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="*", help=f"{', '.join(WHAT)}; default: all")
    parser.add_argument("--trials", type=int, default=3, help="steps of each bisection of fill")
    parser.add_argument(
        "--quick-df", action="store_true", help="fill: also a poller of df with our own growths"
    )
    parser.add_argument(
        "--filesystem", choices=list(FilesystemKind), default="btrfs", help="what fill fills"
    )
    parser.add_argument("--picture", type=Path, default=Path("build/bench-fill.svg"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
