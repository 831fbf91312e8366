"""The instance metadata service, version 2 only."""

import json
import secrets
from collections.abc import Mapping
from datetime import timedelta

from ec2_sandbox.api import responses
from ec2_sandbox.faults import IMDS, FaultBook, FaultKind, FaultRule
from ec2_sandbox.http.ec2 import HANG_UP, Answer
from ec2_sandbox.journal import Journal
from ec2_sandbox.world.state import World

_TOKEN_PATH = "/latest/api/token"  # noqa: S105 -- a path
_TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN_HEADER = "x-aws-ec2-metadata-token"  # noqa: S105 -- a header's name
_MAX_TTL_SECONDS = 21600
_CREDENTIALS_LAST = timedelta(hours=6)
# One fixed key: what signs a request to the sandbox is noted in its journal, never verified.
ACCESS_KEY = "ASIASANDBOXSANDBOXSA"


class MetadataService:
    """Answers what a program on the instance asks about itself.

    A rule for the action `IMDS` can delay, refuse (`lost_before`) or answer an HTTP status.
    """

    def __init__(self, world: World, *, faults: FaultBook, journal: Journal) -> None:
        self._world = world
        self._faults = faults
        self._journal = journal
        self._tokens: dict[str, float] = {}

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """Answer one request; header names in lower case."""
        sequence = self._journal.begin(
            IMDS, {"method": method, "path": path}, clock_seconds=self._now()
        )
        rule = self._faults.striking(IMDS)
        answer = self._struck(rule) if rule else None
        answer = answer or self._serve(method, path, headers)
        self._journal.end(sequence, outcome=answer.outcome, fault=rule.kind if rule else "")
        return answer

    def _struck(self, rule: FaultRule) -> Answer | None:
        match rule.kind:
            case FaultKind.DELAY:
                self._world.timeline.clock.pause(rule.seconds)
                return None
            case FaultKind.LOST_BEFORE | FaultKind.LOST_AFTER:
                return HANG_UP
            case _:
                return _status(rule.http_status)

    def _serve(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        if path == _TOKEN_PATH:
            return self._issue(headers) if method == "PUT" else _status(405)
        if method != "GET":
            return _status(405)
        if self._tokens.get(headers.get(_TOKEN_HEADER, ""), 0.0) <= self._now():
            return _status(401)
        with self._world.lock:
            content = _content(self._world)
        return _lookup(content, path.removeprefix("/latest/"))

    def _issue(self, headers: Mapping[str, str]) -> Answer:
        ttl = headers.get(_TTL_HEADER, "")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= _MAX_TTL_SECONDS:
            return _status(400)
        token = secrets.token_urlsafe(40)
        self._tokens[token] = self._now() + int(ttl)
        return _text(token)

    def _now(self) -> float:
        return self._world.timeline.clock.seconds()


def _text(content: str) -> Answer:
    return Answer(status=200, body=content.encode(), content_type="text/plain")


def _status(status: int) -> Answer:
    return Answer(status=status, content_type="text/plain", outcome=str(status))


def _lookup(content: Mapping[str, str], path: str) -> Answer:
    """Give the text of a leaf, else the names below a folder, those of folders with a slash."""
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
    expiration = clock.wall() + _CREDENTIALS_LAST
    return {
        "Code": "Success",
        "LastUpdated": clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Type": "AWS-HMAC",
        "AccessKeyId": ACCESS_KEY,
        "SecretAccessKey": "sandbox",
        "Token": "sandbox",
        "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _iso(world: World, seconds: float) -> str:
    return world.timeline.clock.moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
