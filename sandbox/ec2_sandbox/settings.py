"""The settings of a sandbox: its identity, its limits and its latencies."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

from ec2_sandbox.errors import InputInvalid
from ec2_sandbox.iam.policy import Policy

Span = tuple[float, float]
"""Minimum and maximum of a latency in seconds; each one is drawn evenly from that range."""

_NO_TIME: Span = (0.0, 0.0)
_MAY_BE_NEGATIVE = ("device_seconds", "size_seconds")
_HOUR = 3600.0


BlockDevices = Literal["none", "nitro", "xen"]
"""How an attached volume appears in /dev: not at all, by its id, under the requested name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """Everything that can be configured; by default, every transition completes at once.

    Times are seconds of the sandbox clock, except `call_seconds`, for which a client really
    waits. `device_seconds` counts from the end of `attach_seconds` and may be negative: the
    block device then appears before the API says `attached`.
    """

    seed: int = 0
    block_devices: BlockDevices = "none"

    failing_devices: bool = False
    """Whether block devices can be made to fail (`fail_device`): each is then a second loop device
    over the first."""

    partition: str = "aws"
    region: str = "us-east-1"
    zone: str = "us-east-1a"
    zone_id: str = "use1-az1"
    account_id: str = "123456789012"
    instance_id: str = "i-0123456789abcdef0"
    instance_type: str = "m5.large"
    instance_tags: Mapping[str, str] = field(default_factory=dict)
    tags_in_metadata: bool = True
    outpost_arn: str = ""
    """The Outpost of the instance; it attaches only volumes that were created there."""
    image_id: str = "ami-0123456789abcdef0"
    role: str | None = "sandbox"
    credentials_seconds: float = 6 * _HOUR
    """How long the credentials of the role are valid, by the sandbox clock."""
    policy: Mapping[str, Any] | None = None
    """The IAM policy of the role, applied to every caller; None allows everything."""
    root_device: str = "/dev/xvda"
    root_size_gib: int = 8
    network_interfaces: int = 1

    attachment_limit: int | None = 27
    """As reported by DescribeInstanceTypes; None means not reported and not enforced."""
    attachment_limit_type: str = "shared"
    ebs_cards: int = 1
    """Each has an equal share of the attachments; calls use card 0 unless they name another."""
    quota_volumes: int = 5000
    quota_gib: int = 50 * 1024
    quota_modified_gib: int = 500 * 1024
    """The target sizes of all modifications that are under way, in total."""
    modifications: int = 4
    modifications_seconds: float = 24 * _HOUR
    """At most `modifications` of a volume in that time; before 2026, EC2 allowed one in 6 hours."""
    elastic_volumes: bool = True
    """Whether a volume can be modified while it is attached to an instance of this type."""
    request_buckets: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """For actions that are throttled, capacity and refill per second: EC2 has 50 and 5 for
    ModifyVolume."""
    hidden_device_names: tuple[str, ...] = ()
    """Device names in use that DescribeInstances does not show, as some images have them."""
    encryption_by_default: bool = False
    failing_kms_keys: tuple[str, ...] = ()
    """Keys that EC2 accepts but cannot use: the volume disappears instead of becoming available."""

    date_ahead_seconds: float = 0.0
    """How far the Date header of every response is ahead of this host's clock."""
    speed: float = 1.0
    call_seconds: Span = _NO_TIME
    create_seconds: Span = _NO_TIME
    visibility_seconds: Span = _NO_TIME
    flicker_seconds: Span = _NO_TIME
    flicker_probability: float = 0.5
    attach_seconds: Span = _NO_TIME
    device_seconds: Span = _NO_TIME
    detach_seconds: Span = _NO_TIME
    delete_seconds: Span = _NO_TIME
    modify_seconds: Span = _NO_TIME
    growth_seconds: Span = _NO_TIME
    """From the state `optimizing` to the growth of the block device."""
    size_seconds: Span = _NO_TIME
    """From the state `optimizing` until DescribeVolumes shows the new size; may be negative, since
    EC2 has been seen to show it early (pull request 552 of kubernetes-sigs/aws-ebs-csi-driver)."""
    optimize_seconds: Span = _NO_TIME
    terminate_seconds: Span = _NO_TIME
    # Measured by the EBS CSI driver (pkg/cloud/cloud.go); AWS does not document it.
    token_memory_seconds: float = 12 * _HOUR

    def __post_init__(self) -> None:
        if problems := list(_problems(self)):
            raise InputInvalid("sandbox settings: " + "; ".join(problems))

    @classmethod
    def instant(cls, **changes: Any) -> Self:
        """Every transition completes at once: for tests."""
        return cls(**changes)

    @classmethod
    def realistic(cls, **changes: Any) -> Self:
        """Typical latencies of EC2: for demonstrations."""
        return replace(
            cls(
                create_seconds=(1.0, 2.0),
                attach_seconds=(1.5, 3.0),
                device_seconds=(0.05, 0.5),
                detach_seconds=(1.0, 4.0),
                delete_seconds=(0.5, 2.0),
                modify_seconds=(2.0, 6.0),
                growth_seconds=(0.05, 0.5),
                optimize_seconds=(30.0, 60.0),
                terminate_seconds=(5.0, 10.0),
            ),
            **changes,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a JSON object of settings; its key `preset` may be `instant` or `realistic`.

        Raises InputInvalid.
        """
        try:
            wanted = json.loads(text)
        except ValueError as error:
            raise InputInvalid(f"sandbox settings are not JSON: {error}") from error
        if not isinstance(wanted, dict):
            raise InputInvalid("sandbox settings are not a JSON object")
        presets = {"instant": cls.instant, "realistic": cls.realistic}
        preset = wanted.pop("preset", "instant")
        if preset not in presets:
            raise InputInvalid(
                f"sandbox settings: unknown preset {preset!r}", hint=_hint(preset, presets)
            )
        known = {each.name for each in fields(cls)}
        for name in wanted.keys() - known:
            raise InputInvalid(f"sandbox settings: unknown key {name!r}", hint=_hint(name, known))
        return presets[preset](**{name: _frozen(value) for name, value in wanted.items()})

    def to_json(self) -> str:
        """Return the JSON object that `from_json` reads."""
        return json.dumps(asdict(self))

    @property
    def instance_arn(self) -> str:
        """The ARN of the simulated instance."""
        place = f"{self.partition}:ec2:{self.region}:{self.account_id}"
        return f"arn:{place}:instance/{self.instance_id}"

    @property
    def slots(self) -> int | None:
        """How many volumes can be attached, root volume included; None when not enforced."""
        if self.attachment_limit is None:
            return None
        shared = self.attachment_limit_type == "shared"
        return self.attachment_limit - (self.network_interfaces - 1 if shared else 0)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _hint(word: object, known: Iterable[str]) -> str:
    names = sorted(known)
    close = get_close_matches(str(word), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def _problems(settings: SandboxSettings) -> Iterator[str]:
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.type == Span:
            yield from _span_problems(each.name, value)
    if settings.block_devices not in get_args(BlockDevices):
        known = ", ".join(get_args(BlockDevices))
        yield f"block_devices is {settings.block_devices!r}, not one of {known}"
    for action, bucket in settings.request_buckets.items():
        if len(bucket) != len(_NO_TIME) or min(bucket) < 0:
            yield f"request_buckets: {action} is {bucket!r}, not a pair of capacity and refill"
    if not 0 <= settings.flicker_probability <= 1:
        yield f"flicker_probability {settings.flicker_probability} is not between 0 and 1"
    if settings.policy is not None:
        try:
            Policy.from_document(settings.policy)
        except InputInvalid as error:
            yield error.what
    if settings.speed < 0:
        yield f"speed {settings.speed} is negative"


def _span_problems(name: str, value: Any) -> Iterator[str]:
    if not (isinstance(value, tuple) and len(value) == len(_NO_TIME)):
        yield f"{name} is {value!r}, not a pair of minimum and maximum seconds"
    elif value[0] > value[1]:
        yield f"{name} {value} has a minimum above its maximum"
    elif value[0] < 0 and name not in _MAY_BE_NEGATIVE:
        yield f"{name} {value} is negative"
