"""What a demo proved: counted where it happened, judged by one rule each, printed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ebs_autoscale.units import format_size
from ebs_autoscale_demo.filesystem import Scrubbed
from ebs_autoscale_demo.workload import GROWTHS_WANTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of a demo; `leaked` are volumes of the daemon that are in no filesystem."""

    growth_seconds: tuple[float, ...]
    size_bytes: int
    members: int
    written_bytes: int
    files: int
    wrong_files: tuple[Path, ...]
    enospc: int
    scrubbed: Scrubbed
    ec2_calls: Counter[str]
    leaked: tuple[str, ...]
    daemon_status: int
    problems: tuple[str, ...]
    seconds: float

    def failures(self) -> Iterator[str]:
        """Each promise that was not kept, as a sentence."""
        if len(self.growth_seconds) < GROWTHS_WANTED:
            yield f"{len(self.growth_seconds)} growths, not {GROWTHS_WANTED} or more"
        if self.enospc:
            yield f"a program saw ENOSPC {self.enospc} times"
        if self.wrong_files:
            names = ", ".join(path.name for path in self.wrong_files)
            yield f"wrong checksums: {names}"
        if self.scrubbed.errors:
            yield f"the scrub found {self.scrubbed.errors} errors"
        if self.leaked:
            yield f"volumes that are paid for and not used: {', '.join(self.leaked)}"
        if self.daemon_status:
            yield f"the daemon ended with status {self.daemon_status}"
        yield from (f"the sandbox: {problem}" for problem in self.problems)

    def print_to(self, console: Console) -> None:
        """The summary: a line for each figure, then what follows from them."""
        for title, figure in self._rows():
            console.print(f"{title:<16}{figure}", highlight=False, soft_wrap=True)
        failures = list(self.failures())
        for failure in failures:
            console.print(f"FAILED: {failure}", style="bold red", highlight=False, soft_wrap=True)
        if not failures:
            console.print("every promise kept", style="bold green")

    def _rows(self) -> Iterator[tuple[str, str]]:
        seconds = ", ".join(f"{seconds:.1f} s" for seconds in self.growth_seconds)
        right = self.files - len(self.wrong_files)
        calls = ", ".join(f"{action} {count}" for action, count in self.ec2_calls.most_common())
        yield "growths", str(len(self.growth_seconds))
        yield "low to grown", seconds or "never"
        yield "filesystem", f"{format_size(self.size_bytes)} on {self.members} members"
        yield "written", f"{format_size(self.written_bytes)} in {self.files} files"
        yield "checksums", f"{right} of {self.files} right"
        scrubbed = format_size(self.scrubbed.size_bytes)
        yield "scrub", f"{self.scrubbed.errors} errors in {scrubbed}"
        yield "ENOSPC", str(self.enospc)
        yield "leaked volumes", str(len(self.leaked))
        yield "EC2 calls", f"{self.ec2_calls.total()}: {calls}"
        yield "took", f"{self.seconds:.0f} s"
