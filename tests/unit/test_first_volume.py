"""The first volume of a filesystem: there is one, however often it is asked for."""

from dataclasses import replace

import pytest

from ebs_autoscale.errors import Cause, Refused
from ebs_autoscale.model import GIB, GrowthId, Volume
from ebs_autoscale.policy import next_growth
from ebs_autoscale.policy.settings import GrowthPolicy, Limits
from ebs_autoscale.provision.first_volume import NoFilesystem, choose_uuid, new_uuid, obtain
from ebs_autoscale.resize import observe
from tests.simulated.clock import Killed
from tests.simulated.world import SimulatedWorld

OWNER = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"


UUIDS = {
    "ours": new_uuid(OWNER, "/scratch"),
    "marked": new_uuid(OWNER, "/scratch"),
    # As earlier versions made it; it depends on instance and mountpoint alone.
    "old": "1786edb8-522e-5536-96ac-0fb546f6e8d0",
    "other mountpoint": new_uuid(OWNER, "/a"),
    "other instance": new_uuid("", "/scratch"),
    "no UUID": "x" * 300,
    "nothing": "",
}
OTHERS = ["other mountpoint", "other instance", "no UUID", "nothing"]


@pytest.mark.parametrize(
    ("volumes", "known", "chosen"),
    [
        ([], [], "new"),
        ([], OTHERS, "new"),
        ([(name, 0, "available") for name in OTHERS], [], "new"),
        # An interrupted run, or a filesystem that is not mounted.
        ([("ours", 0, "available")], [], "ours"),
        ([("old", 0, "in-use")], [], "old"),
        ([("ours", 0, "creating")], ["marked"], "ours"),
        ([], ["nothing", "marked"], "marked"),
        ([], ["marked", "old"], "marked"),
        # An earlier filesystem, and what a purge has left of it.
        ([("ours", 0, "deleting")], [], "new"),
        ([("ours", 0, "error")], [], "new"),
        ([("ours", 3, "available")], [], "new"),
    ],
)
def test_the_uuid_for_a_filesystem(
    volumes: list[tuple[str, int, str]], known: list[str], chosen: str
) -> None:
    """What was begun keeps its UUID; any other filesystem gets one that none had before."""
    found = [
        Volume(id="vol-1", growth=GrowthId(UUIDS[name], ordinal), size_bytes=GIB, state=state)
        for name, ordinal, state in volumes
    ]
    texts = [UUIDS[name] for name in known]
    uuid, again = (choose_uuid(texts, found, owner=OWNER, mountpoint="/scratch") for _ in range(2))
    if chosen == "new":
        assert uuid != again
        assert uuid not in UUIDS.values()
        assert choose_uuid([uuid], [], owner=OWNER, mountpoint="/scratch") == uuid
    else:
        assert uuid == again == UUIDS[chosen]


def test_a_copy_names_no_filesystem() -> None:
    """A volume restored from a snapshot does not give its UUID to another one."""
    copy = Volume(
        id="vol-1",
        growth=GrowthId(UUIDS["ours"], 0),
        size_bytes=GIB,
        state="available",
        foreign="restored",
    )
    assert choose_uuid([], [copy], owner=OWNER, mountpoint="/scratch") != UUIDS["ours"]


@pytest.fixture
def world() -> SimulatedWorld:
    """A world that needs one growth."""
    return SimulatedWorld()


def first(world: SimulatedWorld, policy: GrowthPolicy | None = None) -> str:
    """The id of the first volume, as one run of `init` obtains it."""
    ports = replace(world.ports(), filesystem=NoFilesystem(world.filesystem.uuid, "/scratch"))
    attached = obtain(ports, policy or GrowthPolicy(), 20 * GIB)
    assert attached.node
    return attached.volume.id


def test_created_as_growth_zero(world: SimulatedWorld) -> None:
    """It is attached, has ordinal 0 and is deleted with the instance; a second run finds it."""
    first_id = first(world)
    assert first(world) == first_id
    (volume,) = world.cloud.volumes
    assert (volume.growth, volume.size_bytes) == (GrowthId(world.filesystem.uuid, 0), 20 * GIB)
    assert volume.protected_at > 0


def test_killed_anywhere_it_is_created_once(world: SimulatedWorld) -> None:
    """Killed before or after any call, the next run ends with that one volume."""
    deaths = 0
    while True:
        world = SimulatedWorld()
        world.at.kill_at = deaths
        try:
            first(world)
        except Killed:
            deaths += 1
            first(world.restart())
            assert len(world.cloud.volumes) == 1
        else:
            break
    assert deaths > 10


def test_within_the_limits(world: SimulatedWorld) -> None:
    """`init` creates no volume that a growth may not create."""
    with pytest.raises(Refused) as caught:
        first(world, GrowthPolicy(limits=Limits(total_bytes=GIB // 2)))
    assert caught.value.cause is Cause.LIMIT_TOTAL
    assert world.cloud.volumes == []


def test_the_next_growth_is_the_first(world: SimulatedWorld) -> None:
    """With the volume of ordinal 0 as its only device, a filesystem grows by growth 1."""
    first(world)
    assert next_growth(observe(world.ports())).ordinal == 1
