"""What the tests of the packaging tell in the end."""

import pytest

EXPOSURE = "exposure"
"""What a test records of a unit: how exposed systemd finds it."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how exposed the units are."""
    for report in terminalreporter.stats.get("passed", []):
        for name, value in getattr(report, "user_properties", []):
            if name == EXPOSURE:
                terminalreporter.write_line(f"exposure of {value}")
