"""The control endpoint: inspect the account, inject faults, advance the clock."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ec2_sandbox.api.actions import perform
from ec2_sandbox.api.request import Request
from ec2_sandbox.devices.failing import DeviceFault
from ec2_sandbox.errors import ApiError, HostUnfit, InputInvalid
from ec2_sandbox.faults import FaultRule, FaultRules
from ec2_sandbox.http.response import Response
from ec2_sandbox.iam.policy import Policy
from ec2_sandbox.journal import Journal
from ec2_sandbox.world.state import Volume, World

PREFIX = "/_sandbox/"
_Handler = Callable[[Mapping[str, Any]], Any]


class Control:
    """Serves JSON under `/_sandbox/`.

    Resources: health, settings, state, journal, faults, policy, clock, `device`, which hides or
    shows the block device of an attached volume, `device_fault`, which lets it fail,
    `device_size`, which enlarges it whatever EC2 says, `credentials`, which can be deleted,
    `snapshot`, which makes one, and `operator`, which carries out an EC2 action of somebody else:
    no fault or policy concerns it, and no journal has it.
    """

    def __init__(self, world: World, *, faults: FaultRules, journal: Journal) -> None:
        self._world = world
        self._faults = faults
        self._journal = journal
        self._routes: dict[tuple[str, str], _Handler] = {
            ("GET", "health"): lambda _: {"healthy": True},
            ("GET", "settings"): lambda _: asdict(world.settings),
            ("GET", "state"): lambda _: self._state(),
            ("GET", "journal"): lambda query: journal.listing(int(query.get("since", 0))),
            ("GET", "faults"): lambda _: faults.listing(),
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): lambda _: faults.clear(),
            ("POST", "policy"): self._set_policy,
            ("POST", "device"): self._show_device,
            ("POST", "device_fault"): self._fail_device,
            ("POST", "device_size"): self._grow_device,
            ("POST", "snapshot"): self._make_snapshot,
            ("POST", "operator"): self._operate,
            ("DELETE", "credentials"): lambda _: self._world.credentials.expire(),
            ("GET", "clock"): lambda _: self._clock(),
            ("POST", "clock"): self._advance,
        }

    def answer(self, method: str, target: str, body: bytes) -> Response:
        """Answer one request; 404 for an unknown resource, 400 for invalid input."""
        parts = urlsplit(target)
        handler = self._routes.get((method, parts.path.removeprefix(PREFIX)))
        if handler is None:
            return _json({"error": f"no {method} {parts.path}"}, status=404)
        try:
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            return _json(handler(json.loads(body) if body else query))
        except (ValueError, TypeError, KeyError, InputInvalid, HostUnfit, ApiError) as error:
            return _json({"error": str(error)}, status=400)

    def _add_fault(self, wanted: Mapping[str, Any]) -> None:
        self._faults.add(FaultRule.from_mapping(wanted))

    def _set_policy(self, wanted: Mapping[str, Any]) -> None:
        document = wanted["policy"]
        policy = None if document is None else Policy.from_document(document)
        with self._world.lock:
            self._world.policy = policy

    def _show_device(self, wanted: Mapping[str, Any]) -> None:
        with self._world.lock:
            volume = self._world.volumes[wanted["volume_id"]]
            if not wanted["shown"]:
                self._world.devices.disappear(volume.id)
            elif volume.attachment:
                self._world.devices.appear(
                    volume.id,
                    size_bytes=volume.size_bytes,
                    device_name=volume.attachment.device,
                )

    def _fail_device(self, wanted: Mapping[str, Any]) -> None:
        with self._world.lock:
            self._world.devices.fail(wanted["volume_id"], DeviceFault(wanted["fault"]))

    def _grow_device(self, wanted: Mapping[str, Any]) -> None:
        with self._world.lock:
            self._world.devices.grow(wanted["volume_id"], wanted["size_bytes"])

    def _make_snapshot(self, wanted: Mapping[str, Any]) -> dict[str, str]:
        content = {int(at): bytes.fromhex(data) for at, data in wanted["content"].items()}
        with self._world.lock:
            return {"id": self._world.new_snapshot(wanted["size_gib"], content).id}

    def _operate(self, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        request = Request(params=wanted["params"], is_operator=True)
        return perform(self._world, wanted["action"], request)

    def _clock(self) -> dict[str, float]:
        return {"seconds": self._world.timeline.clock.seconds()}

    def _advance(self, wanted: Mapping[str, Any]) -> dict[str, float]:
        with self._world.lock:
            self._world.timeline.clock.advance(float(wanted["advance_seconds"]))
            self._world.timeline.run_due()
            self._world.lock.notify_all()
        return self._clock()

    def _state(self) -> dict[str, Any]:
        with self._world.lock:
            self._world.timeline.run_due()
            shown = self._world.devices.shown()
            return {
                "clock_seconds": self._world.now,
                "instance_state": self._world.instance.state,
                "volumes": [
                    _volume(volume, shown.get(volume.id, ""))
                    for volume in self._world.volumes.values()
                ],
                "problems": self._world.problems,
            }


def _volume(volume: Volume, node: str) -> dict[str, Any]:
    attachment = volume.attachment
    return {
        "id": volume.id,
        "size_gib": volume.shape.size_gib,
        "type": volume.shape.type,
        "encrypted": volume.encrypted,
        "state": volume.state,
        "tags": volume.tags,
        "device": attachment.device if attachment else "",
        "attachment_state": attachment.state if attachment else "",
        "delete_on_termination": bool(attachment and attachment.delete_on_termination),
        "node": node,
        "modification": volume.modification.state if volume.modification else "",
        "modifications": len(volume.modifications),
    }


def _json(content: Any, *, status: int = 200) -> Response:
    return Response(
        status=status,
        body=json.dumps(content, default=str).encode(),
        content_type="application/json",
    )
