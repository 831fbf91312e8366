"""Fault injection, and the journal of calls."""

from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from ec2_sandbox.errors import InputInvalid
from ec2_sandbox.faults import FaultKind, FaultRule, FaultRules

from tests.sandbox.conftest import Rig, Start, refused


def volumes(rig: Rig) -> int:
    """The number of volumes, without the root volume."""
    return len(rig.control.state().volumes) - len(["root"])


def test_an_error_comes_instead_of_the_effect(rig: Rig) -> None:
    """The client gets the configured code, message and status, and there is no effect."""
    rig.control.add_fault(
        FaultRule(
            kind=FaultKind.ERROR,
            action="CreateVolume",
            code="InsufficientVolumeCapacity",
            message="no room",
            status=503,
        )
    )
    with pytest.raises(ClientError) as caught:
        rig.create()
    assert caught.value.response["Error"] == {
        "Code": "InsufficientVolumeCapacity",
        "Message": "no room",
    }
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert volumes(rig) == 0
    (call,) = rig.control.calls("CreateVolume")
    assert (call.outcome, call.fault) == ("InsufficientVolumeCapacity", "error")


def test_a_server_error_can_follow_the_effect(rig: Rig) -> None:
    """A 5xx leaves the result unknown: here the volume was created."""
    rig.control.add_fault(
        FaultRule(kind=FaultKind.HTTP, action="CreateVolume", status=500, when="after")
    )
    with pytest.raises(ClientError):
        rig.create()
    assert volumes(rig) == 1


@pytest.mark.parametrize(("kind", "created"), [("lost_before", 0), ("lost_after", 1)])
def test_an_answer_can_be_lost(rig: Rig, kind: str, created: int) -> None:
    """The connection closes without a response, before or after the effect."""
    rig.control.add_fault(FaultRule(kind=FaultKind(kind), action="CreateVolume"))
    with pytest.raises(ConnectionClosedError):
        rig.create()
    assert volumes(rig) == created
    assert rig.control.calls("CreateVolume")[0].outcome == "lost"


def test_a_retry_after_a_lost_response_creates_one_volume(rig: Rig) -> None:
    """The client's own retry after a lost response finds the volume that was created."""
    rig.control.add_fault(FaultRule(kind=FaultKind.LOST_AFTER, action="CreateVolume", times=1))
    rig.client(attempts=2).create_volume(Size=1, AvailabilityZone="us-east-1a")
    assert len(rig.control.calls("CreateVolume")) == 2
    assert volumes(rig) == 1


def test_throttling_has_its_code_and_chance(rig: Rig) -> None:
    """About the configured share of calls is throttled, with EC2's code and 503."""
    rig.control.add_fault(FaultRule(kind=FaultKind.THROTTLE, probability=0.5))
    outcomes = []
    for _ in range(40):
        status, _body = rig.query(Action="DescribeInstances")
        outcomes.append(status)
    assert set(outcomes) == {200, 503}
    assert 8 <= outcomes.count(503) <= 32
    assert {call.outcome for call in rig.control.calls()} == {"ok", "RequestLimitExceeded"}


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
def test_a_delay_outlasts_the_client(rig: Rig, when: Any, created: int) -> None:
    """A client that times out during the delay leaves an effect behind or not."""
    rig.control.add_fault(
        FaultRule(kind=FaultKind.DELAY, action="CreateVolume", seconds=1.5, when=when)
    )
    with pytest.raises(ReadTimeoutError):
        rig.client(read_timeout=0.3).create_volume(Size=1, AvailabilityZone="us-east-1a")
    assert volumes(rig) == created
    assert rig.control.calls("CreateVolume")[0].outcome == "pending"


def test_a_stuck_transition_never_ends(rig: Rig) -> None:
    """A stuck create stays creating, a stuck attach stays attaching until a detach."""
    rig.control.add_fault(FaultRule(kind=FaultKind.STUCK, action="CreateVolume", times=1))
    rig.control.add_fault(FaultRule(kind=FaultKind.STUCK, action="AttachVolume"))
    stuck, volume_id = rig.create(), rig.create()
    rig.control.advance(3600)
    seen = rig.seen(stuck)
    assert seen.state == "creating"
    rig.attach(volume_id)
    rig.control.advance(3600)
    seen = rig.seen(volume_id)
    assert seen.attachment_state == "attaching"
    rig.ec2.detach_volume(VolumeId=volume_id)
    rig.control.advance(1)
    seen = rig.seen(volume_id)
    assert seen.state == "available"


def test_a_volume_can_fail(rig: Rig) -> None:
    """A failed volume ends in the state error, cannot be attached and can be deleted."""
    rig.control.add_fault(FaultRule(kind=FaultKind.FAILED, action="CreateVolume", times=1))
    failed, good = rig.create(), rig.create()
    rig.control.advance(1)
    states = (rig.seen(failed).state, rig.seen(good).state)
    assert states == ("error", "available")
    with refused("IncorrectState"):
        rig.attach(failed)
    rig.ec2.delete_volume(VolumeId=failed)
    rig.control.advance(1)
    assert rig.is_gone(failed)


def test_somebody_can_undo_a_call(rig: Rig) -> None:
    """A volume is deleted once it is created, or detached once it is attached."""
    rig.control.add_fault(FaultRule(kind=FaultKind.UNDONE, action="CreateVolume", times=1))
    rig.control.add_fault(FaultRule(kind=FaultKind.UNDONE, action="AttachVolume", times=1))
    deleted, detached = rig.create(), rig.create()
    rig.control.advance(1)
    assert rig.is_gone(deleted)
    rig.attach(detached)
    rig.control.advance(1)
    assert rig.seen(detached).state == "available"
    rig.attach(detached)
    rig.control.advance(1)
    assert rig.seen(detached).attachment_state == "attached"


def test_rules_count_and_end(rig: Rig) -> None:
    """A rule skips its first calls, causes the configured number of faults, and can be cleared."""
    rig.control.add_fault(FaultRule(kind=FaultKind.ERROR, code="InternalError", after=1, times=2))
    statuses = [rig.query(Action="DescribeInstances")[0] for _ in range(5)]
    assert statuses == [200, 400, 400, 200, 200]
    rig.control.add_fault(FaultRule(kind=FaultKind.ERROR))
    rig.control.clear_faults()
    assert rig.query(Action="DescribeInstances")[0] == 200


def test_the_first_rule_that_applies_decides() -> None:
    """Rules apply in order, and each counts every call of its action."""
    book = FaultRules(seed=0)
    first = FaultRule(kind=FaultKind.ERROR, action="DeleteVolume")
    second = FaultRule(kind=FaultKind.HTTP, after=2)
    book.add(first)
    book.add(second)
    matched = [book.fault_for(action) for action in ("DeleteVolume", "DeleteVolume", "CreateTags")]
    assert matched == [first, first, second]
    assert book.fault_for("IMDS") is None


def test_a_wrong_rule_is_refused(rig: Rig) -> None:
    """A rule with an unknown key or kind is an error at once."""
    with pytest.raises(InputInvalid, match="colour"):
        FaultRule.from_mapping({"kind": "error", "colour": "red"})
    with pytest.raises(InputInvalid, match="known kinds"):
        FaultRule.from_mapping({"kind": "explode"})
    assert rig.raw("POST", "/_sandbox/faults")[0] == 400


def test_the_journal_has_every_call(start: Start) -> None:
    """Calls are in order, with their time, parameters, key and outcome."""
    rig = start()
    rig.control.advance(7)
    rig.ec2.describe_volumes(MaxResults=5)
    with refused("InvalidVolume.NotFound"):
        rig.ec2.delete_volume(VolumeId="vol-0123456789abcdef0")
    listed, deleted = rig.control.calls()
    assert (listed.action, listed.params, listed.outcome) == (
        "DescribeVolumes",
        {"MaxResults": 5},
        "ok",
    )
    assert (deleted.action, deleted.outcome) == ("DeleteVolume", "InvalidVolume.NotFound")
    assert (listed.clock_seconds, listed.access_key) == (7, "AKIATEST")
    assert deleted.sequence > listed.sequence


def test_calls_can_be_slow(start: Start) -> None:
    """Every call takes the configured real time, without blocking other calls."""
    rig = start(call_seconds=(0.5, 0.5))
    with pytest.raises(ReadTimeoutError):
        rig.client(read_timeout=0.2).describe_volumes()


def test_an_action_has_a_bucket_of_its_own(start: Start) -> None:
    """What is in the bucket can be taken at once, then as much as is refilled; others are free."""
    rig = start(request_buckets={"DescribeTags": [3, 0.5]})

    def answered(calls: int) -> int:
        for _ in range(calls):
            with suppress(ClientError):
                rig.ec2.describe_tags()
        outcomes = [call.outcome for call in rig.control.calls("DescribeTags")][-calls:]
        assert set(outcomes) <= {"ok", "RequestLimitExceeded"}
        return outcomes.count("ok")

    assert answered(5) == 3
    rig.ec2.describe_volumes()
    rig.control.advance(4)
    assert answered(5) == 2
    rig.control.advance(1000)
    assert answered(5) == 3
