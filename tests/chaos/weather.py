"""What goes wrong in a round, drawn from a seeded generator so that it can be repeated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from ec2_sandbox.faults import IMDS, FaultKind, FaultRule

from ebs_autoscale.model import DecisionKind, StepKind

# In three of this many rounds a volume is stuck: while it is created, while it is attached, or
# without a block device. The growth waits 90 s before it detaches a volume.
STUCK_EVERY = 80

# One of this many rounds has to recover without a restart, however long the daemon's waits are.
PATIENT_EVERY = 50

# In this share of the rounds a volume appears that looks like ours and is not.
FOREIGN_SHARE = 0.3

KINDS = ("restored", "restored newest", "copied", "removed", "another filesystem", "far", "plain")
"""With our tags: from a snapshot, with an old or the next ordinal; with the tags of a device; with
the ordinal of a device that was removed; of another filesystem; with an ordinal far above. And one
without tags. None of them is in a position to be the volume of the newest growth."""

TAKEN_OUT = "taken out"
"""What was a device, and not the newest one, until an operator removed it."""

ENLARGED = "enlarged"
"""A device whose volume an operator enlarges: its space is to be used as if we had done it."""

MUTATIONS = ("CreateVolume", "AttachVolume", "ModifyInstanceAttribute", "ModifyVolume")
ACTIONS = (
    *MUTATIONS,
    "DescribeVolumes",
    "DescribeInstances",
    "DescribeInstanceTypes",
    "DescribeVolumesModifications",
)


@dataclass(frozen=True, slots=True)
class Moment:
    """An event in the daemon's log: a decision, or the start of a step."""

    decision: DecisionKind | None = None
    step: StepKind | None = None


# When to kill, and how often: after one of these events, which is inside the step, or without
# waiting, which is before the growth has decided. A volume that was just created and is not visible
# yet is the most likely to be created twice, hence the weight of the attachment.
MOMENTS: Mapping[Moment | None, int] = {
    None: 1,
    Moment(decision=DecisionKind.GROW): 1,
    Moment(step=StepKind.CREATE_VOLUME): 1,
    Moment(step=StepKind.ATTACH_VOLUME): 3,
    Moment(step=StepKind.ADD_DEVICE): 1,
    Moment(step=StepKind.BALANCE_METADATA): 1,
    Moment(decision=DecisionKind.ENLARGE): 1,
    Moment(step=StepKind.ENLARGE_VOLUME): 2,
    Moment(step=StepKind.RESIZE_DEVICE): 1,
}


class Victim(StrEnum):
    """What is killed: the daemon, the growth, or both at once."""

    DAEMON = "daemon"
    GROWTH = "growth"
    BOTH = "both"


class Deed(StrEnum):
    """What an operator does to a volume that is not a device of the filesystem yet."""

    NONE = "none"
    DETACH = "operator detach"
    DELETE = "operator delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A volume that looks like ours and is not, see Meddler; it comes before or in a growth."""

    kind: str
    attached: bool
    early: bool

    @property
    def name(self) -> str:
        """The name of this storm."""
        return f"foreign: {self.kind}{' and attached' if self.attached else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL this many seconds after the moment, or after the storm if that never comes."""

    victim: Victim
    moment: Moment | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What goes wrong in a round; after a patient one the daemon is not restarted."""

    names: tuple[str, ...]
    faults: tuple[FaultRule, ...]
    kills: tuple[Kill, ...]
    deed: Deed
    foreign: Foreign | None
    patient: bool
    seconds: float


def _rule(kind: FaultKind, action: str, times: int | None = 1, code: str = "") -> FaultRule:
    return FaultRule(kind=kind, action=action, times=times, code=code)


def _lost(dice: Random, kind: FaultKind) -> FaultRule:
    return _rule(kind, dice.choice(ACTIONS), times=dice.randint(1, 3))


def _http(dice: Random) -> FaultRule:
    return FaultRule(
        kind=FaultKind.HTTP,
        status=dice.choice((500, 502, 503)),
        when=dice.choice(("before", "after")),
        probability=0.3,
    )


def _held(dice: Random) -> FaultRule:
    return FaultRule(
        kind=FaultKind.DELAY,
        action=dice.choice(ACTIONS),
        when=dice.choice(("before", "after")),
        seconds=dice.uniform(0.2, 1.5),
        times=2,
    )


def _imds(dice: Random) -> FaultRule:
    """The metadata service fails, drops requests, is late, drips or talks nonsense."""
    kind, seconds = dice.choice(
        (
            (FaultKind.HTTP, 0.0),
            (FaultKind.LOST_BEFORE, 0.0),
            (FaultKind.DELAY, dice.choice((1.5, 3.0))),
            (FaultKind.DRIP, 0.01),
            (FaultKind.JUNK, 0.0),
        )
    )
    return FaultRule(kind=kind, action=IMDS, seconds=seconds, probability=dice.choice((0.3, 1.0)))


_ERROR = FaultKind.ERROR
_FAULTS: Mapping[str, tuple[int, Callable[[Random], FaultRule]]] = {
    "lost before": (6, lambda dice: _lost(dice, FaultKind.LOST_BEFORE)),
    "lost after": (6, lambda dice: _lost(dice, FaultKind.LOST_AFTER)),
    "throttled 30 %": (6, lambda _: FaultRule(kind=FaultKind.THROTTLE, probability=0.3)),
    "5xx 30 %": (6, _http),
    "held": (6, _held),
    "IMDS": (4, _imds),
    "not found": (3, lambda _: _rule(_ERROR, "AttachVolume", 1, "InvalidVolume.NotFound")),
    "mapping": (
        3,
        lambda _: _rule(_ERROR, "ModifyInstanceAttribute", 2, "InvalidInstanceAttributeValue"),
    ),
    "denied": (2, lambda dice: _rule(_ERROR, dice.choice(ACTIONS), 1, "UnauthorizedOperation")),
    "quota": (2, lambda _: _rule(_ERROR, "CreateVolume", 1, "VolumeLimitExceeded")),
    "capacity": (2, lambda _: _rule(_ERROR, "CreateVolume", 1, "InsufficientVolumeCapacity")),
    "token burned": (1, lambda _: _rule(_ERROR, "CreateVolume", 1, "IdempotentParameterMismatch")),
    "ends in error": (3, lambda dice: _rule(FaultKind.FAILED, "CreateVolume", dice.randint(1, 2))),
    "deleted at once": (2, lambda _: _rule(FaultKind.UNDONE, "CreateVolume")),
    "detached at once": (2, lambda _: _rule(FaultKind.UNDONE, "AttachVolume")),
    "modification fails": (3, lambda _: _rule(FaultKind.FAILED, "ModifyVolume")),
    "modifications": (
        2,
        lambda _: _rule(_ERROR, "ModifyVolume", 1, "VolumeModificationRateExceeded"),
    ),
    "modifying": (2, lambda _: _rule(_ERROR, "ModifyVolume", 2, "IncorrectModificationState")),
    "slots": (2, lambda _: _rule(_ERROR, "AttachVolume", 1, "AttachmentLimitExceeded")),
}


def storm_of(dice: Random, *, number: int) -> Storm:
    """The storm of this round; `number` counts the rounds of all hosts, from 0."""
    if stuck := _STUCK.get(number % STUCK_EVERY):
        return _stuck(*stuck)
    weights = [weight for weight, _ in _FAULTS.values()]
    names = dict.fromkeys(dice.choices(list(_FAULTS), weights, k=dice.randint(0, 2)))
    faults = tuple(_FAULTS[name][1](dice) for name in names)
    deed = dice.choices(list(Deed), (80, 10, 10))[0]
    foreign = _foreign(dice) if dice.random() < FOREIGN_SHARE else None
    kills = tuple(_kill(dice) for _ in range(dice.choices((0, 1, 2), (20, 60, 20))[0]))
    return Storm(
        names=(
            *names,
            *(() if deed is Deed.NONE else (deed.value,)),
            *((foreign.name,) if foreign else ()),
        ),
        faults=faults,
        # An operator has to know which volume is no device yet, so nothing is killed meanwhile.
        kills=kills if deed is Deed.NONE else (),
        deed=deed,
        foreign=foreign,
        patient=number % PATIENT_EVERY == PATIENT_EVERY - 1,
        seconds=dice.uniform(1.5, 5.0),
    )


_STUCK: Mapping[int, tuple[FaultKind, str]] = {
    STUCK_EVERY // 4: (FaultKind.STUCK, "AttachVolume"),
    STUCK_EVERY // 2: (FaultKind.STUCK, "CreateVolume"),
    STUCK_EVERY * 3 // 4: (FaultKind.GHOST, "AttachVolume"),
}


def _foreign(dice: Random) -> Foreign:
    kind = dice.choice((*KINDS, TAKEN_OUT, TAKEN_OUT, ENLARGED, ENLARGED))
    if kind == TAKEN_OUT:
        return Foreign(kind=kind, attached=False, early=True)
    if kind == ENLARGED:
        return Foreign(kind=kind, attached=False, early=dice.random() < 0.5)
    return Foreign(kind=kind, attached=dice.random() < 0.3, early=dice.random() < 0.5)


def _stuck(kind: FaultKind, action: str) -> Storm:
    return Storm(
        names=(f"{kind} {action}",),
        faults=(_rule(kind, action),),
        kills=(),
        deed=Deed.NONE,
        foreign=None,
        patient=True,
        seconds=6.0,
    )


def _kill(dice: Random) -> Kill:
    return Kill(
        victim=dice.choices(list(Victim), (1, 1, 2))[0],
        moment=dice.choices(list(MOMENTS), list(MOMENTS.values()))[0],
        seconds=dice.choice((0.0, dice.uniform(0, 0.3), dice.uniform(0, 2.0))),
    )
