"""Actions on the instance and its instance type."""

from collections.abc import Callable, Mapping
from typing import Any

from ec2_sandbox.api import filters, responses
from ec2_sandbox.api.attachments import instance_named
from ec2_sandbox.api.request import Effect, Request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.world import transitions
from ec2_sandbox.world.state import World

_RESERVATION = f"r-{1:017x}"


def describe_instances(world: World, request: Request) -> Effect:
    """DescribeInstances."""
    params = request.params
    filters.exclusive(params, "InstanceIds", "instancesSet")
    for each in params.get("InstanceIds", []):
        instance_named(world, each)
    shown = [responses.instance(world)]
    kept = filters.select(shown, params, _INSTANCE_FACETS, _tags)
    paged, next_token = filters.page(kept, params, lambda view: str(view["InstanceId"]))
    reservation = {
        "ReservationId": _RESERVATION,
        "OwnerId": world.settings.account_id,
        "Instances": paged,
    }
    return lambda: {"Reservations": [reservation] if paged else [], "NextToken": next_token}


def describe_instance_types(world: World, request: Request) -> Effect:
    """DescribeInstanceTypes: only the type of the instance exists."""
    params = request.params
    unknown = set(params.get("InstanceTypes", [])) - {world.settings.instance_type}
    if unknown:
        raise ApiError(
            "InvalidInstanceType",
            f"The following supplied instance types do not exist: [{', '.join(sorted(unknown))}]",
        )
    kept = filters.select([responses.instance_type(world)], params, _TYPE_FACETS)
    paged, next_token = filters.page(kept, params, lambda view: str(view["InstanceType"]), most=100)
    return lambda: {"InstanceTypes": paged, "NextToken": next_token}


def terminate_instances(world: World, request: Request) -> Effect:
    """TerminateInstances: volumes are deleted or detached by DeleteOnTermination."""
    for each in request.params["InstanceIds"]:
        instance_named(world, each)

    def effect() -> dict[str, Any]:
        before = world.instance.state
        transitions.begin_terminate(world, stuck=request.stuck)
        changed = {
            "InstanceId": world.instance.id,
            "PreviousState": responses.instance_state(before),
            "CurrentState": responses.instance_state(world.instance.state),
        }
        return {"TerminatingInstances": [changed]}

    return effect


def _tags(view: responses.Element) -> Mapping[str, str]:
    return {tag["Key"]: tag["Value"] for tag in view["Tags"] or []}


def _mapped(key: str) -> Callable[[responses.Element], list[str]]:
    return lambda view: [
        word
        for mapping in view["BlockDeviceMappings"]
        for word in filters.words(mapping["Ebs"][key])
    ]


_INSTANCE_FACETS: filters.Facets[responses.Element] = {
    "instance-id": lambda view: [view["InstanceId"]],
    "instance-type": lambda view: [view["InstanceType"]],
    "instance-state-name": lambda view: [view["State"]["Name"]],
    "instance-state-code": lambda view: [str(view["State"]["Code"])],
    "image-id": lambda view: [view["ImageId"]],
    "availability-zone": lambda view: [view["Placement"]["AvailabilityZone"]],
    "root-device-name": lambda view: [view["RootDeviceName"]],
    "block-device-mapping.device-name": lambda view: [
        mapping["DeviceName"] for mapping in view["BlockDeviceMappings"]
    ],
    "block-device-mapping.volume-id": _mapped("VolumeId"),
    "block-device-mapping.status": _mapped("Status"),
    "block-device-mapping.delete-on-termination": _mapped("DeleteOnTermination"),
}
_TYPE_FACETS: filters.Facets[responses.Element] = {
    "instance-type": lambda view: [view["InstanceType"]],
    "hypervisor": lambda view: [view["Hypervisor"]],
    "current-generation": lambda view: filters.words(view["CurrentGeneration"]),
    "ebs-info.nvme-support": lambda view: [view["EbsInfo"]["NvmeSupport"]],
    "ebs-info.attachment-limit-type": lambda view: filters.words(
        view["EbsInfo"]["AttachmentLimitType"]
    ),
}
