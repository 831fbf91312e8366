"""The statistics of EBS volumes on NVMe, and why a job is slow."""

import ctypes
import fcntl
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.cli import throttled
from ebs_autoscale.cli.throttled import Throttled, Throttling, sentences
from ebs_autoscale.ec2 import ebs_statistics
from ebs_autoscale.ec2.ebs_statistics import Exceeded, parse
from ebs_autoscale.model import GIB, Device, VolumeSpec

MAGIC = 0x3C23B510
NVME1 = Device(devid=1, name="nvme1n1", size_bytes=100 * GIB, unallocated_bytes=0)
VOLUMES = {"nvme1n1": "vol-0123456789abcdef0"}


def page_of(*times_us: int, magic: int = MAGIC) -> bytes:
    """A log page as EBS has it: magic, reserved, six counters, these four, queue, histograms."""
    counters = struct.pack("<II6Q4Q", magic, 0, *range(1, 7), *times_us)
    return counters.ljust(4096, b"\xff")


def test_what_ebs_counts() -> None:
    """Microseconds at offsets 56 to 80 of the page."""
    page = page_of(1_000_000, 2_500_000, 0, 2**64 - 1)
    assert struct.unpack_from("<4Q", page, 56) == (1_000_000, 2_500_000, 0, 2**64 - 1)
    assert parse(page) == Exceeded(1.0, 2.5, 0.0, (2**64 - 1) / 1e6)


@given(st.binary(max_size=5000))
def test_any_other_page_is_none(content: bytes) -> None:
    """Of another vendor, of an older EBS, or cut off."""
    assert parse(content) is None or content[:4] == struct.pack("<I", MAGIC)
    assert parse(page_of(0, 0, 0, 0)[:87]) is None


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Get Log Page 0xD0 of namespace 1, 4096 bytes, as the kernel's nvme_admin_cmd has it."""
    asked = []

    def answer(_fd: int, request: int, command: bytearray) -> int:
        asked.append((request, bytes(command)))
        page = page_of(1, 2, 3, 4)
        ctypes.memmove(struct.unpack_from("<Q", command, 24)[0], page, len(page))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", answer)
    page = ebs_statistics._log_page(0)  # noqa: SLF001 -- no real device answers in a test
    assert parse(page) == Exceeded(1e-6, 2e-6, 3e-6, 4e-6)
    [(request, command)] = asked
    assert (request, len(command)) == (0xC0484E41, 72)
    opcode, namespace, length = command[0], command[4:8], command[36:40]
    assert (opcode, namespace, length) == (2, b"\1\0\0\0", b"\0\x10\0\0")
    # Log page 0xD0, 1023 dwords and one; no time limit, with which the kernel resets the device.
    assert struct.unpack_from("<IIIIIII", command, 40) == (0xD0 | 1023 << 16, 0, 0, 0, 0, 0, 0)


def test_no_other_device_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model tells EBS from instance store; without any, no process starts."""
    monkeypatch.setattr(subprocess, "Popen", pytest.fail)
    names = [path.name for path in Path("/sys/class/block").iterdir()]
    assert ebs_statistics.exceeded([*names, "../nvme1n1", ""]) == {}


def test_a_device_that_cannot_be_asked_costs_its_line(tmp_path: Path) -> None:
    """As one that is gone, or that knows no such command."""
    argv = [sys.executable, "-I", "-m", ebs_statistics.__name__, "null", "nvme99n1"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def looking(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> tuple[Throttling, list[Any]]:
    """One whose devices answer so, and the answers that are left."""
    left = list(answers)
    monkeypatch.setattr(throttled, "exceeded", lambda _names: left.pop(0))
    return Throttling(), left


def test_what_came_since_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked once a second at the most; a volume that was attached anew counts from 0."""
    first = {"nvme1n1": Exceeded(1, 1, 1, 1)}
    then = {"nvme1n1": Exceeded(2, 1, 1, 1), "nvme2n1": Exceeded(9, 9, 9, 9)}
    anew = {"nvme1n1": Exceeded(0.5, 0, 0, 0)}
    watch, left = looking(monkeypatch, first, then, anew)
    assert watch.look([NVME1], 100.0) == Throttled(first)
    assert watch.look([NVME1], 100.5) == Throttled(first)
    assert len(left) == 2
    assert watch.look([NVME1], 102.0) == Throttled({"nvme1n1": Exceeded(1, 0, 0, 0)}, 2.0)
    assert watch.look([NVME1], 103.0) == Throttled({"nvme1n1": Exceeded(0.5, 0, 0, 0)}, 3.0)


def test_one_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks after that are not delayed."""
    watch, left = looking(monkeypatch, None, pytest.fail)
    assert watch.look([NVME1], 100.0) == Throttled()
    assert watch.look([NVME1], 200.0) == Throttled()
    assert left == [pytest.fail]


@pytest.mark.parametrize(
    ("spec", "exceeded", "wanted"),
    [
        (VolumeSpec(), Exceeded(0, 6.2, 0, 0), ["throughput", "--throughput 250`", " 5.00 USD"]),
        (VolumeSpec(), Exceeded(6.2, 0, 0, 0), ["IOPS", "--iops 6000`", " 15.00 USD"]),
        (
            VolumeSpec(throughput_mib_per_second=500),
            Exceeded(0, 6.2, 0, 0),
            ["--throughput 1000 --iops 4000`", " 25.00 USD"],
        ),
        (VolumeSpec(type="gp2"), Exceeded(0, 6.2, 0, 0), ["gp2", "volume.type"]),
        (VolumeSpec(type="gp2"), Exceeded(6.2, 0, 0, 0), ["gp2", "volume.type"]),
        (VolumeSpec(type="io2", iops=100), Exceeded(6.2, 0, 0, 0), ["--iops 200`", " 6.50 USD"]),
        (VolumeSpec(), Exceeded(0, 0, 0, 6.2), ["instance type"]),
        (VolumeSpec(), Exceeded(0, 0, 6.2, 0), ["instance type"]),
    ],
)
def test_why_a_job_is_slow(spec: VolumeSpec, exceeded: Exceeded, wanted: list[str]) -> None:
    """Which limit, for how long, and what is faster, with its price."""
    found = Throttled({"nvme1n1": exceeded}, 10.0)
    [sentence] = sentences(found, [NVME1], VOLUMES, spec)
    assert "6.2 s of the last 10 s" in sentence
    assert all(words in sentence for words in wanted), sentence


def test_little_is_no_reason() -> None:
    """Less than a twentieth of the time, and what may have been long ago."""
    little = {"nvme1n1": Exceeded(0.4, 0.4, 0.4, 0.4)}
    assert list(sentences(Throttled(little, 10.0), [NVME1], VOLUMES, VolumeSpec())) == []
    long_ago = {"nvme1n1": Exceeded(1e6, 1e6, 1e6, 1e6)}
    assert list(sentences(Throttled(long_ago), [NVME1], VOLUMES, VolumeSpec())) == []
    assert len(list(sentences(Throttled(little, 5.0), [NVME1], VOLUMES, VolumeSpec()))) == 4
