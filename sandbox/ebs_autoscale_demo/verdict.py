"""The verdict of the demo: its figures, and every requirement that was not met."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ebs_autoscale_demo.filesystem import Scrubbed
from ebs_autoscale_demo.sizes import counted, format_size
from ebs_autoscale_demo.workload import GROWTHS_WANTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a demo; `leaked` are volumes of the daemon that are in no filesystem."""

    growth_seconds: tuple[float, ...]
    size_bytes: int
    devices: int
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
        """Each requirement that was not met, as a sentence."""
        growths = len(self.growth_seconds)
        if growths < GROWTHS_WANTED:
            yield f"{counted(growths, 'growth')} instead of {GROWTHS_WANTED} or more"
        if self.enospc:
            yield f"the writer got ENOSPC {counted(self.enospc, 'time')}"
        if self.wrong_files:
            names = ", ".join(path.name for path in self.wrong_files)
            yield f"wrong checksums: {names}"
        if self.scrubbed.errors:
            yield f"the scrub found {counted(self.scrubbed.errors, 'error')}"
        if self.leaked:
            yield f"volumes that are not in the filesystem: {', '.join(self.leaked)}"
        if self.daemon_status:
            yield f"the daemon ended with status {self.daemon_status}"
        yield from (f"the simulated EC2: {problem}" for problem in self.problems)

    def print_to(self, console: Console) -> None:
        """Print a line for each figure and each failure."""
        for title, figure in self._rows():
            console.print(f"{title:<16}{figure}", highlight=False, soft_wrap=True)
        failures = list(self.failures())
        for failure in failures:
            console.print(f"FAILED: {failure}", style="bold red", highlight=False, soft_wrap=True)
        if not failures:
            console.print("all requirements met", style="bold green")

    def _rows(self) -> Iterator[tuple[str, str]]:
        seconds = ", ".join(f"{seconds:.1f} s" for seconds in self.growth_seconds)
        right = self.files - len(self.wrong_files)
        calls = ", ".join(f"{action} {count}" for action, count in self.ec2_calls.most_common())
        yield "growths", str(len(self.growth_seconds))
        yield "growth time", seconds or "none"
        yield "filesystem", f"{format_size(self.size_bytes)} on {counted(self.devices, 'device')}"
        yield "written", f"{format_size(self.written_bytes)} in {counted(self.files, 'file')}"
        yield "checksums", f"{right} of {self.files} correct"
        errors = counted(self.scrubbed.errors, "error")
        yield "scrub", f"{errors} in {format_size(self.scrubbed.size_bytes)}"
        yield "ENOSPC", str(self.enospc)
        yield "leaked volumes", str(len(self.leaked))
        yield "EC2 calls", f"{self.ec2_calls.total()}: {calls}"
        yield "duration", f"{self.seconds:.0f} s"
