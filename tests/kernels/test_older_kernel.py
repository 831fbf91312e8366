"""What goes wrong in tests on Linux 6.1 is told; `make test-older-kernel` runs such tests."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernels.guest import GuestFailed, run_tests, why_no_guest
from tests.system.bench import until

pytestmark = pytest.mark.kernel

_SECONDS = 300.0


@pytest.fixture(autouse=True)
def guest() -> None:
    """Without user-mode Linux the tests are skipped, and fail in CI."""
    if reason := why_no_guest():
        if os.environ.get("CI") == "true":
            pytest.fail(f"an older kernel has to run in CI: {reason}", pytrace=False)
        pytest.skip(reason)


# Collected on the other kernel.
_TESTS = """
from pathlib import Path
import pytest

def test_host_is_read_only():
    with pytest.raises(OSError, match="Read-only"):
        Path(__file__).write_text("overwritten")

def test_fails():
    assert False, "on purpose"

def test_is_skipped():
    pytest.skip("on purpose")
"""


def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    """Tests that fail or are skipped there are told with the reason, and change nothing here."""
    place = tmp_path / "test_there.py"
    place.write_text(_TESTS, "ascii")
    folder = tmp_path / "guest"
    folder.mkdir()
    results = run_tests(str(place), folder=folder, seconds=_SECONDS)
    outcomes = (results.passed, list(results.failed), list(results.skipped))
    names = [[each.rpartition("::")[2] for each in names] for names in outcomes]
    assert names == [["test_host_is_read_only"], ["test_fails"], ["test_is_skipped"]]
    assert results.wrong.count("on purpose") >= 2
    assert place.read_text("ascii") == _TESTS


def test_a_kernel_that_does_not_end(tmp_path: Path) -> None:
    """After its time the other kernel is killed, with all of its processes."""
    with pytest.raises(GuestFailed, match="took more than 1 s"):
        run_tests(str(tmp_path), folder=tmp_path, seconds=1.0)

    def is_ours(cmdline: Path) -> bool:
        with suppress(OSError):  # a process that has ended
            return os.fsencode(tmp_path) in cmdline.read_bytes()
        return False

    until(lambda: not any(map(is_ours, Path("/proc").glob("[0-9]*/cmdline"))), "it to end")
