"""What `check` makes of the kernel, the tools and NVMe, from texts as hosts give them."""

import pytest

from ebs_autoscale.checks.host import kernel_line, no_btrfs_line, nvme_line, progs_line

FILESYSTEMS = "nodev\tsysfs\nnodev\ttmpfs\n\text4\n"
WITH_BTRFS = f"{FILESYSTEMS}\tbtrfs\n"
MODULES = "kernel/fs/btrfs/btrfs.ko.zst: kernel/lib/raid6/raid6_pq.ko.zst\n"


@pytest.mark.parametrize(
    ("release", "filesystems", "builtin", "modules", "verdict", "words"),
    [
        ("6.1.0-28-cloud-amd64", WITH_BTRFS, "", "", "ok", "with BTRFS"),
        ("6.8.0-1021-aws", FILESYSTEMS, "", MODULES, "ok", "with the first mount"),
        ("6.18.44", FILESYSTEMS, "kernel/fs/btrfs/btrfs.ko\n", "", "ok", "with the first mount"),
        ("6.1.0", FILESYSTEMS, "", "", "fail", "has no BTRFS"),
        ("4.18.0-553.el8_10", f"{FILESYSTEMS}\tnotbtrfs\n", "", "", "fail", "has no BTRFS"),
        ("5.4.0-1103-aws", WITH_BTRFS, "", "", "warn", "before 5.10"),
        ("5.10.0-33-amd64", WITH_BTRFS, "", "", "ok", "before 5.17 a paused balance"),
        ("5.17.0", WITH_BTRFS, "", "", "ok", "with BTRFS"),
    ],
)
def test_kernels(
    release: str, filesystems: str, builtin: str, modules: str, verdict: str, words: str
) -> None:
    """A kernel needs BTRFS, loaded or loadable, and an old one is told with what it does."""
    line = kernel_line(release, filesystems, builtin, modules)
    assert line.verdict == verdict
    assert words in line.sentence
    assert bool(line.hint) == (verdict != "ok")


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        ("btrfs-progs v6.2\n-EXPERIMENTAL -INJECT\n", "ok", "btrfs-progs v6.2"),
        ("btrfs-progs v6.6.3 \n", "ok", "v6.6.3"),
        ("btrfs-progs v5.16.2\n", "ok", "before 5.18 a paused balance"),
        ("btrfs-progs v5.4.1 \n", "warn", "before 5.10"),
        ("btrfs-progs v4.15.1\n", "warn", "before 5.10"),
        ("something else\n", "warn", "something else"),
    ],
)
def test_tools(answer: str, verdict: str, words: str) -> None:
    """The version that btrfs-progs names is told, and an old one with what it does."""
    line = progs_line(answer)
    assert line.verdict == verdict
    assert words in line.sentence


@pytest.mark.parametrize(
    ("release", "words", "hint"),
    [
        (
            {"ID": "amzn", "PRETTY_NAME": "Amazon Linux 2023"},
            "Amazon Linux 2023 has BTRFS in its kernel, but no package btrfs-progs",
            "build btrfs-progs from source, or use an image of Debian or Ubuntu",
        ),
        ({"ID": "debian"}, "not installed", "apt-get install btrfs-progs"),
        ({"ID": "pop", "ID_LIKE": "ubuntu debian"}, "not installed", "apt-get install btrfs-progs"),
        ({"ID": "fedora"}, "not installed", "install the package btrfs-progs"),
        ({}, "not installed", "install the package btrfs-progs"),
    ],
)
def test_without_btrfs_progs(release: dict[str, str], words: str, hint: str) -> None:
    """What to do without the tools depends on the distribution: Amazon Linux has no package."""
    line = no_btrfs_line(release)
    assert line.verdict == "fail"
    assert words in line.sentence
    assert line.hint == hint


@pytest.mark.parametrize(
    ("parameter", "queues", "verdict"),
    [
        ("", {}, "ok"),
        ("30\n", {}, "warn"),
        ("30\n", {"nvme0n1": "30000\n"}, "warn"),
        # Amazon Linux sets it by udev, device by device.
        ("30\n", {"nvme0n1": "4294967295\n", "nvme1n1": "4294967295\n"}, "ok"),
        ("4294967295\n", {"nvme0n1": "4294967295\n", "nvme1n1": "30000\n"}, "warn"),
        ("4294967295\n", {}, "ok"),
        ("255\n", {"nvme0n1": "255000\n"}, "ok"),
    ],
)
def test_patience_with_nvme(parameter: str, queues: dict[str, str], verdict: str) -> None:
    """A device that gives up early is told with the parameter that makes it wait."""
    line = nvme_line(parameter, queues)
    assert line.verdict == verdict
    assert ("nvme_core.io_timeout=4294967295" in line.hint) == (verdict == "warn")
