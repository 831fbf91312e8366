"""Actions that modify volumes."""

from collections.abc import Mapping
from typing import Any

from ec2_sandbox.api import create_request, filters, responses, validation
from ec2_sandbox.api.request import Effect, Request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.world import transitions
from ec2_sandbox.world.state import Modification, Shape, Volume, VolumeState, World

_CHANGES = ("Size", "VolumeType", "Iops", "Throughput")
# EC2 API reference, ModifyVolume: when the type changes to io1, io2 or gp3, the default is 3,000.
_IOPS_OF_NEW_TYPE = 3000

_Modified = tuple[Volume, Modification]
_FACETS: filters.Facets[_Modified] = {
    "volume-id": lambda each: [each[0].id],
    "modification-state": lambda each: [each[1].state],
    "original-size": lambda each: filters.words(each[1].original.size_gib),
    "original-iops": lambda each: filters.words(each[1].original.iops),
    "original-volume-type": lambda each: [each[1].original.type],
    "target-size": lambda each: filters.words(each[1].target.size_gib),
    "target-iops": lambda each: filters.words(each[1].target.iops),
    "target-volume-type": lambda each: [each[1].target.type],
}


def modify_volume(world: World, request: Request) -> Effect:
    """ModifyVolume: change size, type or performance."""
    params = request.params
    validation.refuse_unsupported(params, ("MultiAttachEnabled",))
    volume = world.volume(validation.well_formed(params["VolumeId"], "vol"))
    _check_can_be_modified(world, volume)
    target = _target_shape(volume.shape, params)
    _check_modification_rate(world, volume)
    _check_quota(world, volume, target)

    def effect() -> dict[str, Any]:
        modification = transitions.begin_modify(
            world,
            volume,
            target,
            stuck=request.stuck,
            ghost=request.ghost,
            failed=request.failed,
        )
        return {"VolumeModification": responses.modification(world, volume.id, modification)}

    return effect


def describe_volumes_modifications(world: World, request: Request) -> Effect:
    """DescribeVolumesModifications: the last visible modification of each volume that has one."""
    params = request.params
    wanted = params.get("VolumeIds")
    volumes = [volume for volume in world.volumes.values() if world.is_visible(volume)]
    if wanted:
        volumes = [world.volume(validation.well_formed(each, "vol")) for each in wanted]
        for volume in volumes:
            if not _visible(world, volume):
                raise ApiError(
                    "InvalidVolumeModification.NotFound",
                    f"Modification for volume '{volume.id}' does not exist.",
                )
    found = [(volume, each[-1]) for volume in volumes if (each := _visible(world, volume))]
    kept = filters.select(found, params, _FACETS)
    shown, next_token = filters.page(
        kept, params, lambda each: f"{each[0].ordinal:08d}", least=1, most=500
    )
    return lambda: {
        "VolumesModifications": [
            responses.modification(world, volume.id, modification) for volume, modification in shown
        ],
        "NextToken": next_token,
    }


def _visible(world: World, volume: Volume) -> list[Modification]:
    return [each for each in volume.modifications if each.visible_at <= world.now]


def _check_can_be_modified(world: World, volume: Volume) -> None:
    if volume.state not in (VolumeState.AVAILABLE, VolumeState.IN_USE):
        raise ApiError("IncorrectState", f"{volume.id} is in the '{volume.state}' state.")
    # EBS user guide, "Requirements for EBS volume modifications": magnetic volumes and volumes that
    # are attached to some old instance types cannot be modified. It does not say the code.
    if volume.shape.type == "standard":
        raise ApiError("UnsupportedOperation", "Volumes of the type standard cannot be modified.")
    if volume.attachment and not world.settings.elastic_volumes:
        raise ApiError(
            "UnsupportedOperation",
            f"Instance type {world.settings.instance_type} does not support the modification of "
            f"attached volumes. Detach {volume.id}, or stop the instance.",
        )


def _target_shape(present: Shape, params: Mapping[str, Any]) -> Shape:
    """The shape that is asked for; the present one is accepted, and counts as a modification.

    Source: pull request 1741 of kubernetes-sigs/aws-ebs-csi-driver.
    """
    if not params.keys() & set(_CHANGES):
        raise ApiError("MissingParameter", f"The request must contain one of {_CHANGES}")
    type_name = params.get("VolumeType", present.type)
    if type_name == "standard":
        raise ApiError("UnsupportedOperation", "No volume can be modified to the type standard.")
    size = validation.size_gib(params.get("Size", present.size_gib), type_name=type_name)
    if size < present.size_gib:
        raise ApiError("InvalidParameterValue", "New size cannot be smaller than existing size")
    has_iops = validation.volume_type(type_name).iops is not None
    same = type_name == present.type
    iops = present.iops if same else _IOPS_OF_NEW_TYPE
    return create_request.shape_of(
        type_name,
        size,
        params.get("Iops", iops if has_iops else None),
        params.get("Throughput", present.throughput if same else None),
    )


def _check_modification_rate(world: World, volume: Volume) -> None:
    last = volume.modification
    if last is not None and last.is_under_way:
        raise ApiError(
            "IncorrectModificationState",
            f"Volume {volume.id} cannot be modified in modification state {last.state.upper()}",
        )
    most, window = world.settings.modifications, world.settings.modifications_seconds
    recent = [at for at in volume.modified_at if world.now - at < window]
    if len(recent) >= most:
        possible_at = world.timeline.clock.moment(recent[-most] + window)
        # The first sentence is EC2's. "You get an error message that indicates when you can
        # perform your next modification" (EC2 API reference); its wording is not published.
        raise ApiError(
            "VolumeModificationRateExceeded",
            "You've reached the maximum modification rate per volume limit. The next modification "
            f"is possible at {possible_at:%Y-%m-%dT%H:%M:%SZ}.",
        )


def _check_quota(world: World, volume: Volume, target: Shape) -> None:
    create_request.check_quota(world, volumes=0, gib=target.size_gib - volume.shape.size_gib)
    under_way = [
        last.target.size_gib
        for each in world.volumes.values()
        if (last := each.modification) and last.is_under_way
    ]
    if sum(under_way) + target.size_gib > world.settings.quota_modified_gib:
        raise ApiError(
            "VolumeModificationSizeLimitExceeded",
            "You've reached the limit on your Amazon EBS volume modification storage in this "
            "Region.",
        )
