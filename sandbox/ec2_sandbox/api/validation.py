"""Validation of request parameters: names, ids, sizes, volume types, tags."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ec2_sandbox.errors import ApiError

# Documented are sd[a-z], xvd[b-c][a-z], sda1 and sda2; EC2 accepts the others as well, up to xvddx
# (EBS CSI driver, pkg/cloud/devicemanager/device_names.go). The prefix is optional.
_DEVICE_NAME = re.compile(r"(/dev/)?(sd[a-z]|sda[12]|xvd[a-z]|xvd[a-c][a-z]|xvdd[a-x])")
_ID = {
    "vol": (re.compile(r"vol-([0-9a-f]{8}|[0-9a-f]{17})"), "InvalidVolumeID.Malformed"),
    "snap": (re.compile(r"snap-([0-9a-f]{8}|[0-9a-f]{17})"), "InvalidSnapshotID.Malformed"),
    "i": (re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})"), "InvalidInstanceID.Malformed"),
}
_TOKEN_LENGTH = 64
# EC2 user guide, "Tag your Amazon EC2 resources", restrictions
_TAGS_PER_RESOURCE = 50
_TAG_KEY_LENGTH = 128
_TAG_VALUE_LENGTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRules:
    """The limits of a volume type; a range without a default means that a value is required."""

    size_gib: tuple[int, int]
    iops: tuple[int, int] | None = None
    iops_default: int | None = None
    iops_per_gib: int = 0
    throughput: tuple[int, int] | None = None


# EC2 API reference, CreateVolume; ratios from the EBS CSI driver, pkg/cloud/cloud.go
TYPES: Mapping[str, TypeRules] = {
    "gp3": TypeRules(
        size_gib=(1, 65536),
        iops=(3000, 80000),
        iops_default=3000,
        iops_per_gib=500,
        throughput=(125, 2000),
    ),
    "gp2": TypeRules(size_gib=(1, 16384)),
    "io2": TypeRules(size_gib=(4, 65536), iops=(100, 256000), iops_per_gib=1000),
    "io1": TypeRules(size_gib=(4, 16384), iops=(100, 64000), iops_per_gib=50),
    "st1": TypeRules(size_gib=(125, 16384)),
    "sc1": TypeRules(size_gib=(125, 16384)),
    "standard": TypeRules(size_gib=(1, 1024)),
}
# gp3: at most 0.25 MiB/s of throughput per provisioned IOPS
_IOPS_PER_MIB = 4
# gp2: 3 IOPS per GiB, within these limits
_GP2_IOPS = (100, 16000)


def well_formed(value: str, kind: str) -> str:
    """Return an id of this kind (`vol`, `snap` or `i`) unchanged; raises ApiError ….Malformed."""
    pattern, code = _ID[kind]
    if not pattern.fullmatch(value):
        raise ApiError(code, f'Invalid id: "{value}"')
    return value


def device_name(value: str) -> str:
    """Return a valid device name unchanged; raises ApiError InvalidParameterValue."""
    if not _DEVICE_NAME.fullmatch(value):
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter device is invalid. "
            f"{value} is not a valid EBS device name.",
        )
    return value


def client_token(value: str) -> None:
    """Refuse an invalid client token."""
    if len(value) > _TOKEN_LENGTH:
        raise ApiError(
            "InvalidParameterValue", f"Client token must be at most {_TOKEN_LENGTH} characters"
        )
    if not value.isascii():
        raise ApiError("InvalidClientToken", "Client token must be ASCII")


def refuse_unsupported(params: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse parameters that EC2 has and that the sandbox does not support."""
    for name in names:
        if params.get(name):
            raise ApiError("UnsupportedOperation", f"The sandbox does not support {name}")


def volume_type(name: str) -> TypeRules:
    """Look up a volume type; raises ApiError UnknownVolumeType."""
    if name not in TYPES:
        raise ApiError(
            "UnknownVolumeType", f"Unsupported volume type '{name}' for volume creation."
        )
    return TYPES[name]


def size_gib(size: int, *, type_name: str) -> int:
    """Return a size unchanged if the volume type allows it."""
    least, most = volume_type(type_name).size_gib
    if size < least:
        raise _invalid(f"Volume of {size}GiB is too small for {type_name}; minimum is {least}GiB.")
    if size > most:
        raise _invalid(f"Volume of {size}GiB is too large for {type_name}; maximum is {most}GiB.")
    return size


def iops(wanted: int | None, *, type_name: str, size: int) -> int | None:
    """The IOPS of a volume by the rules of its type."""
    rules = volume_type(type_name)
    if rules.iops is None:
        _must_be_absent("iops", wanted, type_name)
        least, most = _GP2_IOPS
        return min(most, max(least, 3 * size)) if type_name == "gp2" else None
    if wanted is None:
        if rules.iops_default is None:
            raise ApiError(
                "MissingParameter", f"The parameter iops must be specified for {type_name} volumes."
            )
        return rules.iops_default
    _in_range("iops", wanted, rules.iops)
    if wanted > max(rules.iops[0], rules.iops_per_gib * size):
        ratio = f"{wanted / size:.1f} is too high; maximum is {rules.iops_per_gib}"
        raise _invalid(f"Iops to volume size ratio of {ratio}")
    return wanted


def throughput(wanted: int | None, *, type_name: str, operations: int | None) -> int | None:
    """The throughput of a volume in MiB/s by the rules of its type."""
    rules = volume_type(type_name)
    if rules.throughput is None:
        _must_be_absent("throughput", wanted, type_name)
        return None
    if wanted is None:
        return rules.throughput[0]
    _in_range("throughput", wanted, rules.throughput)
    if operations and wanted * _IOPS_PER_MIB > operations:
        raise _invalid(
            f"Throughput (MiBps) to iops ratio of {wanted / operations} is too high; "
            f"maximum is {1 / _IOPS_PER_MIB} MiBps per iops."
        )
    return wanted


def tags(given: Iterable[Mapping[str, str]], present: Mapping[str, str]) -> dict[str, str]:
    """Validate tags for a resource that already has those in `present`."""
    wanted: dict[str, str] = {}
    for tag in given:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if key in wanted:
            raise _invalid(f"Duplicate tag key '{key}' specified.")
        if not 0 < len(key) <= _TAG_KEY_LENGTH:
            raise _invalid(f"Tag key '{key}' must have 1 to {_TAG_KEY_LENGTH} characters")
        if key.lower().startswith("aws:"):
            raise _invalid("Tag keys starting with 'aws:' are reserved for internal use")
        if len(value) > _TAG_VALUE_LENGTH:
            raise _invalid(
                f"Tag value exceeds the maximum length of {_TAG_VALUE_LENGTH} characters"
            )
        wanted[key] = value
    if len({*present, *wanted}) > _TAGS_PER_RESOURCE:
        raise ApiError("TagLimitExceeded", "The maximum number of tags for a resource is reached.")
    return wanted


def _in_range(name: str, value: int, allowed: tuple[int, int]) -> None:
    least, most = allowed
    if value < least:
        raise _invalid(f"Volume {name} of {value} is too low; minimum is {least}.")
    if value > most:
        raise _invalid(f"Volume {name} of {value} is too high; maximum is {most}.")


def _must_be_absent(name: str, value: int | None, type_name: str) -> None:
    if value is not None:
        raise ApiError(
            "InvalidParameterCombination",
            f"The parameter {name} is not supported for {type_name} volumes.",
        )


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValue", message)
