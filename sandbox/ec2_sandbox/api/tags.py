"""Actions on tags of volumes and of the instance."""

from typing import NamedTuple

from ec2_sandbox.api import filters, validation
from ec2_sandbox.api.attachments import instance_named
from ec2_sandbox.api.request import Effect, Request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.world.state import World


class _Tag(NamedTuple):
    resource_id: str
    resource_type: str
    key: str
    value: str


def create_tags(world: World, request: Request) -> Effect:
    """CreateTags: add tags or replace their values."""
    targets = [_tags_of(world, each) for each in request.params["Resources"]]
    wanted = [validation.tags(request.params["Tags"], target) for target in targets]

    def effect() -> None:
        for target, tags in zip(targets, wanted, strict=True):
            target.update(tags)

    return effect


def delete_tags(world: World, request: Request) -> Effect:
    """DeleteTags: delete all tags, or those given; a given value must match."""
    targets = [_tags_of(world, each) for each in request.params["Resources"]]
    wanted = request.params.get("Tags")

    def effect() -> None:
        for target in targets:
            if wanted is None:
                target.clear()
                continue
            for tag in wanted:
                key = tag.get("Key", "")
                if target.get(key) == tag.get("Value", target.get(key)):
                    target.pop(key, None)

    return effect


def describe_tags(world: World, request: Request) -> Effect:
    """DescribeTags: in order of resource and key."""
    params = request.params
    tags = filters.select(_all_tags(world), params, _FACETS, lambda tag: {tag.key: tag.value})
    shown, next_token = filters.page(tags, params, lambda tag: f"{tag.resource_id} {tag.key}")
    return lambda: {
        "Tags": [
            {
                "ResourceId": tag.resource_id,
                "ResourceType": tag.resource_type,
                "Key": tag.key,
                "Value": tag.value,
            }
            for tag in shown
        ],
        "NextToken": next_token,
    }


_FACETS: filters.Facets[_Tag] = {
    "key": lambda tag: [tag.key],
    "value": lambda tag: [tag.value],
    "resource-id": lambda tag: [tag.resource_id],
    "resource-type": lambda tag: [tag.resource_type],
}


def _tags_of(world: World, resource_id: str) -> dict[str, str]:
    if resource_id.startswith("vol-"):
        return world.volume(validation.well_formed(resource_id, "vol")).tags
    if resource_id.startswith("i-"):
        return instance_named(world, resource_id).tags
    raise ApiError("InvalidID", f"The ID '{resource_id}' is not valid")


def _all_tags(world: World) -> list[_Tag]:
    resources = [
        (volume.id, "volume", volume.tags)
        for volume in world.volumes.values()
        if world.is_visible(volume)
    ]
    resources.append((world.instance.id, "instance", world.instance.tags))
    return [
        _Tag(resource_id, kind, key, value)
        for resource_id, kind, tags in resources
        for key, value in tags.items()
    ]
