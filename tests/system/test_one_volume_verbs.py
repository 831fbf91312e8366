"""What an operator sees of XFS on one volume: plan, check, status and grow, refused and not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebs_autoscale.ec2.requests import FILESYSTEM_TAG
from ebs_autoscale.errors import Exit
from tests.system.bench import GIB, Host
from tests.system.one_volume import one_volume_host
from tests.system.test_check import lines_of, verdicts

pytestmark = pytest.mark.kernel

CREATING = {"CreateVolume", "AttachVolume", "DeleteVolume", "ModifyInstanceAttribute"}


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Host]:
    """A host without a free slot, with XFS on the last partition of its one volume, of 1 GiB."""
    shm = Path("/dev/shm")
    with one_volume_host(
        tmp_path / "host",
        directory=shm if shm.is_dir() else tmp_path,
        settings={"attachment_limit": 3, "modifications": 1},
        table="label: gpt",
    ) as host:
        yield host


def test_from_refusal_to_growth(xfs: Host) -> None:
    """Each says before what another does: the method, the tags, the plan, and what has grown."""
    xfs.configure(growth={"method": "add", "min": "1GiB", "size": "1GiB"})
    xfs.fill(5)
    planned = xfs.run("plan", "--json")
    assert planned.returncode == Exit.REFUSED
    assert json.loads(planned.stdout)["limit"] == "growth.method"
    lines = lines_of(xfs)
    assert verdicts(lines, "method") == {"fail"}
    assert verdicts(lines, "mount", "members", "kernel") == {"ok"}

    xfs.configure(growth={"min": "1GiB", "size": "1GiB"})
    lines = lines_of(xfs)
    assert "method" not in lines
    assert "slots" not in lines
    assert {"ok"} == verdicts(lines, "mount", "members", "kernel", "tools", "ec2", "quota")
    allowed = " ".join(line["sentence"] for line in lines["ec2"])
    assert "ModifyVolume allowed" in allowed
    assert not [action for action in CREATING if action in allowed]

    planned = xfs.run("plan", "--json")
    assert planned.returncode == Exit.SUCCESS
    plan = json.loads(planned.stdout)
    (volume,) = xfs.volumes()
    assert (plan["decision"], plan["volume"]) == ("enlarge", volume.id)
    assert plan["target_bytes"] == 2 * GIB
    assert [step["step"] for step in plan["steps"]] == ["EnlargeVolume", "ResizeDevice"]
    assert xfs.status()["decision"] == "enlarge"

    before = xfs.status()
    assert xfs.run("grow").returncode == Exit.SUCCESS
    after = xfs.status()
    assert after["kind"] == "xfs"
    assert after["decision"] == "hold"
    assert after["size_bytes"] > before["size_bytes"] + 0.9 * GIB
    assert (after["unallocated_bytes"], after["metadata_headroom_bytes"]) == (None, None)
    assert after["members"][0]["partition"]

    # The day's modifications are used up: a refusal that passes.
    refused = xfs.run("grow", "--size", "1GiB")
    assert refused.returncode == Exit.REFUSED
    assert "refused by modifications" in refused.stderr
    assert "VolumeModificationRateExceeded" in refused.stderr


def test_a_volume_of_others(xfs: Host) -> None:
    """Without our tags it is never modified; plan and check say how it becomes ours."""
    xfs.fill(5)
    (volume,) = xfs.volumes()
    xfs.sandbox.operate(
        "CreateTags",
        Resources=[volume.id],
        Tags=[{"Key": FILESYSTEM_TAG, "Value": "11111111-2222-4333-8444-555555555555"}],
    )
    hint = f"`ebs-autoscale init {xfs.mountpoint}`"
    planned = xfs.run("plan")
    assert planned.returncode == Exit.REFUSED
    assert hint in planned.stdout
    lines = lines_of(xfs)
    assert verdicts(lines, "volume") == {"fail"}
    assert hint in lines["volume"][0]["hint"]
    assert xfs.run("grow").returncode == Exit.REFUSED
    (volume,) = xfs.volumes()
    assert volume.modifications == 0
