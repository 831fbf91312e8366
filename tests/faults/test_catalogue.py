"""Each row of the error catalogue x each call, through the real boto3 and over HTTP."""

import pytest
from ec2_sandbox.faults import FaultKind, FaultRule

from ebs_autoscale.ec2.errors import MEANINGS
from ebs_autoscale.ec2.requests import TOKEN_SERIES_MAX
from ebs_autoscale.errors import Cause, EbsAutoscaleError, NameTaken, Transient, Unfit
from tests.faults.catalogue import ASKS, TRIES_MAX, WORDS, Ask, Refusing, refusal, status_of

RETRIED = [
    code for code in MEANINGS if status_of(code) >= 500 or MEANINGS[code].cause is Cause.THROTTLED
]

# What the program settles itself, instead of passing it on: see below.
BALANCED = {
    ("CreateVolume", "token burned"),
    ("DetachVolume", "state"),
    ("DetachVolume", "not visible"),
    ("DeleteVolume", "not visible"),
}

AT_ONCE = [
    pytest.param(ask, code, id=f"{ask.action}-{code}")
    for ask in ASKS
    for code in MEANINGS
    if code not in RETRIED and (ask.action, MEANINGS[code].cause) not in BALANCED
]

# 4 retries of 14 tokens each, of 500.
CODES_PER_CLIENT = 8

each_call = pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.action)


def assert_told(error: EbsAutoscaleError, ask: Ask, code: str) -> None:
    """It is of its family and cause, and says what failed, the code, EC2's words and a hint."""
    family, cause, hint = MEANINGS[code]
    assert (type(error), error.cause) == (family, cause)
    assert error.what.startswith(ask.what)
    assert error.what.endswith(f"{code}: {WORDS}")
    assert error.hint == hint
    assert hint or family is Transient


@pytest.mark.parametrize(("ask", "code"), AT_ONCE)
def test_what_a_repetition_cannot_cure(shared_refusing: Refusing, ask: Ask, code: str) -> None:
    """A refusal is asked for once, and told as what it is."""
    rule = refusal(ask, code)
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(EbsAutoscaleError) as told:
        ask.ask(cloud)

    assert_told(told.value, ask, code)
    assert len(calls) == 1


@each_call
def test_what_a_repetition_may_cure(
    shared_refusing: Refusing, botocore_waits: list[float], ask: Ask
) -> None:
    """Throttling and EC2's own failures are asked for five times at most, with waits between."""
    for number, code in enumerate(RETRIED):
        if number % CODES_PER_CLIENT == 0:
            shared_refusing.renew()
        botocore_waits.clear()
        rule = refusal(ask, code)
        with (
            shared_refusing.refusing(rule) as (cloud, calls),
            pytest.raises(Transient) as told,
        ):
            ask.ask(cloud)

        assert_told(told.value, ask, code)
        assert len(calls) == TRIES_MAX, code
        assert len(botocore_waits) == TRIES_MAX - 1
        assert sum(botocore_waits) < 30


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@each_call
def test_an_answer_without_a_code(
    shared_refusing: Refusing, botocore_waits: list[float], ask: Ask, status: int
) -> None:
    """What a load balancer answers in EC2's place is EC2's failure, whatever the call."""
    shared_refusing.renew()
    rule = FaultRule(kind=FaultKind.HTTP, action=ask.action, status=status)
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Transient) as told:
        ask.ask(cloud)

    assert told.value.cause is Cause.EC2_ERROR
    assert told.value.what.startswith(ask.what)
    assert str(status) in told.value.what
    assert len(calls) == TRIES_MAX
    assert botocore_waits


@each_call
def test_no_answer_at_all(shared_refusing: Refusing, botocore_waits: list[float], ask: Ask) -> None:
    """An EC2 that hangs up each time is out of reach: told with the call, tried five times."""
    shared_refusing.renew()
    rule = FaultRule(kind=FaultKind.LOST_BEFORE, action=ask.action)
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Transient) as told:
        ask.ask(cloud)

    assert told.value.cause is Cause.EC2_UNREACHABLE
    assert told.value.what.startswith(ask.what)
    assert len(calls) == TRIES_MAX
    assert botocore_waits


@each_call
def test_a_code_nobody_knows(shared_refusing: Refusing, ask: Ask) -> None:
    """A refusal with an unknown code is for a human, who is told the code."""
    rule = FaultRule(kind=FaultKind.ERROR, action=ask.action, code="Novelty", message=WORDS)
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Unfit) as told:
        ask.ask(cloud)

    assert told.value.cause == "unknown code Novelty"
    assert told.value.what.endswith(f"Novelty: {WORDS}")
    assert told.value.hint
    assert len(calls) == 1


def test_a_name_in_use(shared_refusing: Refusing) -> None:
    """The one InvalidParameterValue that another name cures asks for another name."""
    (ask,) = (ask for ask in ASKS if ask.action == "AttachVolume")
    rule = FaultRule(
        kind=FaultKind.ERROR,
        action=ask.action,
        code="InvalidParameterValue",
        message="Invalid value '/dev/xvdba' for unixDevice. "
        "Attachment point /dev/xvdba is already in use",
    )
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(NameTaken):
        ask.ask(cloud)
    assert len(calls) == 1


def test_burned_tokens(shared_refusing: Refusing) -> None:
    """A burned token is followed by the next of its series, in the end by a human."""
    (ask,) = (ask for ask in ASKS if ask.action == "CreateVolume")
    rule = refusal(ask, "IdempotentParameterMismatch")
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Unfit) as told:
        ask.ask(cloud)

    assert told.value.cause is Cause.TOKENS_BURNED
    assert told.value.hint
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
    """A volume that is not attached is detached, one that is gone is deleted."""
    (ask,) = (ask for ask in ASKS if ask.action == action)
    with shared_refusing.refusing(refusal(ask, code)) as (cloud, calls):
        ask.ask(cloud)
    assert len(calls) == 1


def test_without_credentials(shared_refusing: Refusing, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance without a role is told what to attach, and EC2 is not even asked."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    shared_refusing.forget_credentials()
    (ask,) = (ask for ask in ASKS if ask.action == "CreateVolume")
    rule = refusal(ask, "AuthFailure")
    with shared_refusing.refusing(rule) as (cloud, calls), pytest.raises(Unfit) as told:
        ask.ask(cloud)

    assert (told.value.cause, calls) == ("credentials", [])
    assert "instance profile" in told.value.hint
