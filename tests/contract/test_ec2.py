"""What only the real EC2 client does: tags, tokens, errors, dry runs."""

from typing import Any

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale import volumes
from ebs_autoscale.checks.ec2 import AwsDate, clock_lines
from ebs_autoscale.checks.permissions import CREATE, NEED_A_VOLUME
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.ec2.requests import TOKEN_SERIES_MAX
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import GIB, GrowthId, VolumeSpec
from tests.contract.clouds import INVENTORY, OverHttp, StartHttp
from tests.contract.permissions import rehearsed
from tests.unit.samples import FILESYSTEM

GROWTH = GrowthId(FILESYSTEM, 7)


def create_foreign(http: OverHttp, tags: dict[str, str]) -> str:
    """Create a volume that no growth of ours asked for."""
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    parameters: dict[str, Any] = {
        "TagSpecifications": [{"ResourceType": "volume", "Tags": pairs}] if pairs else [],
    }
    zone = http.identity.availability_zone
    return http.ec2.create_volume(AvailabilityZone=zone, Size=1, **parameters)["VolumeId"]


OURS = {"ebs-autoscale:filesystem": FILESYSTEM, "ebs-autoscale:growth": "3"}


@pytest.mark.parametrize(
    "tags",
    [
        {},
        OURS,
        OURS | {"ebs-autoscale:owner": "arn:aws:ec2:us-east-1:123456789012:instance/i-other"},
        {"ebs-autoscale:owner": "OWNER", "ebs-autoscale:filesystem": FILESYSTEM},
        {"ebs-autoscale:owner": "OWNER", "ebs-autoscale:growth": "3"},
    ],
)
def test_without_our_tags_a_volume_is_invisible(start: StartHttp, tags: dict[str, str]) -> None:
    """A volume that lacks one of our three tags is not ours."""
    with start() as http:
        owner = http.identity.owner
        given = {key: owner if value == "OWNER" else value for key, value in tags.items()}
        create_foreign(http, given)
        http.clock.sleep(10)
        assert http.cloud.inventory(FILESYSTEM).volumes == ()


@pytest.mark.parametrize("growth", ["", "-1", "3.0", "three", "0x3", " 3", "²", "٣", "3" * 19])
def test_a_tag_that_is_no_ordinal(start: StartHttp, growth: str) -> None:
    """A volume whose growth is no ordinal is shown, below all growths."""
    tags = OURS | {"ebs-autoscale:growth": growth}
    with start() as http:
        create_foreign(http, tags | {"ebs-autoscale:owner": http.identity.owner})
        http.clock.sleep(10)
        (volume,) = http.cloud.inventory(FILESYSTEM).volumes
        assert volume.growth.ordinal < 0


def test_with_our_tags_a_volume_is_ours(start: StartHttp) -> None:
    """The three tags suffice, whoever created the volume."""
    with start() as http:
        volume_id = create_foreign(http, OURS | {"ebs-autoscale:owner": http.identity.owner})
        http.clock.sleep(10)
        (volume,) = http.cloud.inventory(FILESYSTEM).volumes
        assert (volume.id, volume.growth) == (volume_id, GrowthId(FILESYSTEM, 3))


def test_the_spec_reaches_ec2(start: StartHttp) -> None:
    """Type, encryption and tags arrive at EC2 in the create call itself."""
    with start(spec=VolumeSpec(type="gp2", tags={"team": "genomics"})) as http:
        volume = http.cloud.create(GROWTH, 20 * GIB, INVENTORY)
        seen = next(v for v in http.control.state().volumes if v.id == volume.id)
        assert (seen.type, seen.encrypted, seen.size_gib) == ("gp2", True, 20)
        assert seen.tags["team"] == "genomics"
        assert seen.tags["ebs-autoscale:owner"] == http.identity.owner
        assert not http.control.calls("CreateTags")


def test_instance_tags_are_copied_when_asked(start: StartHttp) -> None:
    """The instance's tags in the inventory are copied to the volume."""
    spec = VolumeSpec(copy_instance_tags=True)
    with start(spec=spec, instance_tags={"cost-center": "42"}) as http:
        volume = http.cloud.create(GROWTH, 20 * GIB, http.cloud.inventory(FILESYSTEM))
        seen = next(v for v in http.control.state().volumes if v.id == volume.id)
        assert seen.tags["cost-center"] == "42"


@pytest.mark.parametrize("kind", [FaultKind.LOST_BEFORE, FaultKind.LOST_AFTER, FaultKind.HTTP])
def test_a_lost_answer_creates_one_volume(start: StartHttp, kind: FaultKind) -> None:
    """A create call whose answer is lost is repeated with the same token: one volume."""
    with start() as http:
        http.control.add_fault(FaultRule(kind=kind, action="CreateVolume", times=1))
        http.cloud.create(GROWTH, 20 * GIB, INVENTORY)
        assert len(http.control.calls("CreateVolume")) == 2
        assert http.count() == 1


def test_another_size_finds_the_volume(start: StartHttp) -> None:
    """A repetition with another size, as after a restart, returns the existing volume."""
    with start() as http:
        first = http.cloud.create(GROWTH, 20 * GIB, INVENTORY)
        again = http.cloud.create(GROWTH, 30 * GIB, INVENTORY)
        assert (again.id, again.size_bytes) == (first.id, 20 * GIB)
        assert http.count() == 1


def test_rejected_tokens_come_to_an_end(start: StartHttp) -> None:
    """When EC2 rejects all tokens of a growth, one search later it needs an operator."""
    with start() as http:
        code = "IdempotentParameterMismatch"
        http.control.add_fault(FaultRule(kind=FaultKind.ERROR, action="CreateVolume", code=code))
        with pytest.raises(Unfit) as caught:
            http.cloud.create(GROWTH, 20 * GIB, INVENTORY)
        assert caught.value.cause is Cause.TOKENS_BURNED
        assert len(http.control.calls("CreateVolume")) == TOKEN_SERIES_MAX
        assert len(http.control.calls("DescribeVolumes")) <= 7
        assert http.count() == 0


@pytest.mark.parametrize(
    ("code", "family", "cause"),
    [
        ("UnauthorizedOperation", Unfit, Cause.DENIED),
        ("InsufficientVolumeCapacity", Transient, Cause.CAPACITY),
        ("AuthFailure", Unfit, Cause.CREDENTIALS),
        ("SomethingNew", Unfit, Cause.UNKNOWN_CODE),
    ],
)
def test_errors_are_translated(
    start: StartHttp, code: str, family: type[EbsAutoscaleError], cause: Cause
) -> None:
    """Whatever call EC2 refuses, the error is one of ours, with EC2's code and message."""
    with start() as http:
        rule = FaultRule(kind=FaultKind.ERROR, code=code, message="No.")
        http.control.add_fault(rule)
        with pytest.raises(family, match=f"{code}: No") as caught:
            http.cloud.inventory(FILESYSTEM)
        assert caught.value.cause is cause
        with pytest.raises(family, match=f"20 GiB.* us-east-1a.*{code}: No") as caught:
            http.cloud.create(GROWTH, 20 * GIB, INVENTORY)
        assert caught.value.cause is cause


@pytest.mark.parametrize(
    ("settings", "slots_free"),
    [
        ({"attachment_limit": 28, "attachment_limit_type": "shared"}, 27),
        ({"attachment_limit": 28, "network_interfaces": 3}, 25),
        (
            {"attachment_limit": 28, "attachment_limit_type": "dedicated", "network_interfaces": 3},
            27,
        ),
        ({"attachment_limit": None}, None),
    ],
)
def test_slots_follow_the_instance_type(
    start: StartHttp, settings: dict[str, Any], slots_free: int | None
) -> None:
    """Slots are those of the type less volumes and, where shared, further interfaces."""
    with start(**settings) as http:
        assert http.cloud.inventory(FILESYSTEM).slots_free == slots_free


def attach_some(http: OverHttp, count: int) -> list[int | None]:
    """Create and attach volumes one growth after the other; the EBS cards asked for."""
    for ordinal in range(1, count + 1):
        volume = http.cloud.create(GrowthId(FILESYSTEM, ordinal), GIB, INVENTORY)
        http.clock.sleep(10)
        inventory = http.cloud.inventory(FILESYSTEM)
        http.cloud.attach(volume, f"/dev/xvdb{'abcdefgh'[ordinal]}", inventory)
    return [call.params.get("EbsCardIndex") for call in http.control.calls("AttachVolume")]


def test_volumes_are_spread_over_the_cards(start: StartHttp) -> None:
    """Each volume goes to the card with the fewest: twice as many fit as on card 0 alone."""
    with start(ebs_cards=2, attachment_limit=6, attachment_limit_type="dedicated") as http:
        # The root volume is on card 0.
        assert attach_some(http, 5) == [1, 0, 1, 0, 1]
        assert http.cloud.inventory(FILESYSTEM).slots_free == 0


def test_one_card_is_not_named(start: StartHttp) -> None:
    """Where the instance type has one card, the call names none."""
    with start() as http:
        assert attach_some(http, 2) == [None, None]


@pytest.mark.parametrize("code", ["AttachmentLimitExceeded", "InvalidParameterValue"])
def test_a_refused_card_gives_way(start: StartHttp, code: str) -> None:
    """A card that EC2 refuses gives way to the next, and the last to EC2's own choice."""
    with start(ebs_cards=2) as http:
        http.control.add_fault(
            FaultRule(kind=FaultKind.ERROR, action="AttachVolume", code=code, times=2)
        )
        assert attach_some(http, 1) == [1, 0, None]
        assert http.control.state().volumes[-1].state == "in-use"


def test_an_instance_without_slots(start: StartHttp) -> None:
    """When no card has room the error is that of an instance without slots."""
    with start(ebs_cards=2, attachment_limit=2) as http:
        attach_some(http, 1)
        volume = http.cloud.create(GROWTH, GIB, INVENTORY)
        http.clock.sleep(10)
        with pytest.raises(Unfit) as caught:
            http.cloud.attach(volume, "/dev/xvdcc", http.cloud.inventory(FILESYSTEM))
        assert caught.value.cause is Cause.SLOTS


def test_a_long_list_is_read_to_its_end(start: StartHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes on later pages are listed as well."""
    # The smallest page that EC2 gives.
    monkeypatch.setattr(volumes, "PAGE_SIZE", 5)
    with start() as http:
        for ordinal in range(1, 12):
            http.cloud.create(GrowthId(FILESYSTEM, ordinal), GIB, INVENTORY)
        http.clock.sleep(10)
        assert len(http.cloud.inventory(FILESYSTEM).volumes) == 11
        assert len(http.control.calls("DescribeVolumes")) == 3


def test_a_rehearsal_changes_nothing(start: StartHttp) -> None:
    """Every call is tried without effect; with permissions and room none is refused."""
    with start() as http:
        volume = http.cloud.create(GROWTH, 20 * GIB, INVENTORY)
        http.clock.sleep(10)
        verdicts = rehearsed(http, volume, enlarges=True)
        assert set(verdicts.values()) == {None}
        assert set(NEED_A_VOLUME) < set(verdicts)
        assert http.count() == 1
        assert http.cloud.inventory(FILESYSTEM).volumes[0].attached_to == ""


def test_an_instance_on_an_outpost(start: StartHttp) -> None:
    """Its volumes are created on the Outpost; one created elsewhere is set aside at the attach."""
    outpost = "arn:aws:outposts:us-east-1:123456789012:outpost/op-0123456789abcdef0"
    with start(outpost_arn=outpost) as http:
        here = http.cloud.create(GROWTH, GIB, http.cloud.inventory(FILESYSTEM))
        elsewhere = http.cloud.create(GrowthId(FILESYSTEM, 8), GIB, INVENTORY)
        http.clock.sleep(10)
        http.cloud.attach(here, "/dev/xvdba", INVENTORY)
        with pytest.raises(Unfit, match="ZoneMismatch") as caught:
            http.cloud.attach(elsewhere, "/dev/xvdbb", INVENTORY)
        assert caught.value.cause is Cause.ZONE
        assert "Outpost" in caught.value.hint


def test_the_date_of_a_rehearsal(start: StartHttp) -> None:
    """EC2's date is known from any answer, also when all of them are refusals."""
    with start(date_ahead_seconds=1000.0) as http:
        answered = AwsDate(SystemClock())
        answered.follow(http.cloud)
        assert rehearsed(http)
        [line] = clock_lines(answered.date, answered.wall_seconds)
        assert line.verdict == "fail"


def test_a_rehearsal_finds_what_is_denied(start: StartHttp) -> None:
    """A denied call comes with its error, and the others are tried all the same."""
    with start() as http:
        rule = FaultRule(kind=FaultKind.ERROR, action="CreateVolume", code="UnauthorizedOperation")
        http.control.add_fault(rule)
        verdicts = rehearsed(http)
        denied = verdicts.pop(CREATE)
        assert isinstance(denied, Unfit)
        assert denied.cause is Cause.DENIED
        assert set(verdicts.values()) == {None}
