"""What each error code of EC2 means."""

import pytest

from ebs_autoscale.ec2.errors import MEANINGS, meaning_of, translated
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Exit, NameTaken, Transient, Unfit


@pytest.mark.parametrize("code", MEANINGS)
def test_every_row(code: str) -> None:
    """Every known code becomes its family and cause, with EC2's own message and our hint."""
    meaning = MEANINGS[code]
    error = translated("create a volume", code=code, message="No.", status=400)
    assert isinstance(error, meaning.family)
    assert (error.cause, error.hint) == (meaning.cause, meaning.hint)
    assert error.what.startswith("create a volume")
    assert error.what.endswith(f"{code}: No.")


@pytest.mark.parametrize("code", MEANINGS)
def test_operators_are_told_what_to_do(code: str) -> None:
    """What needs an operator has a hint, and is Unfit exactly where its cause says so."""
    meaning = MEANINGS[code]
    assert meaning.family in {Transient, Unfit}
    assert (meaning.family is Unfit) == (meaning.cause.exit is Exit.UNFIT)
    assert meaning.hint or meaning.family is Transient


@pytest.mark.parametrize(
    ("code", "family", "cause", "first_seconds"),
    [
        ("RequestLimitExceeded", Transient, Cause.THROTTLED, 5),
        ("UnauthorizedOperation", Unfit, Cause.DENIED, 600),
        ("VolumeLimitExceeded", Unfit, Cause.QUOTA, 600),
        ("InsufficientVolumeCapacity", Transient, Cause.CAPACITY, 60),
        ("AttachmentLimitExceeded", Unfit, Cause.SLOTS, 300),
        ("IdempotentParameterMismatch", Transient, Cause.TOKEN_MISMATCH, 5),
        ("InvalidVolume.NotFound", Transient, Cause.NOT_VISIBLE, 5),
        ("IncorrectState", Transient, Cause.STATE, 5),
        ("ExpiredToken", Unfit, Cause.CREDENTIALS, 60),
        ("CustomerKeyHasBeenRevoked", Unfit, Cause.KMS, 600),
        ("InvalidParameterValue", Unfit, Cause.REQUEST, 600),
    ],
)
def test_the_reaction(
    code: str, family: type[EbsAutoscaleError], cause: Cause, first_seconds: float
) -> None:
    """The codes that matter most have the family, cause and back-off that fit them."""
    error = translated("attach", code=code, message="No.", status=400)
    assert isinstance(error, family)
    assert error.cause is cause
    assert cause.backoff.first_seconds == first_seconds


@pytest.mark.parametrize(
    ("code", "cause", "advice"),
    [
        ("TagPolicyViolation", Cause.REQUEST, "volume.tags"),
        ("TagLimitExceeded", Cause.REQUEST, "volume.copy_instance_tags"),
        ("InvalidTagKey.Malformed", Cause.REQUEST, "volume.tags"),
        ("InvalidVolume.ZoneMismatch", Cause.ZONE, "Outpost"),
        ("InvalidZone.NotFound", Cause.INSTANCE, "AWS_ENDPOINT_URL_EC2"),
        ("OperationNotPermitted", Cause.DENIED, "whatever the role"),
        ("EncryptedVolumesNotSupported", Cause.KMS, "volume.encrypted"),
        ("NonEBSInstance", Cause.INSTANCE, "does not support EBS"),
        ("Unsupported", Cause.VOLUME_KIND, "instance type"),
        # Not in EC2's list of codes, or not yet.
        ("InvalidKMSKey.InvalidState", Cause.KMS, "enabled"),
        ("KMSKeyNotAccessibleFault", Cause.KMS, "volume.kms_key_id"),
        ("KmsInvalidStateException", Cause.KMS, "pending deletion"),
        ("CustomerKeyDisabled", Cause.KMS, "default key for EBS"),
        ("InsufficientOutpostCapacity", Cause.CAPACITY, "insufficient capacity"),
        ("Client.ThrottledException", Cause.THROTTLED, ""),
        ("MaxThroughputLimitExceeded", Cause.QUOTA, "Service Quotas"),
        ("StorageQuotaExceeded", Cause.QUOTA, "Service Quotas"),
        ("InvalidTagValue", Cause.REQUEST, "volume.tags"),
        ("Surprise", Cause.UNKNOWN_CODE, "unrecognised"),
    ],
)
def test_the_advice_is_true(code: str, cause: Cause, advice: str) -> None:
    """The hint names what an operator can change about this error."""
    error = translated("create", code=code, message="No.", status=400, operation="CreateVolume")
    assert (error.cause, advice in error.hint) == (cause, True)


@pytest.mark.parametrize("code", ["InvalidParameterValue", "MissingParameter"])
@pytest.mark.parametrize("operation", ["AttachVolume", "DescribeVolumes", "DetachVolume"])
def test_a_parameter_that_is_not_configured(code: str, operation: str) -> None:
    """Only CreateVolume has parameters of the configuration; for others it is not to blame."""
    error = translated("it", code=code, message="No.", status=400, operation=operation)
    assert (error.cause, "report" in error.hint) == (Cause.REQUEST, True)


def test_a_client_token_that_is_refused() -> None:
    """The client token is ours, not the operator's."""
    message = "Client token must be at most 64 characters"
    error = translated("create", code="InvalidParameterValue", message=message, status=400)
    assert error.cause is Cause.PROGRAM


def test_a_token_of_a_deleted_volume() -> None:
    """The message tells a token whose volume was deleted from one with other parameters."""
    code = "IdempotentParameterMismatch"
    message = "The volume with this client token was already deleted."
    assert translated("create", code=code, message=message, status=400).cause is Cause.TOKEN_SPENT


@pytest.mark.parametrize("code", ["InvalidParameterValue", "AttachmentLimitExceeded", "Other"])
@pytest.mark.parametrize(
    "message",
    [
        "Invalid value '/dev/xvdba' for unixDevice. Attachment point /dev/xvdba is already in use",
        "The attachment point /dev/xvdba is already in use by another volume.",
    ],
)
def test_a_name_in_use_asks_for_another(code: str, message: str) -> None:
    """A device name in use is recognised by EC2's message, whatever the code."""
    error = translated("attach", code=code, message=message, status=400)
    assert type(error) is NameTaken
    assert error.cause is Cause.NAME_TAKEN


@pytest.mark.parametrize(
    ("status", "family", "cause"),
    [
        (400, Unfit, Cause.UNKNOWN_CODE),
        (403, Unfit, Cause.UNKNOWN_CODE),
        (500, Transient, Cause.EC2_ERROR),
        (503, Transient, Cause.EC2_ERROR),
    ],
)
def test_unknown_codes(status: int, family: type[EbsAutoscaleError], cause: Cause) -> None:
    """An unknown code is a server error if the status says so, else it needs an operator."""
    meaning = meaning_of("Surprise", status=status)
    assert (meaning.family, meaning.cause) == (family, cause)
