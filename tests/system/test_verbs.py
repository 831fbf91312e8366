"""The verbs on the command line: exit code, output, and what they leave unchanged."""

import fcntl
import json
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale import __version__
from ebs_autoscale.errors import Cause
from tests.release import HOST_PYTHON
from tests.system.bench import GIB, Host, until
from tests.unit.samples import ADDING

pytestmark = pytest.mark.kernel

VERBS = ("run", "grow", "plan", "status", "check")
READS = {"DescribeVolumes", "DescribeInstances", "DescribeInstanceTypes"}


def test_version(host: Host) -> None:
    """`--version` prints it."""
    assert host.run("--version").stdout == f"ebs-autoscale {__version__}\n"


def test_log_level(host: Host) -> None:
    """`--log-level` may stand before the verb and after it."""
    for form in ("--log-level error grow", "grow --log-level error"):
        ran = host.run(*form.split())
        assert (ran.returncode, ran.stderr) == (0, ""), form


def test_bad_size(host: Host) -> None:
    """An invalid size is refused with exit 2 before any call."""
    for words in (("--size=-5GiB",), ("--size", "-5GiB"), ("--size", "65TiB")):
        ran = host.run("grow", *words)
        assert (ran.returncode, "--size" in ran.stderr) == (2, True), words
        assert "Traceback" not in ran.stderr
    assert host.sandbox.journal() == []


def test_bad_configuration(host: Host) -> None:
    """All mistakes are reported at once with exit 2, before any call, wherever --config stands."""
    host.config.write_text("mountpoint: scratch\nthresholds: {}\ngrowth: {min: lots}\n", "utf-8")
    other = host.config.rename(host.folder / "other.yaml")
    for verb in VERBS:
        host.config = other
        before = host.run(verb)
        host.config = host.folder / "config.yaml"
        for ran in (before, host.run(verb, "--config", str(other))):
            said = ran.stdout + ran.stderr
            assert ran.returncode == 2, verb
            assert all(key in said for key in ("mountpoint", "thresholds", "growth.min")), verb
    assert host.sandbox.journal() == []


def unmount(host: Host) -> None:
    """Leave an empty folder where the filesystem was."""
    subprocess.run(["umount", str(host.mountpoint)], check=True)


def remove(host: Host) -> None:
    """Leave nothing where the filesystem was."""
    unmount(host)
    host.mountpoint.rmdir()


def replace_by_tmpfs(host: Host) -> None:
    """Mount another kind of filesystem over it."""
    subprocess.run(["mount", "-t", "tmpfs", "none", str(host.mountpoint)], check=True)


def make_read_only(host: Host) -> None:
    """Remount it read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(host.mountpoint)], check=True)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (remove, Cause.MISSING),
        (unmount, Cause.NOT_MOUNTED),
        (replace_by_tmpfs, Cause.NOT_BTRFS),
        (make_read_only, Cause.READ_ONLY),
    ],
)
def test_unfit_mount(host: Host, spoil: Callable[[Host], None], cause: Cause) -> None:
    """Whatever is wrong with the mount is one sentence and exit 5, and nothing is created."""
    spoil(host)
    ran = {verb: host.run(verb) for verb in VERBS}
    status = host.status()
    if spoil is replace_by_tmpfs:
        subprocess.run(["umount", str(host.mountpoint)], check=True)
    assert {verb: done.returncode for verb, done in ran.items()} == dict.fromkeys(VERBS, 5)
    for verb, done in ran.items():
        said = done.stdout + done.stderr
        assert str(host.mountpoint) in said, verb
        assert "Traceback" not in said, verb
    assert status["cause"] == cause.value
    assert host.volumes() == []


def test_not_root(host: Host) -> None:
    """Without root there is one sentence and exit 5."""
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups", "--")
    host.folder.chmod(0o755)
    for verb in ("run", "grow", "plan", "uninstall"):
        ran = host.run(verb, before=nobody)
        assert "Traceback" not in ran.stderr, ran.stderr
        assert ran.returncode in {2, 5}, verb
        assert len(ran.stderr.splitlines()) == 1, verb


def test_status_without_root_beside_a_balance(
    host: Host, foreign_balance: Callable[[Path], AbstractContextManager[object]]
) -> None:
    """Every user sees that a balance is running, only root how far it is."""
    # pytest's folders are for root only.
    reads = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    with foreign_balance(host.mountpoint):
        subprocess.run(["btrfs", "balance", "pause", str(host.mountpoint)], check=True)
        as_nobody = ("setpriv", "--reuid", "65534", *reads, "--clear-groups")
        ran = host.run("status", "--json", before=as_nobody)
    assert json.loads(ran.stdout)["exclusive_operation"].startswith("balance")
    assert ran.stderr == ""


def test_no_btrfs_tool(host: Host, tmp_path: Path) -> None:
    """Without btrfs-progs these verbs end with exit 5 and name the package; the daemon goes on."""
    # A release looks for a Python.
    (tmp_path / "python3").symlink_to(HOST_PYTHON)
    host.environment["PATH"] = str(tmp_path)
    for verb in ("grow", "plan", "check"):
        ran = host.run(verb)
        assert ran.returncode == 5, verb
        assert "btrfs-progs" in ran.stdout + ran.stderr, verb


def test_a_path_that_is_too_long(host: Host) -> None:
    """A path that cannot be a file is a usage error: one sentence, exit 2."""
    host.config = host.folder / f"{'long' * 64}.yaml"
    for words in (("uninstall",), ("init", "/scratch"), ("plan",)):
        ran = host.run(*words)
        assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
        assert str(host.config) in ran.stderr


def test_without_a_working_directory(host: Host, tmp_path: Path) -> None:
    """A relative path in a folder that was deleted is a usage error, not a traceback."""
    (tmp_path / "gone").mkdir()
    host.config = Path("config.yaml")
    ran = host.run(
        "plan", before=("sh", "-c", f'cd {tmp_path}/gone && rmdir "$PWD" && exec "$@"', "sh")
    )
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, False), ran.stderr


def test_second_daemon(host: Host) -> None:
    """A second daemon for the filesystem ends with exit 3 and names the first."""
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        ran = host.run("run")
        assert ran.returncode == 3
        assert str(daemon.process.pid) in ran.stderr
        assert daemon.stop() == 0


def test_grow_while_another_grows(host: Host) -> None:
    """While the growth lock is held `grow` ends with exit 3 and creates nothing."""
    lock = Path(f"/run/ebs-autoscale/{host.read().filesystem}.growth.lock")
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert host.run("grow").returncode == 3
    assert host.volumes() == []


def test_grow_beside_the_daemon(host: Host) -> None:
    """An operator may grow beside the daemon: one growth, of the size asked for."""
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        until(lambda: not daemon.children(), "the end of the start-up look")
        ran = host.run("grow", "--size", "3GiB")
        assert ran.returncode == 0, ran.stderr
        assert daemon.stop() == 0
    assert [volume.size_gib for volume in host.volumes()] == [3]
    assert host.devices == 2


def test_plan_on_a_low_filesystem(host: Host) -> None:
    """`plan` prints decision, reason and steps, asks EC2 only to look, and changes nothing."""
    host.fill(20)
    before = host.read().devices, host.sandbox.state().volumes
    ran = host.run("plan")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(host.run("plan", "--json").stdout)
    assert found["decision"] == "grow"
    assert found["size_bytes"] == GIB
    assert [step["step"] for step in found["steps"]] == [*ADDING]
    decision, *steps, cost = ran.stdout.splitlines()
    assert found["usd_per_month"] == pytest.approx(0.08)
    assert found["managed_usd_per_month"] == 0
    assert "USD a month" in found["reason"]
    assert found["cost"] in cost
    assert decision == f"grow: {found['reason']}"
    assert "30 %" in decision
    assert [step.split(". ")[1] for step in steps] == [step["title"] for step in found["steps"]]
    assert {call.action for call in host.sandbox.calls()} <= READS
    assert (host.read().devices, host.sandbox.state().volumes) == before


def test_limit(host: Host) -> None:
    """What a limit forbids ends with exit 4 and names the limit."""
    host.configure(growth={"method": "add"}, limits={"volumes": 1})
    assert host.run("grow").returncode == 0
    host.fill(10)
    for verb in ("plan", "grow"):
        ran = host.run(verb)
        assert ran.returncode == 4, verb
        assert "limits.volumes" in ran.stdout + ran.stderr, verb
    assert len(host.volumes()) == 1


def test_beyond_a_limit_nothing_is_created(host: Host) -> None:
    """Size or price beyond a limit ends with exit 4, the price and the key, before any change."""
    host.fill(20)
    cases: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
        ({}, ("grow", "--size", "20TiB"), "growth.max"),
        ({"total": "3GiB"}, ("grow", "--size", "4GiB"), "limits.total"),
        ({"monthly": 0.2}, ("grow", "--size", "4GiB"), "limits.monthly"),
        ({"monthly": 0.01}, ("grow",), "limits.monthly"),
        ({"monthly": 0.01}, ("plan",), "limits.monthly"),
    ]
    for limits, argv, key in cases:
        host.configure(limits=limits)
        ran = host.run(*argv)
        said = ran.stdout + ran.stderr
        assert ran.returncode == 4, argv
        assert key in said, argv
        assert "USD a month" in said, argv
    assert {call.action for call in host.sandbox.calls()} <= READS


def test_a_growth_that_fails(host: Host) -> None:
    """What may be transient ends `grow` with exit 1, what an operator has to change with exit 5."""
    for code, status in (("InsufficientVolumeCapacity", 1), ("VolumeLimitExceeded", 5)):
        host.sandbox.clear_faults()
        host.sandbox.add_fault(FaultRule(kind=FaultKind.ERROR, action="CreateVolume", code=code))
        ran = host.run("grow")
        assert (ran.returncode, code in ran.stderr) == (status, True), ran.stderr


def test_status_of_the_daemon(host: Host) -> None:
    """`status` works without a daemon and shows the one there is."""
    assert host.status()["daemon"] is None
    with host.daemon() as daemon:
        daemon.wait_event("decided", decision="hold")
        found = host.status()
        assert found["daemon"]["pid"] == daemon.process.pid
        assert found["decision"] == "hold"
        assert f"pid {daemon.process.pid}" in host.run("status").stdout
        assert daemon.stop() == 0
