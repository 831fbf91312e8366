"""What only the real EC2 client can get wrong: tags, tokens, errors, rehearsals."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale import volumes
from ebs_autoscale.checks.ec2 import Ec2Date, clock_lines
from ebs_autoscale.checks.permissions import NEED_A_VOLUME, rehearse, rehearse_with
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.ec2.requests import TOKEN_SERIES_MAX
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import GIB, GrowthId, VolumeSpec
from tests.contract.clouds import OverHttp, over_http
from tests.unit.samples import FILESYSTEM

GROWTH = GrowthId(FILESYSTEM, 7)
StartHttp = Callable[..., AbstractContextManager[OverHttp]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartHttp:
    """Begin with the sandbox and boto3."""
    return over_http(tmp_path, monkeypatch)


def buy_as_somebody_else(http: OverHttp, tags: dict[str, str]) -> str:
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
        *(
            OURS | {"ebs-autoscale:owner": "OWNER", "ebs-autoscale:growth": growth}
            for growth in ("", "-1", "3.0", "three", "0x3", " 3", "²")
        ),
    ],
)
def test_without_our_tags_a_volume_is_invisible(start: StartHttp, tags: dict[str, str]) -> None:
    """A volume without one of our three tags, or with a growth that is no ordinal, is not ours."""
    with start() as http:
        owner = http.identity.owner
        given = {key: owner if value == "OWNER" else value for key, value in tags.items()}
        buy_as_somebody_else(http, given)
        http.clock.sleep(10)
        assert http.cloud.inventory(FILESYSTEM).volumes == ()


def test_with_our_tags_a_volume_is_ours(start: StartHttp) -> None:
    """The three tags are all it takes, whoever made the volume."""
    with start() as http:
        volume_id = buy_as_somebody_else(http, OURS | {"ebs-autoscale:owner": http.identity.owner})
        http.clock.sleep(10)
        (volume,) = http.cloud.inventory(FILESYSTEM).volumes
        assert (volume.id, volume.growth) == (volume_id, GrowthId(FILESYSTEM, 3))


def test_the_spec_is_bought(start: StartHttp) -> None:
    """Type, encryption and tags arrive at EC2 in the create call itself."""
    with start(spec=VolumeSpec(type="gp2", tags={"team": "genomics"})) as http:
        volume = http.cloud.create(GROWTH, 20 * GIB)
        seen = next(v for v in http.control.state().volumes if v.id == volume.id)
        assert (seen.type, seen.encrypted, seen.size_gib) == ("gp2", True, 20)
        assert seen.tags["team"] == "genomics"
        assert seen.tags["ebs-autoscale:owner"] == http.identity.owner
        assert not http.control.calls("CreateTags")


def test_instance_tags_are_copied_when_asked(start: StartHttp) -> None:
    """The instance's tags go along, EC2's own excepted, once the inventory has shown them."""
    spec = VolumeSpec(copy_instance_tags=True)
    with start(spec=spec, instance_tags={"cost-center": "42"}) as http:
        http.cloud.inventory(FILESYSTEM)
        volume = http.cloud.create(GROWTH, 20 * GIB)
        seen = next(v for v in http.control.state().volumes if v.id == volume.id)
        assert seen.tags["cost-center"] == "42"


@pytest.mark.parametrize("kind", [FaultKind.LOST_BEFORE, FaultKind.LOST_AFTER, FaultKind.HTTP])
def test_a_lost_answer_buys_once(start: StartHttp, kind: FaultKind) -> None:
    """A create whose answer is lost is repeated with the same token: one volume, one growth."""
    with start() as http:
        http.control.add_fault(FaultRule(kind=kind, action="CreateVolume", times=1))
        http.cloud.create(GROWTH, 20 * GIB)
        assert len(http.control.calls("CreateVolume")) == 2
        assert http.count() == 1


def test_another_size_finds_what_was_bought(start: StartHttp) -> None:
    """A repetition with another size, as after a restart, gets the volume that there is."""
    with start() as http:
        first = http.cloud.create(GROWTH, 20 * GIB)
        again = http.cloud.create(GROWTH, 30 * GIB)
        assert (again.id, again.size_bytes) == (first.id, 20 * GIB)
        assert http.count() == 1


def test_burned_tokens_come_to_an_end(start: StartHttp) -> None:
    """When all tokens of a growth are burned, after one search a human is told, nothing bought."""
    with start() as http:
        code = "IdempotentParameterMismatch"
        http.control.add_fault(FaultRule(kind=FaultKind.ERROR, action="CreateVolume", code=code))
        with pytest.raises(Unfit, match="client tokens in a row are burned") as caught:
            http.cloud.create(GROWTH, 20 * GIB)
        assert caught.value.cause is Cause.TOKENS_BURNED
        assert len(http.control.calls("CreateVolume")) == TOKEN_SERIES_MAX
        assert len(http.control.calls("DescribeVolumes")) <= 7
        assert http.count() == 0


@pytest.mark.parametrize(
    ("code", "family", "cause"),
    [
        ("UnauthorizedOperation", Unfit, "denied"),
        ("InsufficientVolumeCapacity", Transient, "capacity"),
        ("AuthFailure", Unfit, "credentials"),
        ("SomethingNew", Unfit, "unknown code SomethingNew"),
    ],
)
def test_errors_are_translated(
    start: StartHttp, code: str, family: type[EbsAutoscaleError], cause: str
) -> None:
    """Every call's refusal is one of ours, with what failed and EC2's own words."""
    with start() as http:
        rule = FaultRule(kind=FaultKind.ERROR, code=code, message="No.")
        http.control.add_fault(rule)
        with pytest.raises(family, match=f"list volumes: {code}: No") as caught:
            http.cloud.inventory(FILESYSTEM)
        assert caught.value.cause == cause
        with pytest.raises(family, match=f"create a volume of 20 GiB in us-east-1a: {code}"):
            http.cloud.create(GROWTH, 20 * GIB)


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
    """Slots are what the type has, less volumes and, where shared, further interfaces."""
    with start(**settings) as http:
        assert http.cloud.inventory(FILESYSTEM).slots_free == slots_free


def attach_some(http: OverHttp, count: int) -> list[int | None]:
    """Buy and attach volumes one growth after the other; the cards that were asked for."""
    for ordinal in range(1, count + 1):
        volume = http.cloud.create(GrowthId(FILESYSTEM, ordinal), GIB)
        http.clock.sleep(10)
        http.cloud.inventory(FILESYSTEM)
        http.cloud.attach(volume, f"/dev/xvdb{'abcdefgh'[ordinal]}")
    return [call.params.get("EbsCardIndex") for call in http.control.calls("AttachVolume")]


def test_volumes_are_spread_over_the_cards(start: StartHttp) -> None:
    """Each volume goes to the card with the fewest: twice as many fit as on card 0 alone."""
    with start(ebs_cards=2, attachment_limit=6, attachment_limit_type="dedicated") as http:
        # The root volume is on card 0.
        assert attach_some(http, 5) == [1, 0, 1, 0, 1]
        assert http.cloud.inventory(FILESYSTEM).slots_free == 0


def test_one_card_is_not_named(start: StartHttp) -> None:
    """Where a type has one card, or the model knows none, the call is as it always was."""
    with start() as http:
        assert attach_some(http, 2) == [None, None]


@pytest.mark.parametrize("code", ["AttachmentLimitExceeded", "InvalidParameterValue"])
def test_a_card_that_is_refused_gives_way(start: StartHttp, code: str) -> None:
    """A card that EC2 refuses gives way to the next, and all of them to EC2's own choice."""
    with start(ebs_cards=2) as http:
        http.control.add_fault(
            FaultRule(kind=FaultKind.ERROR, action="AttachVolume", code=code, times=2)
        )
        assert attach_some(http, 1) == [1, 0, None]
        assert http.control.state().volumes[-1].state == "in-use"


def test_a_full_instance_is_full(start: StartHttp) -> None:
    """When no card has room the answer is that of an instance without slots."""
    with start(ebs_cards=2, attachment_limit=2) as http:
        attach_some(http, 1)
        volume = http.cloud.create(GROWTH, GIB)
        http.clock.sleep(10)
        with pytest.raises(Unfit, match="AttachmentLimitExceeded") as caught:
            http.cloud.attach(volume, "/dev/xvdcc")
        assert caught.value.cause is Cause.SLOTS


def test_a_long_list_is_read_to_its_end(start: StartHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes on later pages count like those on the first."""
    # The smallest page that EC2 gives.
    monkeypatch.setattr(volumes, "PAGE_SIZE", 5)
    with start() as http:
        for ordinal in range(1, 12):
            http.cloud.create(GrowthId(FILESYSTEM, ordinal), 1 * GIB)
        http.clock.sleep(10)
        assert len(http.cloud.inventory(FILESYSTEM).volumes) == 11
        assert len(http.control.calls("DescribeVolumes")) == 3


def test_a_rehearsal_changes_nothing(start: StartHttp) -> None:
    """Every call can be tried without effect; with rights and room nothing forbids one."""
    with start() as http:
        volume = http.cloud.create(GROWTH, 20 * GIB)
        http.clock.sleep(10)
        verdicts = dict(rehearse(http.cloud, FILESYSTEM)) | dict(rehearse_with(http.cloud, volume))
        assert set(verdicts.values()) == {None}
        assert set(NEED_A_VOLUME) < set(verdicts)
        assert http.count() == 1
        assert http.cloud.inventory(FILESYSTEM).volumes[0].attached_to == ""


def test_the_date_of_a_rehearsal(start: StartHttp) -> None:
    """EC2's date is known from any answer, also when all of them are refusals."""
    with start(date_ahead_seconds=1000.0) as http:
        answered = Ec2Date(http.cloud, SystemClock())
        assert list(rehearse(http.cloud, FILESYSTEM))
        [line] = clock_lines(answered.date, answered.wall_seconds)
        assert "s behind EC2" in line.sentence


def test_a_rehearsal_finds_what_is_denied(start: StartHttp) -> None:
    """A call that is denied is named with its error, and the others are tried all the same."""
    with start() as http:
        rule = FaultRule(kind=FaultKind.ERROR, action="CreateVolume", code="UnauthorizedOperation")
        http.control.add_fault(rule)
        verdicts = dict(rehearse(http.cloud, FILESYSTEM))
        denied = verdicts.pop("CreateVolume, CreateTags")
        assert isinstance(denied, Unfit)
        assert denied.cause is Cause.DENIED
        assert set(verdicts.values()) == {None}
