"""Each row of the table of error codes x each call, through the real boto3 and over HTTP."""

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.ec2.errors import MEANINGS
from ebs_autoscale.ec2.requests import TOKEN_SERIES_MAX
from ebs_autoscale.errors import Cause, EbsAutoscaleError, NameTaken, Transient, Unfit
from tests.faults.catalogue import (
    MESSAGE,
    OPERATIONS,
    TRIES_MAX,
    Operation,
    Refusing,
    operation_of,
    refusal,
    status_of,
)

RETRIED = [
    code for code in MEANINGS if status_of(code) >= 500 or MEANINGS[code].cause is Cause.THROTTLED
]

# What the program handles itself instead of raising it: see below.
HANDLED = {
    ("CreateVolume", Cause.TOKEN_MISMATCH),
    ("DetachVolume", Cause.STATE),
    ("DetachVolume", Cause.NOT_VISIBLE),
    ("DeleteVolume", Cause.NOT_VISIBLE),
}

NOT_RETRIED = [
    pytest.param(operation, code, id=f"{operation.action}-{code}")
    for operation in OPERATIONS
    for code in MEANINGS
    if code not in RETRIED and (operation.action, MEANINGS[code].cause) not in HANDLED
]

# 4 retries of 14 tokens each, of 500.
CODES_PER_CLIENT = 8

each_operation = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=lambda operation: operation.action
)


def assert_translated(error: EbsAutoscaleError, operation: Operation, code: str) -> None:
    """It has the family, cause and hint of the code, and names the call's ids and EC2's answer."""
    meaning = MEANINGS[code]
    assert isinstance(error, meaning.family)
    assert error.cause is meaning.cause
    # Only the parameters of CreateVolume are an operator's.
    if meaning.cause is not Cause.REQUEST or operation.action == "CreateVolume":
        assert error.hint == meaning.hint
    assert bool(error.hint) == bool(meaning.hint)
    assert all(name in error.what for name in operation.names)
    assert error.what.endswith(f"{code}: {MESSAGE[:-1]}")


@pytest.mark.parametrize(("operation", "code"), NOT_RETRIED)
def test_a_lasting_refusal(shared_refusing: Refusing, operation: Operation, code: str) -> None:
    """A refusal that no repetition can change is met once, and raised as what it is."""
    rule = refusal(operation, code)
    with (
        shared_refusing.refusing(rule) as (cloud, calls),
        pytest.raises(EbsAutoscaleError) as caught,
    ):
        operation.run(cloud)

    assert_translated(caught.value, operation, code)
    assert len(calls) == 1


@each_operation
def test_a_passing_refusal(
    shared_refusing: Refusing, botocore_waits: list[float], operation: Operation
) -> None:
    """Throttled calls and server errors are tried five times at most, with waits between."""
    for number, code in enumerate(RETRIED):
        if number % CODES_PER_CLIENT == 0:
            shared_refusing.renew()
        botocore_waits.clear()
        rule = refusal(operation, code)
        with (
            shared_refusing.refusing(rule) as (cloud, calls),
            pytest.raises(Transient) as caught,
        ):
            operation.run(cloud)

        assert_translated(caught.value, operation, code)
        assert len(calls) == TRIES_MAX, code
        assert len(botocore_waits) == TRIES_MAX - 1
        assert sum(botocore_waits) < 30


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@each_operation
def test_an_answer_without_a_code(
    shared_refusing: Refusing, botocore_waits: list[float], operation: Operation, status: int
) -> None:
    """What a load balancer answers in EC2's place counts as a server error, whatever the call."""
    shared_refusing.renew()
    rule = FaultRule(kind=FaultKind.HTTP, action=operation.action, status=status)
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Transient) as caught:
        operation.run(cloud)

    assert caught.value.cause is Cause.EC2_ERROR
    assert str(status) in caught.value.what
    assert len(calls) == TRIES_MAX
    assert botocore_waits


@each_operation
def test_no_answer_at_all(
    shared_refusing: Refusing, botocore_waits: list[float], operation: Operation
) -> None:
    """An EC2 that closes each connection is unreachable; the call is tried five times."""
    shared_refusing.renew()
    rule = FaultRule(kind=FaultKind.LOST_BEFORE, action=operation.action)
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Transient) as caught:
        operation.run(cloud)

    assert caught.value.cause is Cause.EC2_UNREACHABLE
    assert caught.value.hint
    assert len(calls) == TRIES_MAX
    assert botocore_waits


@each_operation
def test_an_unknown_code(shared_refusing: Refusing, operation: Operation) -> None:
    """A refusal with an unknown code needs an operator, who is told the code."""
    rule = FaultRule(kind=FaultKind.ERROR, action=operation.action, code="Novelty", message=MESSAGE)
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Unfit) as caught:
        operation.run(cloud)

    assert caught.value.cause is Cause.UNKNOWN_CODE
    assert caught.value.what.endswith(f"Novelty: {MESSAGE[:-1]}")
    assert caught.value.hint
    assert len(calls) == 1


def test_a_name_in_use(shared_refusing: Refusing) -> None:
    """The one InvalidParameterValue that another device name cures asks for another name."""
    rule = FaultRule(
        kind=FaultKind.ERROR,
        action="AttachVolume",
        code="InvalidParameterValue",
        message="Invalid value '/dev/xvdba' for unixDevice. "
        "Attachment point /dev/xvdba is already in use",
    )
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(NameTaken):
        operation_of("AttachVolume").run(cloud)
    assert len(calls) == 1


def test_rejected_tokens(shared_refusing: Refusing) -> None:
    """A rejected token is followed by the next of its series, and in the end by an operator."""
    operation = operation_of("CreateVolume")
    rule = refusal(operation, "IdempotentParameterMismatch")
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Unfit) as caught:
        operation.run(cloud)

    assert caught.value.cause is Cause.TOKENS_BURNED
    assert caught.value.hint
    assert len({call.params["ClientToken"] for call in calls}) == len(calls) == TOKEN_SERIES_MAX


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("DetachVolume", "IncorrectState"),
        ("DetachVolume", "InvalidAttachment.NotFound"),
        ("DetachVolume", "VolumeInUse"),
        ("DetachVolume", "InvalidVolume.NotFound"),
        ("DeleteVolume", "InvalidVolume.NotFound"),
    ],
)
def test_done_before(shared_refusing: Refusing, action: str, code: str) -> None:
    """Detaching a volume that is not attached succeeds, as does deleting one that is gone."""
    operation = operation_of(action)
    with shared_refusing.refusing(refusal(operation, code)) as (cloud, calls):
        operation.run(cloud)
    assert len(calls) == 1


def test_without_credentials(shared_refusing: Refusing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an instance profile the operator is told so, and EC2 is not even asked."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    shared_refusing.forget_credentials()
    operation = operation_of("CreateVolume")
    rule = refusal(operation, "AuthFailure")
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Unfit) as caught:
        operation.run(cloud)

    assert caught.value.cause is Cause.CREDENTIALS
    assert caught.value.hint
    assert calls == []
