"""The instance metadata service (IMDSv2 only)."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from ec2_sandbox.api import responses
from ec2_sandbox.faults import IMDS, FaultKind, FaultRule, FaultRules
from ec2_sandbox.http.response import HANG_UP, Response
from ec2_sandbox.journal import Journal
from ec2_sandbox.world.state import World

_TOKEN_PATH = "/latest/api/token"  # noqa: S105 -- a path
_TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN_HEADER = "x-aws-ec2-metadata-token"  # noqa: S105 -- a header's name
_MAX_TTL_SECONDS = 21600


class MetadataService:
    """Answers metadata requests of the instance and records them in the journal.

    A fault rule for the action `IMDS` can delay a request, drop its connection (`lost_before`),
    answer with an HTTP status or junk, or let the answer drip.
    """

    def __init__(self, world: World, *, faults: FaultRules, journal: Journal) -> None:
        self._world = world
        self._faults = faults
        self._journal = journal
        self._tokens: dict[str, float] = {}

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Response:
        """Answer one request; header names are in lower case."""
        sequence = self._journal.begin(
            IMDS, {"method": method, "path": path}, clock_seconds=self._now()
        )
        rule = self._faults.fault_for(IMDS, path)
        failure = self._failure(rule) if rule else None
        response = failure or self._serve(method, path, headers)
        if rule and rule.kind is FaultKind.DRIP:
            response = replace(response, drip_seconds=rule.seconds)
        self._journal.end(sequence, outcome=response.outcome, fault=rule.kind if rule else "")
        return response

    def _failure(self, rule: FaultRule) -> Response | None:
        match rule.kind:
            case FaultKind.DELAY:
                self._world.timeline.clock.pause(rule.seconds)
                return None
            case FaultKind.LOST_BEFORE | FaultKind.LOST_AFTER:
                return HANG_UP
            case FaultKind.DRIP:
                return None
            case FaultKind.JUNK:
                return replace(_text(rule.message), status=rule.http_status)
            case _:
                return _status(rule.http_status)

    def _serve(self, method: str, path: str, headers: Mapping[str, str]) -> Response:
        if path == _TOKEN_PATH:
            return self._issue_token(headers) if method == "PUT" else _status(405)
        if method != "GET":
            return _status(405)
        if self._tokens.get(headers.get(_TOKEN_HEADER, ""), 0.0) <= self._now():
            return _status(401)
        with self._world.lock:
            content = _content(self._world)
        return _lookup(content, path.removeprefix("/latest/"))

    def _issue_token(self, headers: Mapping[str, str]) -> Response:
        ttl = headers.get(_TTL_HEADER, "")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= _MAX_TTL_SECONDS:
            return _status(400)
        token = secrets.token_urlsafe(40)
        self._tokens[token] = self._now() + int(ttl)
        return _text(token)

    def _now(self) -> float:
        return self._world.timeline.clock.seconds()


def _text(content: str) -> Response:
    return Response(status=200, body=content.encode(), content_type="text/plain")


def _status(status: int) -> Response:
    return Response(status=status, content_type="text/plain", outcome=str(status))


def _lookup(content: Mapping[str, str], path: str) -> Response:
    """Return the value at a path, or list the names below it; a directory ends in a slash."""
    leaf = path.rstrip("/")
    if leaf in content:
        return _text(content[leaf])
    below = [name[len(leaf) + 1 :] for name in content if name.startswith(f"{leaf}/")]
    names = sorted({name.split("/")[0] + ("/" if "/" in name else "") for name in below})
    return _text("\n".join(names)) if names else _status(404)


def _content(world: World) -> dict[str, str]:
    settings = world.settings
    content = {
        "dynamic/instance-identity/document": json.dumps(_identity(world), indent=2),
        "meta-data/ami-id": settings.image_id,
        "meta-data/instance-id": settings.instance_id,
        "meta-data/instance-type": settings.instance_type,
        "meta-data/local-ipv4": responses.private_ip(0),
        "meta-data/mac": responses.mac_address(0),
        "meta-data/placement/availability-zone": settings.zone,
        "meta-data/placement/availability-zone-id": settings.zone_id,
        "meta-data/placement/region": settings.region,
        "meta-data/services/domain": "amazonaws.com",
        "meta-data/services/partition": settings.partition,
    }
    for index in range(settings.network_interfaces):
        mac = responses.mac_address(index)
        content[f"meta-data/network/interfaces/macs/{mac}/device-number"] = str(index)
        content[f"meta-data/network/interfaces/macs/{mac}/mac"] = mac
    if settings.role:
        role = f"meta-data/iam/security-credentials/{settings.role}"
        content[role] = json.dumps(_credentials(world), indent=2)
    if settings.tags_in_metadata:
        for key, value in world.instance.tags.items():
            content[f"meta-data/tags/instance/{key}"] = value
    return content


def _identity(world: World) -> dict[str, str | None]:
    settings = world.settings
    return {
        "accountId": settings.account_id,
        "architecture": "x86_64",
        "availabilityZone": settings.zone,
        "imageId": settings.image_id,
        "instanceId": settings.instance_id,
        "instanceType": settings.instance_type,
        "pendingTime": _iso(world, 0.0),
        "privateIp": responses.private_ip(0),
        "region": settings.region,
        "version": "2017-09-30",
    }


def _credentials(world: World) -> dict[str, str]:
    clock = world.timeline.clock
    access_key, valid_seconds = world.credentials.current()
    expiration = clock.wall() + timedelta(seconds=valid_seconds)
    return {
        "Code": "Success",
        "LastUpdated": clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Type": "AWS-HMAC",
        "AccessKeyId": access_key,
        "SecretAccessKey": "sandbox",
        "Token": "sandbox",
        "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _iso(world: World, seconds: float) -> str:
    return world.timeline.clock.moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
