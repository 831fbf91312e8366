"""Actions that modify volumes."""

from collections.abc import Mapping
from typing import Any

from ec2_sandbox.api import create_request, filters, responses, validation
from ec2_sandbox.api.request import Effect, Request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.world import transitions
from ec2_sandbox.world.state import Shape, Volume, VolumeState, World

# EC2 API reference, ModifyVolume, since January 2026: four in a rolling day, one at a time.
_MODIFICATIONS_PER_DAY = 4
_DAY_SECONDS = 24 * 3600.0

_FACETS: filters.Facets[Volume] = {
    "volume-id": lambda volume: [volume.id],
    "modification-state": lambda volume: filters.words(
        volume.modification and volume.modification.state
    ),
}


def modify_volume(world: World, request: Request) -> Effect:
    """ModifyVolume: change size, type or performance."""
    params = request.params
    validation.refuse_unsupported(params, ("MultiAttachEnabled",))
    volume = world.volume(validation.well_formed(params["VolumeId"], "vol"))
    if volume.state not in (VolumeState.AVAILABLE, VolumeState.IN_USE):
        raise ApiError("IncorrectState", f"{volume.id} is in the '{volume.state}' state.")
    target = _target_shape(volume.shape, params)
    _check_modification_rate(world, volume)
    create_request.check_quota(world, volumes=0, gib=target.size_gib - volume.shape.size_gib)

    def effect() -> dict[str, Any]:
        modification = transitions.begin_modify(world, volume, target, stuck=request.stuck)
        return {"VolumeModification": responses.modification(world, volume.id, modification)}

    return effect


def describe_volumes_modifications(world: World, request: Request) -> Effect:
    """DescribeVolumesModifications: the last modification of each volume that has one."""
    params = request.params
    wanted = params.get("VolumeIds")
    volumes = list(world.volumes.values())
    if wanted:
        volumes = [world.volume(validation.well_formed(each, "vol")) for each in wanted]
        for volume in volumes:
            if volume.modification is None:
                raise ApiError(
                    "InvalidVolumeModification.NotFound",
                    f"Modification for volume '{volume.id}' does not exist.",
                )
    kept = filters.select([volume for volume in volumes if volume.modification], params, _FACETS)
    shown, next_token = filters.page(
        kept, params, lambda volume: f"{volume.ordinal:08d}", least=1, most=500
    )
    return lambda: {
        "VolumesModifications": [
            responses.modification(world, volume.id, volume.modification)
            for volume in shown
            if volume.modification
        ],
        "NextToken": next_token,
    }


def _target_shape(present: Shape, params: Mapping[str, Any]) -> Shape:
    type_name = params.get("VolumeType", present.type)
    size = validation.size_gib(params.get("Size", present.size_gib), type_name=type_name)
    if size < present.size_gib:
        raise ApiError("InvalidParameterValue", "New size cannot be smaller than existing size")
    keeps = type_name == present.type and validation.volume_type(type_name).iops is not None
    target = create_request.shape_of(
        type_name,
        size,
        params.get("Iops", present.iops if keeps else None),
        params.get("Throughput", present.throughput if keeps else None),
    )
    if target == present:
        raise ApiError("InvalidParameterValue", "The volume already has these properties")
    return target


def _check_modification_rate(world: World, volume: Volume) -> None:
    last = volume.modification
    if last is not None and last.state != "completed":
        raise ApiError(
            "IncorrectModificationState", f"Volume {volume.id} is in the '{last.state}' state."
        )
    recent = [at for at in volume.modified_at if world.now - at < _DAY_SECONDS]
    if len(recent) >= _MODIFICATIONS_PER_DAY:
        wait_seconds = recent[0] + _DAY_SECONDS - world.now
        raise ApiError(
            "VolumeModificationRateExceeded",
            "You've reached the maximum modification rate per volume limit. "
            f"Wait at least {wait_seconds / 3600:.1f} hours between modifications.",
        )
