"""A part of the kernel tests on Linux 6.1, which Debian 12 and Amazon Linux 2023 have.

Chosen are those of which the kernel decides the outcome, and which are short: the kernel runs in
user-mode Linux, where they take several times as long. `make test-older-kernel` runs all.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernels.guest import GuestFailed, run_tests, why_no_guest
from tests.system.bench import until
from tests.told import OLDER_KERNEL

pytestmark = pytest.mark.kernel

_PART = {
    "test_btrfs_add": (
        "test_adds_to_a_full_filesystem",
        "test_adds_where_metadata_is_full",
        "test_a_device_is_not_added_again",
    ),
    "test_btrfs_metadata": (
        "test_full_moves_metadata_to_the_new_device",
        "test_mirrored_metadata_with_room_is_left_alone",
    ),
    "test_btrfs_mount": (
        "test_remounted_read_only",
        "test_unmounted_later",
        "test_another_filesystem_in_its_place",
        "test_hidden_by_another_mount",
    ),
    "test_btrfs_reading": (
        "test_data_profiles_have_their_factor",
        "test_devices_have_their_kernel_names",
        "test_a_missing_device_has_no_name_and_no_room",
        "test_metadata_headroom_ends_where_metadata_does",
    ),
    "test_btrfs_repair": ("test_lasts_until_the_superblock_is_written",),
    "test_btrfs_reserve": ("test_is_released_for_an_add_near_enospc[data]",),
}
# ext4 cannot be extended without a capability that root on this machine may lack.
_IN_PLACE = (
    "test_grows_under_a_writer_at_enospc[ext4-partition]",
    "test_grows_under_a_writer_at_enospc[xfs-whole]",
    "test_ext4_with_errors[remount-ro]",
)
PART = [f"tests/kernel/{file}.py::{test}" for file, tests in _PART.items() for test in tests]
PART += [f"tests/kernels/in_place.py::{test}" for test in _IN_PLACE]
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
        run_tests(*PART, folder=tmp_path, seconds=1.0)

    def is_ours(cmdline: Path) -> bool:
        with suppress(OSError):  # a process that has ended
            return os.fsencode(tmp_path) in cmdline.read_bytes()
        return False

    until(lambda: not any(map(is_ours, Path("/proc").glob("[0-9]*/cmdline"))), "it to end")


def test_kernel_tests_on_an_older_kernel(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """They pass there, and none is skipped."""
    results = run_tests(*PART, folder=tmp_path, seconds=_SECONDS)
    assert not results.wrong, results.wrong
    record_property(OLDER_KERNEL, results.summary)
