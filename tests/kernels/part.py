"""The kernel tests that CI runs on Linux 6.1, which Debian 12 and Amazon Linux 2023 have.

Chosen are those of which the kernel decides the outcome, and which are short: the kernel runs in
user-mode Linux, where they take several times as long.
"""

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
