"""The EC2 actions that the sandbox supports."""

from collections.abc import Mapping
from typing import Any

from ec2_sandbox.api import attachments, instances, modifications, tags, volumes
from ec2_sandbox.api.authorization import authorize
from ec2_sandbox.api.request import Action, Request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.world.state import World

ACTIONS: Mapping[str, Action] = {
    "CreateVolume": volumes.create_volume,
    "DescribeVolumes": volumes.describe_volumes,
    "DeleteVolume": volumes.delete_volume,
    "ModifyVolume": modifications.modify_volume,
    "DescribeVolumesModifications": modifications.describe_volumes_modifications,
    "AttachVolume": attachments.attach_volume,
    "DetachVolume": attachments.detach_volume,
    "ModifyInstanceAttribute": attachments.modify_instance_attribute,
    "DescribeInstances": instances.describe_instances,
    "DescribeInstanceTypes": instances.describe_instance_types,
    "TerminateInstances": instances.terminate_instances,
    "CreateTags": tags.create_tags,
    "DeleteTags": tags.delete_tags,
    "DescribeTags": tags.describe_tags,
}


def perform(world: World, action: str, request: Request) -> dict[str, Any] | None:
    """Carry out an action now, or raise the ApiError with which EC2 would respond."""
    if action not in ACTIONS:
        raise ApiError(
            "UnsupportedOperation",
            f"The sandbox does not support {action}; it supports {', '.join(ACTIONS)}",
        )
    with world.lock:
        world.timeline.run_due()
        if not request.is_operator:
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
