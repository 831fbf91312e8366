"""The EC2 actions that the sandbox plays."""

from collections.abc import Mapping
from typing import Any

from ec2_sandbox import (
    attachments_api,
    instances_api,
    modifications_api,
    tags_api,
    volumes_api,
)
from ec2_sandbox.apierror import ApiError
from ec2_sandbox.iam_requests import authorize
from ec2_sandbox.request import Action, Request
from ec2_sandbox.world import World

ACTIONS: Mapping[str, Action] = {
    "CreateVolume": volumes_api.create_volume,
    "DescribeVolumes": volumes_api.describe_volumes,
    "DeleteVolume": volumes_api.delete_volume,
    "ModifyVolume": modifications_api.modify_volume,
    "DescribeVolumesModifications": modifications_api.describe_volumes_modifications,
    "AttachVolume": attachments_api.attach_volume,
    "DetachVolume": attachments_api.detach_volume,
    "ModifyInstanceAttribute": attachments_api.modify_instance_attribute,
    "DescribeInstances": instances_api.describe_instances,
    "DescribeInstanceTypes": instances_api.describe_instance_types,
    "TerminateInstances": instances_api.terminate_instances,
    "CreateTags": tags_api.create_tags,
    "DeleteTags": tags_api.delete_tags,
    "DescribeTags": tags_api.describe_tags,
}


def perform(world: World, action: str, request: Request) -> dict[str, Any] | None:
    """Carry an action out at the present moment, or raise the ApiError that EC2 would answer."""
    if action not in ACTIONS:
        raise ApiError(
            "UnsupportedOperation",
            f"The sandbox does not play {action}; it plays {', '.join(ACTIONS)}",
        )
    with world.lock:
        world.timeline.run_due()
        authorize(world, action, request.params)
        effect = ACTIONS[action](world, request)
        if request.params.get("DryRun"):
            raise ApiError(
                "DryRunOperation",
                "Request would have succeeded, but DryRun flag is set.",
                status=412,
            )
        result = effect()
        world.lock.notify_all()
        return result
