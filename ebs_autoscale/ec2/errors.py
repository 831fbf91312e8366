"""What each EC2 error code means for us: code, family, cause, hint. Pure.

Sources: EC2 API reference, "Error codes"; the EBS CSI driver's predicates.
EC2's service model declares no error shapes, so the code string is all there is.
"""

from typing import NamedTuple

from ebs_autoscale.ec2.iam import denial_in
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Exit, NameTaken, Transient, Unfit


class Meaning(NamedTuple):
    """What a code means: its cause, and what an operator can do."""

    cause: Cause
    hint: str = ""

    @property
    def family(self) -> type[EbsAutoscaleError]:
        """Unfit where an operator has to act, else Transient: what the cause's exit code says."""
        return Unfit if self.cause.exit is Exit.UNFIT else Transient


_THROTTLED = Meaning(Cause.THROTTLED)
_SERVER = Meaning(Cause.EC2_ERROR)
_STATE = Meaning(Cause.STATE)
_UNSEEN = Meaning(Cause.NOT_VISIBLE)
_CREDENTIALS = Meaning(Cause.CREDENTIALS, "check the instance profile and the clock")
_ACCOUNT = Meaning(Cause.CREDENTIALS, "check that the account and its role are active")
_DENIED = Meaning(
    Cause.DENIED, "allow it in the instance's role; `ebs-autoscale iam-policy` prints the policy"
)
_QUOTA = Meaning(Cause.QUOTA, "raise the account's EBS quota in this Region")
_CAPACITY = Meaning(Cause.CAPACITY, "EC2 has no room for this volume type in the zone now")
_KIND = Meaning(Cause.VOLUME_KIND, "choose another volume.type for this zone")
_REQUEST = Meaning(Cause.REQUEST, "correct the volume section of the configuration")
_KMS = Meaning(Cause.KMS, "check volume.kms_key_id and the role's rights on that key")
_SLOTS = Meaning(Cause.SLOTS, "use an instance type with more attachment slots")
_INSTANCE = Meaning(Cause.INSTANCE, "the instance is going away or its identity is stale")
_MAPPING = Meaning(Cause.MAPPING_NOT_VISIBLE)
# Nothing that an operator wrote leads to these.
_PROGRAM = Meaning(Cause.PROGRAM, "this is a mistake in ebs-autoscale itself: please report it")

_BURNED = Meaning(Cause.TOKEN_BURNED)
# The same code, for one that bought a volume that is no more.
_SPENT = Meaning(Cause.TOKEN_SPENT)

MEANINGS: dict[str, Meaning] = {
    "DryRunOperation": Meaning(Cause.DRY_RUN),
    "RequestLimitExceeded": _THROTTLED,
    "EC2ThrottledException": _THROTTLED,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "RequestThrottled": _THROTTLED,
    "SlowDown": _THROTTLED,
    "TooManyRequestsException": _THROTTLED,
    "InternalError": _SERVER,
    "InternalFailure": _SERVER,
    "ServerInternal": _SERVER,
    "ServiceUnavailable": _SERVER,
    "Unavailable": _SERVER,
    "RequestTimeout": _SERVER,
    "RetryableError": _SERVER,
    "ConcurrentTagAccess": _SERVER,
    "RequestExpired": _CREDENTIALS,
    "InvalidSecurity.RequestHasExpired": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "ExpiredToken": _CREDENTIALS,
    "AuthFailure": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "MissingAuthenticationToken": _CREDENTIALS,
    "IncompleteSignature": _CREDENTIALS,
    "OptInRequired": _ACCOUNT,
    "Blocked": _ACCOUNT,
    "PendingVerification": _ACCOUNT,
    "AccountDisabled": _ACCOUNT,
    "UnauthorizedOperation": _DENIED,
    "TagPolicyViolation": _DENIED,
    "OperationNotPermitted": _DENIED,
    "IdempotentParameterMismatch": _BURNED,
    "VolumeLimitExceeded": _QUOTA,
    "MaxIOPSLimitExceeded": _QUOTA,
    "ResourceLimitExceeded": _QUOTA,
    "VolumeIOPSLimit": _QUOTA,
    "InsufficientVolumeCapacity": _CAPACITY,
    "VolumeTypeNotAvailableInZone": _KIND,
    "UnknownVolumeType": _KIND,
    "UnsupportedOperation": _KIND,
    "Unsupported": _KIND,
    "InvalidParameterValue": _REQUEST,
    "InvalidParameterCombination": _REQUEST,
    "InvalidParameterDependency": _REQUEST,
    "InvalidParameter": _REQUEST,
    "MissingParameter": _REQUEST,
    "UnknownParameter": _REQUEST,
    "ValidationError": _REQUEST,
    "InvalidInput": _REQUEST,
    "InvalidRequest": _REQUEST,
    "InvalidZone.NotFound": _REQUEST,
    "InvalidAvailabilityZone": _REQUEST,
    "InvalidClientToken": _PROGRAM,
    "InvalidVolumeID.Malformed": _PROGRAM,
    "InvalidInstanceID.Malformed": _PROGRAM,
    "InvalidFilter": _PROGRAM,
    "FilterLimitExceeded": _PROGRAM,
    "InvalidMaxResults": _PROGRAM,
    # The next look begins with the first page again.
    "InvalidNextToken": _SERVER,
    "InvalidPaginationToken": _SERVER,
    "TagLimitExceeded": _REQUEST,
    "InvalidTagKey.Malformed": _REQUEST,
    "CustomerKeyHasBeenRevoked": _KMS,
    "EncryptedVolumesNotSupported": _KMS,
    "InvalidVolume.NotFound": _UNSEEN,
    "IncorrectState": _STATE,
    "InvalidAttachment.NotFound": _STATE,
    "VolumeInUse": _STATE,
    "AttachmentLimitExceeded": _SLOTS,
    "InvalidInstanceID.NotFound": _INSTANCE,
    "IncorrectInstanceState": _INSTANCE,
    "NonEBSInstance": _INSTANCE,
    "InvalidVolume.ZoneMismatch": _INSTANCE,
    "InvalidVolumeID.ZoneMismatch": _INSTANCE,
    "InvalidInstanceAttributeValue": _MAPPING,
    "InvalidBlockDeviceMapping": _MAPPING,
    "UnsupportedInstanceAttribute": _MAPPING,
}


def meaning_of(code: str, *, status: int) -> Meaning:
    """The table's row; an unknown code is transient when the server failed, else for a human."""
    if code in MEANINGS:
        return MEANINGS[code]
    if status >= 500:
        return _SERVER
    return Meaning(Cause.UNKNOWN_CODE, "this code is new to us; see the EC2 API errors")


def translated(what: str, *, code: str, message: str, status: int) -> EbsAutoscaleError:
    """The error to raise for EC2's answer: what failed, EC2's own words, and a hint."""
    # The one InvalidParameterValue that another name cures.
    if "is already in use" in message and "ttachment point" in message:
        return NameTaken(f"{what}: {message}", cause=Cause.NAME_TAKEN)
    meaning = meaning_of(code, status=status)
    if meaning is _BURNED and "already deleted" in message:
        meaning = _SPENT
    family, cause = meaning.family, meaning.cause
    if cause is Cause.DENIED and (denial := denial_in(message)):
        return family(f"{what}: {code}: {denial.sentence}", hint=denial.hint, cause=cause)
    return family(f"{what}: {code}: {message}", hint=meaning.hint, cause=cause)
