"""What each answer of EC2 means for us."""

import pytest

from ebs_autoscale.ec2.errors import MEANINGS, meaning_of, translated
from ebs_autoscale.errors import Cause, EbsAutoscaleError, NameTaken, Transient, Unfit
from ebs_autoscale.policy.backoff import BY_CAUSE, DEFAULT


@pytest.mark.parametrize("code", MEANINGS)
def test_every_row(code: str) -> None:
    """Every code we know becomes its family and cause, with EC2's own words and our hint."""
    family, cause, hint = MEANINGS[code]
    error = translated("create a volume", code=code, message="No.", status=400)
    assert type(error) is family
    assert error.cause == cause
    assert error.what == f"create a volume: {code}: No."
    assert error.hint == hint


@pytest.mark.parametrize("code", [code for code, row in MEANINGS.items() if row.family is Unfit])
def test_who_has_to_act_is_told_what_to_do(code: str) -> None:
    """What waits for a human has a hint."""
    assert MEANINGS[code].hint


@pytest.mark.parametrize(
    ("code", "family", "cause", "first_seconds"),
    [
        ("RequestLimitExceeded", Transient, "throttled", 5),
        ("UnauthorizedOperation", Unfit, "denied", 600),
        ("VolumeLimitExceeded", Unfit, "quota", 600),
        ("InsufficientVolumeCapacity", Transient, "capacity", 60),
        ("AttachmentLimitExceeded", Unfit, "slots", 300),
        ("IdempotentParameterMismatch", Transient, "token burned", 600),
        ("InvalidVolume.NotFound", Transient, "not visible", 5),
        ("IncorrectState", Transient, "state", 5),
        ("ExpiredToken", Unfit, "credentials", 60),
        ("CustomerKeyHasBeenRevoked", Unfit, "kms", 600),
        ("InvalidParameterValue", Unfit, "request", 600),
    ],
)
def test_the_reaction(
    code: str, family: type[EbsAutoscaleError], cause: str, first_seconds: float
) -> None:
    """The codes that matter most lead to the reaction their nature asks for."""
    error = translated("it", code=code, message="No.", status=400)
    assert (type(error), error.cause) == (family, cause)
    assert BY_CAUSE.get(cause, DEFAULT).first_seconds == first_seconds


@pytest.mark.parametrize("code", ["InvalidParameterValue", "AttachmentLimitExceeded", "Other"])
@pytest.mark.parametrize(
    "message",
    [
        "Invalid value '/dev/xvdba' for unixDevice. Attachment point /dev/xvdba is already in use",
        "The attachment point /dev/xvdba is already in use by another volume.",
    ],
)
def test_a_name_in_use_asks_for_another(code: str, message: str) -> None:
    """A taken attachment point is known by its words, whatever the code."""
    error = translated("attach", code=code, message=message, status=400)
    assert type(error) is NameTaken
    assert error.cause is Cause.NAME_TAKEN


@pytest.mark.parametrize(
    ("status", "family", "cause"),
    [
        (400, Unfit, "unknown code Surprise"),
        (403, Unfit, "unknown code Surprise"),
        (500, Transient, "ec2 ill"),
        (503, Transient, "ec2 ill"),
    ],
)
def test_unknown_codes(status: int, family: type[EbsAutoscaleError], cause: str) -> None:
    """A code we do not know passes when the server is at fault, else a human has to look."""
    assert meaning_of("Surprise", status=status)[:2] == (family, cause)
