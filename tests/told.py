"""What tests measure besides passing, told in the end of a run."""

from statistics import median

import pytest

CONVERGED = "seconds to converge"
"""What a test records of itself: how long the world took to be right again after a kill."""

EXPOSURE = "exposure"
"""What a test records of a unit: how exposed systemd finds it."""


def tell(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long converging took, and how exposed the units are."""
    told = [
        (name, value)
        for report in terminalreporter.stats.get("passed", [])
        for name, value in getattr(report, "user_properties", [])
    ]
    seconds = [value for name, value in told if name == CONVERGED]
    if seconds:
        figures = f"after {median(seconds):.1f} s at the median, {max(seconds):.1f} s at most"
        terminalreporter.write_line(f"killed {len(seconds)} times: converged {figures}")
    for name, value in told:
        if name == EXPOSURE:
            terminalreporter.write_line(f"exposure of {value}")
