"""What can go wrong: families of errors, the cause of each, and the exit codes."""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, Self


class Exit(IntEnum):
    """What the exit status of every verb means, as documented in --help, README and man page."""

    SUCCESS = 0
    FAILED = 1
    USAGE = 2
    LOCKED = 3
    REFUSED = 4
    UNFIT = 5


class Backoff(NamedTuple):
    """First and longest wait before the next try, in seconds; equal for a mere re-check.

    `urgent_seconds` is the longest one that is needed while a writer uses up the last space.
    """

    first_seconds: float
    max_seconds: float
    urgent_seconds: float


class Reaction(Enum):
    """What a growth does about a step that failed."""

    RETRY = "end; the next growth repeats the step"
    REPEAT = "look again and go on from there, some times in a growth"
    SET_ASIDE = "leave this volume to the operator and grow with another one"
    SET_ASIDE_ONCE = "the same, but only for one volume in a growth"
    REPLACE = "delete the volume if this growth created it, and grow with another one, once"
    DELETE_NEW_VOLUME = "delete the volume if this growth created it, then end"


# One instance of a fleet must not hammer an account's shared request buckets (5 mutating and 20
# describing calls a second for the whole account), and an operator takes minutes to answer at best.
#
# What a try costs while it is urgent: every growth begins with describing calls, so an outage costs
# no others, and boto3 makes at most 5 of them. With jitter a wait of 10 s is 6 s on average: 50
# calls a minute, fewer the longer it lasts (`policy.backoff`). What fails after them costs 4
# describing calls and a CreateVolume, 3 to 4 times a minute with 30 s. So 80 hosts can be as urgent
# at once before they use up an account's CreateVolume, and 25 its DescribeVolumes in an outage;
# then they are throttled, which is one of the 30 s.
_URGENT, _URGENT_COSTLY = 10.0, 30.0
_DEFAULT = Backoff(5.0, 300.0, _URGENT)
# Only the configuration or an operator changes a limit, and a reload asks again at once.
_RECHECK = Backoff(300.0, 300.0, 60.0)
_OPERATOR = Backoff(600.0, 600.0, _URGENT_COSTLY)


class Cause(Enum):
    """Why something failed or is wrong, with the reactions to it.

    `value` is the published name (CAUSE in the journal, keys of `conditions` in the status file).
    `exit` is the exit code of a verb that ends so, `backoff` the wait before the next growth,
    `reaction` what the growth does that meets it.
    """

    exit: Exit
    backoff: Backoff
    reaction: Reaction

    # Limits of the configuration.
    LIMIT_VOLUMES = "limits.volumes", Exit.REFUSED, _RECHECK
    LIMIT_TOTAL = "limits.total", Exit.REFUSED, _RECHECK
    LIMIT_MONTHLY = "limits.monthly", Exit.REFUSED, _RECHECK
    LIMIT_SIZE = "growth.max", Exit.REFUSED, _RECHECK
    LIMIT_COOLDOWN = "limits.cooldown", Exit.REFUSED, Backoff(30.0, 30.0, _URGENT)
    VOLUME_TYPE = "volume.type", Exit.REFUSED
    METHOD = "growth.method", Exit.REFUSED, _RECHECK
    # EC2's own limit. A try costs at most one call for each volume, since EC2 does not show what is
    # left of a day's modifications.
    MODIFICATIONS = "modifications", Exit.REFUSED, Backoff(300.0, 900.0, 60.0)

    # EC2, for an operator.
    QUOTA = "quota", Exit.UNFIT, Backoff(600.0, 3600.0, _URGENT_COSTLY)
    DENIED = "denied", Exit.UNFIT, _OPERATOR
    CREDENTIALS = "credentials", Exit.UNFIT, Backoff(60.0, 300.0, _URGENT)
    REQUEST = "request", Exit.UNFIT, _OPERATOR
    VOLUME_KIND = "volume kind", Exit.UNFIT, _OPERATOR
    KMS = "kms", Exit.UNFIT, _OPERATOR
    PROGRAM = "program", Exit.UNFIT, _OPERATOR
    UNKNOWN_CODE = "unknown code", Exit.UNFIT, _OPERATOR
    # Each try creates a volume for some seconds if the real limit is not the published one.
    SLOTS = "slots", Exit.UNFIT, Backoff(300.0, 1800.0, 300.0), Reaction.DELETE_NEW_VOLUME
    # A try asks for a volume with each token, and only time makes them good again.
    TOKENS_BURNED = "token burned", Exit.UNFIT, Backoff(600.0, 3600.0, 600.0)
    INSTANCE = "instance", Exit.UNFIT
    IMDS = "imds", Exit.UNFIT
    # Two volumes were created and deleted when a growth ends so: no reason to hurry.
    VOLUME_LOST = "volume lost", Exit.UNFIT, Backoff(60.0, 1800.0, 60.0), Reaction.REPLACE
    ATTACHED_ELSEWHERE = "attached elsewhere", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE
    NOT_DETACHED = "not detached", Exit.UNFIT
    ZONE = "zone", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE

    # EC2, may succeed later.
    CAPACITY = "capacity", Exit.FAILED, Backoff(60.0, 900.0, _URGENT_COSTLY)
    THROTTLED = "throttled", Exit.FAILED, Backoff(5.0, 300.0, _URGENT_COSTLY)
    EC2_ERROR = "ec2 error", Exit.FAILED
    EC2_UNREACHABLE = "ec2 unreachable", Exit.FAILED
    IMDS_UNANSWERED = "imds unanswered", Exit.FAILED
    STATE = "state", Exit.FAILED
    NOT_VISIBLE = "not visible", Exit.FAILED, _DEFAULT, Reaction.REPEAT
    INSTANCE_NOT_VISIBLE = "instance not visible", Exit.FAILED
    MAPPING_NOT_VISIBLE = "mapping not visible", Exit.FAILED
    NAME_TAKEN = "name taken", Exit.FAILED
    TOKEN_MISMATCH = "token mismatch", Exit.FAILED
    TOKEN_SPENT = "token spent", Exit.FAILED
    DRY_RUN = "dry run", Exit.FAILED
    SLOW_CREATE = "slow create", Exit.FAILED, _DEFAULT, Reaction.REPLACE
    VOLUME_DETACHED = "volume detached", Exit.FAILED, _DEFAULT, Reaction.REPEAT
    ATTACH = "attach", Exit.FAILED
    STUCK_ATTACH = "stuck attach", Exit.FAILED, _DEFAULT, Reaction.REPLACE
    STUCK_DETACH = "stuck detach", Exit.FAILED, _DEFAULT, Reaction.REPLACE

    # A larger volume; another one is enlarged meanwhile.
    SLOW_MODIFICATION = "slow modification", Exit.FAILED, _RECHECK
    MODIFICATION_FAILED = "modification failed", Exit.FAILED, Backoff(60.0, 900.0, 60.0)
    OLD_SIZE = "old size", Exit.FAILED, _RECHECK

    # Block devices.
    NOT_BLANK = "not blank", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE
    UNWRITABLE = "unwritable", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE
    IN_USE = "in use", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE
    # What claims one new device, such as multipathd, claims each of them.
    CLAIMED = "claimed", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE_ONCE
    SIZE = "size", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE
    DEVICE = "device", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE_ONCE
    DEVICE_UNREADABLE = "device unreadable", Exit.UNFIT, _DEFAULT, Reaction.SET_ASIDE

    # The partition that is to be extended.
    PARTITION = "partition", Exit.UNFIT
    NOT_GROWABLE = "not growable", Exit.UNFIT, _OPERATOR

    # The filesystem.
    MISSING = "missing", Exit.UNFIT
    NOT_MOUNTED = "not mounted", Exit.UNFIT
    NOT_BTRFS = "not btrfs", Exit.UNFIT
    READ_ONLY = "read-only", Exit.UNFIT
    OTHER_FILESYSTEM = "other filesystem", Exit.UNFIT
    COPY = "copy", Exit.UNFIT
    UNREADABLE = "unreadable", Exit.UNFIT
    MISSING_DEVICE = "missing device", Exit.UNFIT
    DEVICE_ERRORS = "device errors", Exit.FAILED
    FULL = "full", Exit.FAILED
    QGROUP_LIMIT = "qgroup limit", Exit.FAILED
    INCOMPLETE_ADD = "incomplete add", Exit.UNFIT
    STUCK_ADD = "stuck add", Exit.UNFIT, Backoff(30.0, 60.0, 30.0)
    ADD = "add", Exit.FAILED
    RESIZE = "resize", Exit.FAILED
    EXCLUSIVE_OPERATION = "exclusive operation", Exit.FAILED
    BALANCE = "balance", Exit.FAILED
    UNBALANCED = "unbalanced", Exit.FAILED, Backoff(600.0, 3600.0, 600.0)
    READING = "reading", Exit.FAILED
    RESERVE = "reserve", Exit.UNFIT
    RESERVE_FAILED = "reserve failed", Exit.FAILED
    # A look at EC2 each time, for as long as somebody goes on removing it.
    RESERVE_MISSING = "reserve missing", Exit.FAILED, Backoff(10.0, 900.0, 900.0)
    NOT_EMPTY = "not empty", Exit.UNFIT
    MOUNT_IN_USE = "mount in use", Exit.FAILED

    # The host.
    NOT_ROOT = "not root", Exit.UNFIT
    CAPABILITY = "capability", Exit.UNFIT, _OPERATOR
    NO_BTRFS_PROGS = "no btrfs-progs", Exit.UNFIT
    MISSING_TOOL = "missing tool", Exit.UNFIT
    COMMAND = "command", Exit.FAILED
    HOST = "host", Exit.FAILED
    FILE = "file", Exit.UNFIT
    FSTAB = "fstab", Exit.UNFIT
    UNIT = "unit", Exit.UNFIT
    INSTALLATION = "installation", Exit.UNFIT
    LOCK = "lock", Exit.UNFIT
    LOCKED = "locked", Exit.LOCKED, Backoff(1.0, 5.0, 5.0)
    PROCESS = "process", Exit.UNFIT
    METRICS = "metrics", Exit.FAILED
    NOTIFY = "notify", Exit.FAILED
    MACHINE_ID = "machine id", Exit.UNFIT
    MKFS = "mkfs", Exit.UNFIT
    MOUNT = "mount", Exit.UNFIT
    MOUNTPOINT = "mountpoint", Exit.UNFIT
    OTHER_SETUP = "other setup", Exit.UNFIT

    # The configuration and the command line.
    CONFIGURATION = "configuration", Exit.USAGE
    USAGE = "usage", Exit.USAGE

    # Reported as warnings or by the daemon itself.
    UNPROTECTED = "unprotected", Exit.FAILED
    UNUSED_VOLUMES = "unused volumes", Exit.UNFIT
    DIED = "died", Exit.FAILED
    STUCK = "stuck", Exit.FAILED
    STATUS_FILE = "status file", Exit.FAILED
    REPLACED = "program replaced", Exit.FAILED

    def __new__(
        cls,
        name: str,
        exit_code: Exit,
        backoff: Backoff = _DEFAULT,
        reaction: Reaction = Reaction.RETRY,
    ) -> Self:
        """Take the published name as the value, so that `Cause(name)` finds the cause."""
        cause = object.__new__(cls)
        cause._value_ = name
        cause.exit, cause.backoff, cause.reaction = exit_code, backoff, reaction
        return cause


def with_hint(sentence: str, hint: str) -> str:
    """What is wrong and what to do about it, as a person reads them."""
    # EC2's own messages end in a full stop.
    return f"{sentence.removesuffix('.')}; {hint}" if hint else sentence


class EbsAutoscaleError(Exception):
    """An expected failure: what failed, with which values, and what to do about it."""

    def __init__(self, what: str, *, cause: Cause, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.cause = cause

    def __str__(self) -> str:
        return with_hint(self.what, self.hint)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong for a while; `volume` is an EBS volume id if it is about one."""

    cause: Cause
    sentence: str
    hint: str = ""
    volume: str = ""

    @classmethod
    def of_error(cls, error: EbsAutoscaleError) -> Self:
        """The problem that an error tells of."""
        return cls(error.cause, error.what, error.hint)

    @property
    def key(self) -> str:
        """What identifies it; also its name in the status file."""
        return f"{self.cause.value} {self.volume}".strip()

    @property
    def line(self) -> str:
        """What is wrong and what to do about it, as a person reads them."""
        return with_hint(self.sentence, self.hint)


class Transient(EbsAutoscaleError):
    """The same step may succeed later, unchanged: try again after a back-off."""


class Unfit(EbsAutoscaleError):
    """Waiting alone will not help, an operator has to act: keep polling and say so."""


class NameTaken(Transient):
    """The device name asked for is in use, perhaps invisibly: ask for another."""


class LockHeld(EbsAutoscaleError):
    """Another process works on this filesystem: nothing was changed."""


class Refused(EbsAutoscaleError):
    """A limit forbids it: nothing was created."""


class ConfigInvalid(EbsAutoscaleError):
    """The configuration or the command line is wrong: nothing was changed."""

    def __init__(self, what: str, *, cause: Cause = Cause.CONFIGURATION, hint: str = "") -> None:
        super().__init__(what, cause=cause, hint=hint)


class CommandFailed(EbsAutoscaleError):
    """A tool ended with a non-zero status, was killed, or ran out of time.

    `status` is None when the tool was ended by our own timeout.
    """

    def __init__(self, argv: tuple[str, ...], status: int | None, stderr: str) -> None:
        ended = "timed out" if status is None else f"exit status {status}"
        tail = " / ".join(stderr.strip().splitlines()[-3:])
        what = f"`{' '.join(argv)}`: {ended}: {tail or 'no message'}"
        super().__init__(what, cause=Cause.COMMAND)
        self.argv = argv
        self.status = status
        self.stderr = stderr


class Stopped(Exception):
    """A stop was requested while waiting; the work goes on from here at the next start."""
