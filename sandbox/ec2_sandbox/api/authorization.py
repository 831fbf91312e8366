"""Authorization of requests by the IAM policy of the instance's role.

A request needs one access for each action and resource that it involves. Source: service
authorization reference, "Actions, resources, and condition keys for Amazon EC2".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ec2_sandbox.api import create_request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.iam.policy import Access, Verdict
from ec2_sandbox.world.state import Volume, World

_KEY_AT_CREATE = ("kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext")
_KEY_AT_ATTACH = ("kms:CreateGrant", "kms:Decrypt")

Keys = dict[str, tuple[str, ...]]


def authorize(world: World, action: str, params: Mapping[str, Any]) -> None:
    """Raise ApiError UnauthorizedOperation unless the role's policy allows all of a request."""
    if world.policy is None:
        return
    denied = world.policy.first_denied(_accesses(world, action, params))
    if denied is not None:
        access, verdict = denied
        raise ApiError("UnauthorizedOperation", _message(world, access, verdict), status=403)


def may_use_key(world: World, key_arn: str) -> bool:
    """Whether the role may use this key, which EC2 checks after CreateVolume has succeeded."""
    wanted = (_key_access(world, action, key_arn) for action in _KEY_AT_CREATE)
    return world.policy is None or world.policy.first_denied(wanted) is None


def _accesses(world: World, action: str, params: Mapping[str, Any]) -> Iterator[Access]:
    """The accesses of a request; the action itself refuses a resource that does not exist."""
    if action == "CreateVolume":
        yield from _create(world, params)
    elif action in _RESOURCES:
        tags = _request_tags(params.get("Tags", []))
        for resource_id in _RESOURCES[action](world, params):
            yield from _on(world, action, resource_id, extra=tags)
        if action == "AttachVolume":
            yield from _key_at_attach(world, params["VolumeId"])
    else:
        yield Access(action=f"ec2:{action}", resource="*", context=_of_caller(world))


def _create(world: World, params: Mapping[str, Any]) -> Iterator[Access]:
    """CreateVolume, and CreateTags for the tags in the request."""
    given = [tag for spec in params.get("TagSpecifications", []) for tag in spec.get("Tags", [])]
    resource = _arn(world, "ec2", "volume/*")
    context = {
        **_of_caller(world),
        **_request_tags(given),
        "ec2:availabilityzone": (params.get("AvailabilityZone", world.settings.zone),),
        "ec2:encrypted": (_flag(params.get("Encrypted", world.settings.encryption_by_default)),),
        # The default of EC2.
        "ec2:volumetype": (params.get("VolumeType", "gp2"),),
    }
    for name in ("Size", "Iops", "Throughput"):
        if name in params:
            context[f"ec2:volume{name.lower()}"] = (str(params[name]),)
    yield Access(action="ec2:CreateVolume", resource=resource, context=context)
    if source := params.get("SnapshotId"):
        snapshot = _arn(world, "ec2", f"snapshot/{source}")
        yield Access(action="ec2:CreateVolume", resource=snapshot, context=_of_caller(world))
    if given:
        tagging = {**_of_caller(world), **_request_tags(given)}
        tagging["ec2:createaction"] = ("CreateVolume",)
        yield Access(action="ec2:CreateTags", resource=resource, context=tagging)


def _on(world: World, action: str, resource_id: str, *, extra: Keys) -> Iterator[Access]:
    if resource_id == world.instance.id:
        kind, context = "instance", _of_instance(world)
    elif volume := world.volumes.get(resource_id):
        kind, context = "volume", _of_volume(world, volume)
    else:
        return
    yield Access(
        action=f"ec2:{action}",
        resource=_arn(world, "ec2", f"{kind}/{resource_id}"),
        context={**_of_caller(world), **context, **extra},
    )


def _key_at_attach(world: World, volume_id: str) -> Iterator[Access]:
    """EC2 decrypts the data key on behalf of the role; the AWS managed key needs no permission."""
    volume = world.volumes.get(volume_id)
    if volume and volume.kms_key_arn not in (
        None,
        create_request.key_arn(world, {"Encrypted": True}),
    ):
        for action in _KEY_AT_ATTACH:
            yield _key_access(world, action, str(volume.kms_key_arn))


def _key_access(world: World, action: str, key_arn: str) -> Access:
    # EC2 makes the call on behalf of the role.
    context = {
        **_of_caller(world),
        "kms:viaservice": (f"ec2.{world.settings.region}.amazonaws.com",),
        "kms:grantisforawsresource": ("true",),
    }
    return Access(action=action, resource=key_arn, context=context)


def _mapped(world: World, params: Mapping[str, Any]) -> Iterator[str]:
    """The volumes behind the device names of ModifyInstanceAttribute."""
    wanted = {mapping.get("DeviceName") for mapping in params.get("BlockDeviceMappings", [])}
    return (volume.id for volume, attachment in world.attached() if attachment.device in wanted)


_RESOURCES: Mapping[str, Callable[[World, Mapping[str, Any]], Iterable[str]]] = {
    "CreateTags": lambda _, params: params["Resources"],
    "DeleteTags": lambda _, params: params["Resources"],
    "AttachVolume": lambda _, params: [params["VolumeId"], params["InstanceId"]],
    "DetachVolume": lambda world, params: [
        params["VolumeId"],
        params.get("InstanceId", world.instance.id),
    ],
    "DeleteVolume": lambda _, params: [params["VolumeId"]],
    "ModifyVolume": lambda _, params: [params["VolumeId"]],
    "ModifyInstanceAttribute": lambda world, params: [
        params["InstanceId"],
        *_mapped(world, params),
    ],
    "TerminateInstances": lambda _, params: params["InstanceIds"],
}


def _of_caller(world: World) -> Keys:
    return {
        "ec2:sourceinstancearn": (world.settings.instance_arn,),
        "ec2:region": (world.settings.region,),
        "aws:requestedregion": (world.settings.region,),
        "aws:principalarn": (_arn(world, "iam", f"role/{world.settings.role}", region=""),),
    }


def _of_instance(world: World) -> Keys:
    return {
        "ec2:instanceid": (world.instance.id,),
        "ec2:instancetype": (world.settings.instance_type,),
        "ec2:availabilityzone": (world.settings.zone,),
        **_resource_tags(world.instance.tags),
    }


def _of_volume(world: World, volume: Volume) -> Keys:
    return {
        "ec2:volumeid": (volume.id,),
        "ec2:volumesize": (str(volume.shape.size_gib),),
        "ec2:volumetype": (volume.shape.type,),
        **({"ec2:volumeiops": (str(volume.shape.iops),)} if volume.shape.iops else {}),
        "ec2:encrypted": (_flag(volume.encrypted),),
        "ec2:availabilityzone": (world.settings.zone,),
        **_resource_tags(volume.tags),
    }


def _resource_tags(tags: Mapping[str, str]) -> Keys:
    named = (
        (f"{prefix}:resourcetag/{key.lower()}", value)
        for key, value in tags.items()
        for prefix in ("ec2", "aws")
    )
    return {key: (value,) for key, value in named}


def _request_tags(given: list[Mapping[str, str]]) -> Keys:
    context: Keys = {
        f"aws:requesttag/{tag.get('Key', '').lower()}": (tag.get("Value", ""),) for tag in given
    }
    if given:
        context["aws:tagkeys"] = tuple(tag.get("Key", "") for tag in given)
    return context


def _flag(value: object) -> str:
    return "true" if value else "false"


def _arn(world: World, service: str, name: str, *, region: str | None = None) -> str:
    settings = world.settings
    place = settings.region if region is None else region
    return f"arn:{settings.partition}:{service}:{place}:{settings.account_id}:{name}"


def _message(world: World, access: Access, verdict: Verdict) -> str:
    """The message of EC2; the encoded part, which only STS can decode, is a placeholder."""
    role = f"assumed-role/{world.settings.role}/{world.instance.id}"
    user = _arn(world, "sts", role, region="")
    on, encoded = "", ""
    if access.resource != "*":
        on = f" on resource: {access.resource}"
        encoded = ". Encoded authorization failure message: sandbox"
    because = f"because no identity-based policy allows the {access.action} action"
    if verdict is Verdict.DENIED:
        because = "with an explicit deny in an identity-based policy"
    return (
        f"You are not authorized to perform this operation. User: {user} is not authorized to "
        f"perform: {access.action}{on} {because}{encoded}"
    )
