"""The EC2 endpoint: a form comes in, a document goes out, faults strike in between."""

import sys
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ec2_sandbox.api.actions import perform
from ec2_sandbox.api.request import Request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.faults import FaultBook, FaultKind, FaultRule
from ec2_sandbox.http import query_protocol
from ec2_sandbox.journal import LOST, OK, Journal
from ec2_sandbox.world.state import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP response; with status 0 there is none and the connection is closed."""

    status: int
    body: bytes = b""
    content_type: str = "text/xml;charset=UTF-8"
    outcome: str = OK


HANG_UP = Answer(status=0, outcome=LOST)


class Ec2Endpoint:
    """Answers EC2 calls: parse, fail if a rule says so, act, render, and note all of it."""

    def __init__(self, world: World, *, faults: FaultBook, journal: Journal) -> None:
        self._world = world
        self._faults = faults
        self._journal = journal

    def answer(self, form: Mapping[str, str], *, access_key: str = "") -> Answer:
        """Answer one call; whatever goes wrong inside is an answer, too."""
        action = form.get("Action", "")
        parsed = _parsed(action, form)
        params = dict(form) if isinstance(parsed, ApiError) else parsed
        sequence = self._journal.begin(
            action,
            params,
            clock_seconds=self._world.timeline.clock.seconds(),
            access_key=access_key,
        )
        self._world.timeline.clock.pause(self._call_seconds())
        rule = self._faults.striking(action)
        answer = self._struck(rule, action, parsed) if rule else self._acted(action, parsed, None)
        self._journal.end(sequence, outcome=answer.outcome, fault=rule.kind if rule else "")
        return answer

    def _call_seconds(self) -> float:
        with self._world.lock:
            return self._world.draw(self._world.settings.call_seconds)

    def _struck(self, rule: FaultRule, action: str, parsed: dict[str, Any] | ApiError) -> Answer:
        if rule.kind is FaultKind.LOST_BEFORE:
            return HANG_UP
        if rule.when == "before" and (instead := self._instead(rule)):
            return instead
        answer = self._acted(action, parsed, rule)
        if rule.kind is FaultKind.LOST_AFTER:
            return HANG_UP
        if rule.when == "after" and (instead := self._instead(rule)):
            return instead
        return answer

    def _instead(self, rule: FaultRule) -> Answer | None:
        """Give the answer that a rule puts in place of the real one; a delay only waits."""
        match rule.kind:
            case FaultKind.ERROR | FaultKind.THROTTLE:
                return _refusal(ApiError(rule.error_code, rule.message, status=rule.http_status))
            case FaultKind.HTTP:
                return Answer(
                    status=rule.http_status,
                    # As a load balancer in front of EC2 answers: botocore knows it by the tag.
                    body=f"<html><body>{rule.message}</body></html>".encode(),
                    content_type="text/html",
                    outcome=str(rule.http_status),
                )
            case FaultKind.DELAY:
                self._world.timeline.clock.pause(rule.seconds)
        return None

    def _acted(
        self, action: str, parsed: dict[str, Any] | ApiError, rule: FaultRule | None
    ) -> Answer:
        if isinstance(parsed, ApiError):
            return _refusal(parsed)
        kind = rule.kind if rule else None
        request = Request(
            params=parsed, stuck=kind is FaultKind.STUCK, ghost=kind is FaultKind.GHOST
        )
        try:
            result = perform(self._world, action, request)
            body = query_protocol.render(
                query_protocol.operation_named(action), result, _request_id()
            )
        except ApiError as error:
            return _refusal(error)
        except Exception:  # noqa: BLE001 -- a bug here must look like EC2's own, and be seen
            traceback.print_exc(file=sys.stderr)
            return _refusal(ApiError("InternalError", "a bug of the sandbox", status=500))
        return Answer(status=200, body=body)


def _parsed(action: str, form: Mapping[str, str]) -> dict[str, Any] | ApiError:
    try:
        return query_protocol.parse(query_protocol.operation_named(action), form)
    except ApiError as error:
        return error


def _refusal(error: ApiError) -> Answer:
    return Answer(
        status=error.status,
        body=query_protocol.render_error(error, _request_id()),
        outcome=error.code,
    )


def _request_id() -> str:
    return str(uuid.uuid4())
