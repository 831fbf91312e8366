"""What each EC2 error code means: its cause and what an operator can do. Pure.

EC2's service model declares no error shapes, so the code is all there is. Sources:
https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html and the predicates in
https://github.com/kubernetes-sigs/aws-ebs-csi-driver/blob/master/pkg/cloud/cloud.go
"""

import re
from typing import NamedTuple

from ebs_autoscale.ec2.iam import Denial, denial_in
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Exit, NameTaken, Transient, Unfit


class Denied(Unfit):
    """EC2 denies a call; `denial` is None when its message does not say which action."""

    def __init__(self, what: str, denial: Denial | None) -> None:
        said = f"{what}: {denial.sentence}" if denial else what
        super().__init__(said, hint=denial.hint if denial else _DENIED.hint, cause=Cause.DENIED)
        self.denial = denial


class Meaning(NamedTuple):
    """What an error code means: its cause, and a hint where an operator has to act."""

    cause: Cause
    hint: str = ""

    @property
    def family(self) -> type[EbsAutoscaleError]:
        """Unfit where an operator has to act, else Transient."""
        return Unfit if self.cause.exit is Exit.UNFIT else Transient


_THROTTLED = Meaning(Cause.THROTTLED)
_SERVER_ERROR = Meaning(Cause.EC2_ERROR)
_STATE = Meaning(Cause.STATE)
_NOT_VISIBLE = Meaning(Cause.NOT_VISIBLE)
_MAPPING_NOT_VISIBLE = Meaning(Cause.MAPPING_NOT_VISIBLE)
_TOKEN_MISMATCH = Meaning(Cause.TOKEN_MISMATCH)
_TOKEN_SPENT = Meaning(Cause.TOKEN_SPENT)
_CAPACITY = Meaning(
    Cause.CAPACITY, "insufficient capacity for this volume type in this Availability Zone"
)
_CREDENTIALS = Meaning(Cause.CREDENTIALS, "check the instance profile and the clock of this host")
_ACCOUNT = Meaning(Cause.CREDENTIALS, "check that the AWS account and the role are active")
_DENIED = Meaning(
    Cause.DENIED, "allow it in the instance's role; `ebs-autoscale iam-policy` prints the policy"
)
# EC2's message says until when.
_MODIFICATIONS = Meaning(Cause.MODIFICATIONS)
_QUOTA = Meaning(
    Cause.QUOTA, "request an increase of the EBS quota in this Region (Service Quotas)"
)
_VOLUME_KIND = Meaning(Cause.VOLUME_KIND, "choose a volume.type that this Availability Zone offers")
_UNSUPPORTED = Meaning(
    Cause.VOLUME_KIND,
    "choose a volume.type that is offered here, or an instance type that supports it",
)
_REQUEST = Meaning(Cause.REQUEST, "correct the `volume` section of the configuration")
_NOT_CONFIGURED = "no key of the configuration leads to this: please report it"
_TAGS = Meaning(
    Cause.REQUEST, "correct volume.tags, or set volume.copy_instance_tags to false if it is true"
)
_TAG_POLICY = Meaning(
    Cause.REQUEST,
    "set the tags that the tag policy of the AWS organization requires in volume.tags",
)
_ZONE_UNKNOWN = Meaning(
    Cause.INSTANCE, "check that AWS_ENDPOINT_URL_EC2, if set, is of the instance's own Region"
)
_ZONE_MISMATCH = Meaning(
    Cause.ZONE,
    "the volume is in another Availability Zone or Outpost than this instance: delete it if it "
    "has no data",
)
_NOT_PERMITTED = Meaning(
    Cause.DENIED,
    "EC2 never allows this for this volume or instance, whatever the role: its message says why",
)
_KMS = Meaning(
    Cause.KMS,
    "check the KMS key (volume.kms_key_id, or the account's default key for EBS): it must exist in "
    "this Region, be enabled and not pending deletion, and the role must be allowed to use it",
)
_NO_ENCRYPTION = Meaning(
    Cause.KMS, "use an instance type that supports EBS encryption, or set volume.encrypted: false"
)
_SLOTS = Meaning(Cause.SLOTS, "use an instance type with more attachment slots")
_INSTANCE = Meaning(Cause.INSTANCE, "the instance is shutting down, or its metadata is out of date")
_NO_EBS = Meaning(Cause.INSTANCE, "this instance does not support EBS: use another instance type")
# Nothing in a configuration leads to these.
_PROGRAM = Meaning(Cause.PROGRAM, "this is a bug in ebs-autoscale: please report it")
_UNKNOWN_CODE = Meaning(
    Cause.UNKNOWN_CODE, "unrecognised EC2 error; look it up in the EC2 API error codes"
)

MEANINGS: dict[str, Meaning] = {
    "DryRunOperation": Meaning(Cause.DRY_RUN),
    "RequestLimitExceeded": _THROTTLED,
    "EC2ThrottledException": _THROTTLED,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "RequestThrottled": _THROTTLED,
    "SlowDown": _THROTTLED,
    "TooManyRequestsException": _THROTTLED,
    "InternalError": _SERVER_ERROR,
    "InternalFailure": _SERVER_ERROR,
    "ServerInternal": _SERVER_ERROR,
    "ServiceUnavailable": _SERVER_ERROR,
    "Unavailable": _SERVER_ERROR,
    "RequestTimeout": _SERVER_ERROR,
    "RetryableError": _SERVER_ERROR,
    "ConcurrentTagAccess": _SERVER_ERROR,
    "RequestExpired": _CREDENTIALS,
    "InvalidSecurity.RequestHasExpired": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "ExpiredToken": _CREDENTIALS,
    "ExpiredTokenException": _CREDENTIALS,
    "RequestTimeTooSkewed": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "AuthFailure": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "MissingAuthenticationToken": _CREDENTIALS,
    "IncompleteSignature": _CREDENTIALS,
    "OptInRequired": _ACCOUNT,
    "Blocked": _ACCOUNT,
    "PendingVerification": _ACCOUNT,
    "AccountDisabled": _ACCOUNT,
    "UnauthorizedOperation": _DENIED,
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "TagPolicyViolation": _TAG_POLICY,
    "OperationNotPermitted": _NOT_PERMITTED,
    "IdempotentParameterMismatch": _TOKEN_MISMATCH,
    "VolumeLimitExceeded": _QUOTA,
    "MaxIOPSLimitExceeded": _QUOTA,
    "ResourceLimitExceeded": _QUOTA,
    "VolumeIOPSLimit": _QUOTA,
    "VolumeModificationSizeLimitExceeded": _QUOTA,
    "InsufficientVolumeCapacity": _CAPACITY,
    "VolumeTypeNotAvailableInZone": _VOLUME_KIND,
    "UnknownVolumeType": _VOLUME_KIND,
    "UnsupportedOperation": _UNSUPPORTED,
    "Unsupported": _UNSUPPORTED,
    "InvalidParameterValue": _REQUEST,
    "InvalidParameterCombination": _REQUEST,
    "InvalidParameterDependency": _REQUEST,
    "InvalidParameter": _REQUEST,
    "MissingParameter": _REQUEST,
    "UnknownParameter": _REQUEST,
    "ValidationError": _REQUEST,
    "InvalidInput": _REQUEST,
    "InvalidRequest": _REQUEST,
    "InvalidZone.NotFound": _ZONE_UNKNOWN,
    "InvalidAvailabilityZone": _ZONE_UNKNOWN,
    "InvalidClientToken": _PROGRAM,
    "InvalidVolumeID.Malformed": _PROGRAM,
    "InvalidInstanceID.Malformed": _PROGRAM,
    "InvalidFilter": _PROGRAM,
    "FilterLimitExceeded": _PROGRAM,
    "InvalidMaxResults": _PROGRAM,
    # The next listing begins with the first page again.
    "InvalidNextToken": _SERVER_ERROR,
    "InvalidPaginationToken": _SERVER_ERROR,
    "TagLimitExceeded": _TAGS,
    "InvalidTagKey.Malformed": _TAGS,
    "CustomerKeyHasBeenRevoked": _KMS,
    "EncryptedVolumesNotSupported": _NO_ENCRYPTION,
    "InvalidVolume.NotFound": _NOT_VISIBLE,
    "InvalidVolumeModification.NotFound": _NOT_VISIBLE,
    "IncorrectState": _STATE,
    "IncorrectModificationState": _MODIFICATIONS,
    "VolumeModificationRateExceeded": _MODIFICATIONS,
    "InvalidAttachment.NotFound": _STATE,
    "VolumeInUse": _STATE,
    "AttachmentLimitExceeded": _SLOTS,
    "InvalidInstanceID.NotFound": _INSTANCE,
    "IncorrectInstanceState": _INSTANCE,
    "NonEBSInstance": _NO_EBS,
    "InvalidVolume.ZoneMismatch": _ZONE_MISMATCH,
    "InvalidVolumeID.ZoneMismatch": _ZONE_MISMATCH,
    "InvalidInstanceAttributeValue": _MAPPING_NOT_VISIBLE,
    "InvalidBlockDeviceMapping": _MAPPING_NOT_VISIBLE,
    "UnsupportedInstanceAttribute": _MAPPING_NOT_VISIBLE,
}


# What can be told of a code that is not listed: EC2 has several for each of these, and adds more.
_FAMILIES = (
    (re.compile(r"kms|customerkey", re.IGNORECASE), _KMS),
    (re.compile(r"throttl", re.IGNORECASE), _THROTTLED),
    (re.compile(r"^Insufficient\w*Capacity"), _CAPACITY),
    (re.compile(r"(LimitExceeded|QuotaExceeded)$"), _QUOTA),
    (re.compile(r"TagKey|TagValue|TagParam"), _TAGS),
)


def meaning_of(code: str, *, status: int) -> Meaning:
    """What a code means; an unknown one is a server error by its status, else for an operator."""
    if code in MEANINGS:
        return MEANINGS[code]
    if status >= 500:
        return _SERVER_ERROR
    return next((each for known, each in _FAMILIES if known.search(code)), _UNKNOWN_CODE)


def translated(
    what: str, *, code: str, message: str, status: int, operation: str = ""
) -> EbsAutoscaleError:
    """The error to raise for EC2's answer to a call: what failed, its code and message, a hint."""
    # The one InvalidParameterValue that another device name cures.
    if "is already in use" in message and "ttachment point" in message:
        return NameTaken(f"{what}: {message}", cause=Cause.NAME_TAKEN)
    meaning = meaning_of(code, status=status)
    # The same code answers for a token whose volume was deleted.
    if meaning is _TOKEN_MISMATCH and "already deleted" in message:
        meaning = _TOKEN_SPENT
    if meaning is _REQUEST and "client token" in message.lower():
        meaning = _PROGRAM
    if meaning is _DENIED:
        denial = denial_in(message)
        return Denied(f"{what}: {code}" if denial else f"{what}: {code}: {message}", denial)
    hint = meaning.hint
    # Only this call has parameters that an operator chose.
    if meaning is _REQUEST and operation not in {"", "CreateVolume"}:
        hint = _NOT_CONFIGURED
    return meaning.family(f"{what}: {code}: {message}", hint=hint, cause=meaning.cause)
