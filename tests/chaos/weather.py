"""What goes wrong in a round: drawn from a seeded generator, so that a seed tells a story again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from ec2_sandbox.faults import FaultKind, FaultRule

# One round in so many meets an attach that hangs or brings no device: the growth waits 90 s
# before it takes such a volume back, and nothing makes that shorter.
HANGING_EVERY = 80

# One round in so many has to come to rest by the daemon's own waits, however long they are.
PATIENT_EVERY = 50

MUTATIONS = ("CreateVolume", "AttachVolume", "ModifyInstanceAttribute")
ACTIONS = (*MUTATIONS, "DescribeVolumes", "DescribeInstances", "DescribeInstanceTypes")

# What the daemon's log says when a step begins: a kill that waits for it falls inside the step,
# one that waits for nothing into the look before. The volume that was bought a moment ago and is
# not to be seen yet is the likeliest to be bought again.
STEPS = {
    "": 1,
    "grow: ": 1,
    "create a volume": 1,
    "attach the volume": 3,
    "add the device": 1,
    "settle metadata": 1,
}


class Victim(StrEnum):
    """Who is killed: the loop, the growth, or both at once."""

    DAEMON = "daemon"
    GROWTH = "growth"
    BOTH = "both"


class Deed(StrEnum):
    """What an operator does to a volume that is not a device yet."""

    NONE = "none"
    DETACH = "operator detach"
    DELETE = "operator delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL, so many seconds after the log has these words, or after those seconds anyway."""

    victim: Victim
    words: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """One round's misfortune; a patient one lets the daemon get out of it without a restart."""

    names: tuple[str, ...]
    faults: tuple[FaultRule, ...]
    kills: tuple[Kill, ...]
    deed: Deed
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


_ERROR = FaultKind.ERROR
_FAULTS: Mapping[str, tuple[int, Callable[[Random], FaultRule]]] = {
    "lost before": (6, lambda dice: _lost(dice, FaultKind.LOST_BEFORE)),
    "lost after": (6, lambda dice: _lost(dice, FaultKind.LOST_AFTER)),
    "throttled 30 %": (6, lambda _: FaultRule(kind=FaultKind.THROTTLE, probability=0.3)),
    "5xx 30 %": (6, _http),
    "held": (6, _held),
    "not found": (3, lambda _: _rule(_ERROR, "AttachVolume", 1, "InvalidVolume.NotFound")),
    "mapping": (
        3,
        lambda _: _rule(_ERROR, "ModifyInstanceAttribute", 2, "InvalidInstanceAttributeValue"),
    ),
    "denied": (2, lambda dice: _rule(_ERROR, dice.choice(ACTIONS), 1, "UnauthorizedOperation")),
    "quota": (2, lambda _: _rule(_ERROR, "CreateVolume", 1, "VolumeLimitExceeded")),
    "capacity": (2, lambda _: _rule(_ERROR, "CreateVolume", 1, "InsufficientVolumeCapacity")),
    "token burned": (1, lambda _: _rule(_ERROR, "CreateVolume", 1, "IdempotentParameterMismatch")),
    "slots": (2, lambda _: _rule(_ERROR, "AttachVolume", 1, "AttachmentLimitExceeded")),
}


def storm_of(dice: Random, *, number: int) -> Storm:
    """The storm of this round; `number` counts the rounds of all hosts, from 0."""
    if number % HANGING_EVERY in {HANGING_EVERY // 4, HANGING_EVERY * 3 // 4}:
        kind = FaultKind.STUCK if number % HANGING_EVERY < HANGING_EVERY // 2 else FaultKind.GHOST
        return _hanging(kind)
    weights = [weight for weight, _ in _FAULTS.values()]
    names = dict.fromkeys(dice.choices(list(_FAULTS), weights, k=dice.randint(0, 2)))
    faults = tuple(_FAULTS[name][1](dice) for name in names)
    deed = dice.choices(list(Deed), (80, 10, 10))[0]
    kills = tuple(_kill(dice) for _ in range(dice.choices((0, 1, 2), (20, 60, 20))[0]))
    return Storm(
        names=(*names, *(() if deed is Deed.NONE else (deed.value,))),
        faults=faults,
        # Which volume is no device yet can be known for sure only while the growth stands still.
        kills=kills if deed is Deed.NONE else (),
        deed=deed,
        patient=number % PATIENT_EVERY == PATIENT_EVERY - 1,
        seconds=dice.uniform(1.5, 5.0),
    )


def _hanging(kind: FaultKind) -> Storm:
    return Storm(
        names=(kind.value,),
        faults=(_rule(kind, "AttachVolume"),),
        kills=(),
        deed=Deed.NONE,
        patient=True,
        seconds=6.0,
    )


def _kill(dice: Random) -> Kill:
    return Kill(
        victim=dice.choices(list(Victim), (1, 1, 2))[0],
        words=dice.choices(list(STEPS), list(STEPS.values()))[0],
        seconds=dice.choice((0.0, dice.uniform(0, 0.3), dice.uniform(0, 2.0))),
    )
