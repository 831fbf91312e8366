"""What `check` says of the kernel, the tools and NVMe, from texts as hosts give them."""

import platform
from pathlib import Path

import pytest

from ebs_autoscale.checks.host import kernel_line, log, nvme_line, progs_line
from ebs_autoscale.host import paths
from ebs_autoscale.host.requirements import how_to_install_btrfs
from ebs_autoscale.model import FilesystemKind

FILESYSTEMS = "nodev\tsysfs\nnodev\ttmpfs\n\text4\n"
WITH_BTRFS = f"{FILESYSTEMS}\tbtrfs\n"
MODULES = "kernel/fs/btrfs/btrfs.ko.zst: kernel/lib/raid6/raid6_pq.ko.zst\n"


@pytest.mark.parametrize(
    ("release", "filesystems", "builtin", "modules", "verdict"),
    [
        ("6.1.0-28-cloud-amd64", WITH_BTRFS, "", "", "ok"),
        ("6.8.0-1021-aws", FILESYSTEMS, "", MODULES, "ok"),
        ("6.18.44", FILESYSTEMS, "kernel/fs/btrfs/btrfs.ko\n", "", "ok"),
        ("6.1.0", FILESYSTEMS, "", "", "fail"),
        ("4.18.0-553.el8_10", f"{FILESYSTEMS}\tnotbtrfs\n", "", "", "fail"),
        ("5.4.0-1103-aws", WITH_BTRFS, "", "", "fail"),
        ("5.10.0-33-amd64", WITH_BTRFS, "", "", "ok"),
        ("5.17.0", WITH_BTRFS, "", "", "ok"),
    ],
)
def test_kernels(release: str, filesystems: str, builtin: str, modules: str, verdict: str) -> None:
    """A kernel needs BTRFS, loaded or loadable, and at least 5.10."""
    line = kernel_line(release, filesystems, builtin, modules, kind=FilesystemKind.BTRFS)
    assert line.verdict == verdict
    assert release in line.sentence
    assert bool(line.hint) == (verdict != "ok")


@pytest.mark.parametrize(
    ("kind", "filesystems", "modules", "verdict"),
    [
        (FilesystemKind.EXT4, FILESYSTEMS, "", "ok"),
        (FilesystemKind.XFS, FILESYSTEMS, "kernel/fs/xfs/xfs.ko.xz: \n", "ok"),
        (FilesystemKind.XFS, WITH_BTRFS, MODULES, "fail"),
    ],
)
def test_kernels_without_btrfs(
    kind: FilesystemKind, filesystems: str, modules: str, verdict: str
) -> None:
    """What matters is the kind that is mounted or to be mounted; BTRFS is not needed for others."""
    line = kernel_line("4.18.0-553.el8_10", filesystems, "", modules, kind=kind)
    assert line.verdict == verdict
    assert kind in line.sentence
    assert "BTRFS" not in f"{line.sentence} {line.hint}"


@pytest.mark.parametrize(
    ("answer", "verdict", "named"),
    [
        ("btrfs-progs v6.2\n-EXPERIMENTAL -INJECT\n", "ok", "btrfs-progs v6.2"),
        ("btrfs-progs v6.6.3 \n", "ok", "v6.6.3"),
        ("btrfs-progs v5.16.2\n", "ok", "before 5.18"),
        ("btrfs-progs v5.4.1 \n", "warn", "before 5.10"),
        ("btrfs-progs v4.15.1\n", "warn", "before 5.10"),
        ("something else\n", "warn", "something else"),
    ],
)
def test_tools(answer: str, verdict: str, named: str) -> None:
    """The line has the version of btrfs-progs, and what an old one cannot do."""
    line = progs_line(answer)
    assert line.verdict == verdict
    assert named in line.sentence


@pytest.mark.parametrize(
    ("release", "wanted"),
    [
        ({"ID": "amzn", "ID_LIKE": "fedora"}, "/usr/local/sbin/mkfs.btrfs"),
        ({"ID": "debian"}, "apt-get install btrfs-progs"),
        ({"ID": "pop", "ID_LIKE": "ubuntu debian"}, "apt-get install btrfs-progs"),
        ({"ID": "fedora"}, "install the package btrfs-progs"),
        ({}, "install the package btrfs-progs"),
    ],
)
def test_without_btrfs_progs(
    monkeypatch: pytest.MonkeyPatch, release: dict[str, str], wanted: str
) -> None:
    """What to do without the tools depends on the distribution: Amazon Linux has no package."""
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    assert wanted in how_to_install_btrfs()


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
def test_the_timeout_of_nvme(parameter: str, queues: dict[str, str], verdict: str) -> None:
    """A short timeout is reported with the parameter that makes it longer."""
    line = nvme_line(parameter, queues)
    assert line.verdict == verdict
    assert ("nvme_core.io_timeout=4294967295" in line.hint) == (verdict == "warn")


def test_the_folder_of_the_log_is_made_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Until then the space is that of the folder which it will be in."""
    monkeypatch.setattr(paths, "LOG_FILE", tmp_path / "log/of/it.log")
    [line] = log()
    assert line.verdict == "ok"
    assert str(tmp_path) in line.sentence
