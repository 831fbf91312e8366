"""Actions that create, describe and delete volumes."""

from functools import partial
from typing import Any

from ec2_sandbox.api import create_request, filters, responses, validation
from ec2_sandbox.api.authorization import may_use_key
from ec2_sandbox.api.request import Effect, Request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.world import transitions
from ec2_sandbox.world.state import Volume, VolumeState, World
from ec2_sandbox.world.transitions import CreateEnding

_UNSUPPORTED = ("MultiAttachEnabled", "VolumeInitializationRate")
_FACETS: filters.Facets[Volume] = {
    "volume-id": lambda volume: [volume.id],
    "status": lambda volume: [volume.state],
    "size": lambda volume: [str(volume.shape.size_gib)],
    "volume-type": lambda volume: [volume.shape.type],
    "encrypted": lambda volume: filters.words(volume.encrypted),
    "multi-attach-enabled": lambda _: filters.words(False),  # noqa: FBT003 -- a value, no flag
    "fast-restored": lambda _: filters.words(False),  # noqa: FBT003 -- a value, no flag
    "operator.managed": lambda _: filters.words(False),  # noqa: FBT003 -- a value, no flag
    "operator.principal": lambda _: [],
    "snapshot-id": lambda volume: [volume.snapshot.id] if volume.snapshot else [],
    "attachment.device": lambda volume: _of_attachment(volume, "device"),
    "attachment.status": lambda volume: _of_attachment(volume, "state"),
    "attachment.delete-on-termination": lambda volume: _of_attachment(
        volume, "delete_on_termination"
    ),
}


def create_volume(world: World, request: Request) -> Effect:
    """CreateVolume: the same client token with the same parameters creates one volume."""
    params = request.params
    validation.refuse_unsupported(params, _UNSUPPORTED)
    validation.client_token(params.get("ClientToken", ""))
    create_request.check_zone(world, params)
    create_request.check_outpost(world, params)
    snapshot = create_request.snapshot(world, params)
    shape = create_request.wanted_shape(params, snapshot)
    key_arn = create_request.key_arn(world, params)
    tags = create_request.tags(params)
    # EC2 checks the quota before the client token (EBS CSI driver, pkg/cloud/cloud.go), and not in
    # a dry run.
    if not params.get("DryRun"):
        create_request.check_quota(world, volumes=1, gib=shape.size_gib)
    if known := create_request.replayed(world, params):
        return lambda: responses.volume(world, known)

    def effect() -> dict[str, Any]:
        volume = world.new_volume(shape)
        volume.tags = tags
        volume.encrypted = key_arn is not None
        volume.kms_key_arn = key_arn
        volume.outpost_arn = params.get("OutpostArn", "")
        volume.snapshot = snapshot
        create_request.remember(world, params, volume)
        ending = _ending(world, request, key_arn)
        transitions.begin_create(world, volume, ending=ending, stuck=request.stuck)
        return responses.volume(world, volume)

    return effect


def describe_volumes(world: World, request: Request) -> Effect:
    """DescribeVolumes: an id that is not visible is an error."""
    params = request.params
    filters.exclusive(params, "VolumeIds", "volumeSet")
    wanted = params.get("VolumeIds")
    if wanted:
        volumes = [world.volume(validation.well_formed(each, "vol")) for each in wanted]
    else:
        volumes = [volume for volume in world.volumes.values() if world.is_visible(volume)]
    facets = {**_FACETS, **_facets_of_world(world)}
    kept = filters.select(volumes, params, facets, lambda volume: volume.tags)
    shown, next_token = filters.page(kept, params, lambda volume: f"{volume.ordinal:08d}")
    return lambda: {
        "Volumes": [responses.volume(world, volume) for volume in shown],
        "NextToken": next_token,
    }


def delete_volume(world: World, request: Request) -> Effect:
    """DeleteVolume: only unattached volumes; no effect while the volume is being deleted."""
    volume = world.volume(validation.well_formed(request.params["VolumeId"], "vol"))
    if volume.attachment is not None:
        raise ApiError(
            "VolumeInUse", f"Volume {volume.id} is currently attached to {world.instance.id}"
        )
    if volume.state is VolumeState.DELETING:
        return lambda: None
    if volume.state is not VolumeState.ERROR:
        _require_available(volume)
    return partial(transitions.begin_delete, world, volume, stuck=request.stuck)


def _ending(world: World, request: Request, key_arn: str | None) -> CreateEnding:
    key = request.params.get("KmsKeyId")
    is_refused = key in world.settings.failing_kms_keys
    may_use = request.is_operator or may_use_key(world, str(key_arn))
    if key and (is_refused or not may_use):
        return CreateEnding.VANISHED
    if request.failed:
        return CreateEnding.ERROR
    return CreateEnding.DELETED if request.undone else CreateEnding.AVAILABLE


def _of_attachment(volume: Volume, attribute: str) -> list[str]:
    if volume.attachment is None:
        return []
    return filters.words(getattr(volume.attachment, attribute))


def _facets_of_world(world: World) -> filters.Facets[Volume]:
    def spelled(seconds: float) -> str:
        return world.timeline.clock.moment(seconds).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    return {
        "availability-zone": lambda _: [world.settings.zone],
        "availability-zone-id": lambda _: [world.settings.zone_id],
        "create-time": lambda volume: [spelled(volume.created_at)],
        "attachment.instance-id": lambda volume: [world.instance.id] if volume.attachment else [],
        "attachment.attach-time": lambda volume: (
            [spelled(volume.attachment.attached_at)] if volume.attachment else []
        ),
    }


def _require_available(volume: Volume) -> None:
    if volume.state is not VolumeState.AVAILABLE:
        raise ApiError("IncorrectState", f"{volume.id} is not 'available'.")
