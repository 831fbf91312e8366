"""The EC2 endpoint: parse a call, inject faults, carry it out, render the response."""

import sys
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ec2_sandbox.api.actions import perform
from ec2_sandbox.api.request import Request
from ec2_sandbox.errors import ApiError
from ec2_sandbox.faults import FaultKind, FaultRule, FaultRules
from ec2_sandbox.http import query_protocol
from ec2_sandbox.http.response import HANG_UP, Response
from ec2_sandbox.http.throttling import Buckets
from ec2_sandbox.journal import Journal
from ec2_sandbox.world.state import World


class Ec2Endpoint:
    """Answers EC2 calls and records them in the journal."""

    def __init__(self, world: World, *, faults: FaultRules, journal: Journal) -> None:
        self._world = world
        self._faults = faults
        self._journal = journal
        self._buckets = Buckets(world.settings.request_buckets, world.timeline.clock)

    def answer(self, form: Mapping[str, str], *, access_key: str = "") -> Response:
        """Answer one call; a failure is a response as well."""
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
        rule = self._faults.fault_for(action)
        if self._world.credentials.has_expired(access_key):
            response = _error(ApiError("RequestExpired", "Request has expired."))
        elif not self._buckets.take(action):
            response = _error(
                ApiError("RequestLimitExceeded", "Request limit exceeded.", status=503)
            )
        elif rule:
            response = self._with_fault(rule, action, parsed)
        else:
            response = self._carry_out(action, parsed)
        self._journal.end(sequence, outcome=response.outcome, fault=rule.kind if rule else "")
        return response

    def _call_seconds(self) -> float:
        with self._world.lock:
            return self._world.draw(self._world.settings.call_seconds)

    def _with_fault(
        self, rule: FaultRule, action: str, parsed: dict[str, Any] | ApiError
    ) -> Response:
        if rule.kind is FaultKind.LOST_BEFORE:
            return HANG_UP
        if rule.when == "before" and (failure := self._failure(rule)):
            return failure
        response = self._carry_out(action, parsed, rule.kind)
        if rule.kind is FaultKind.DRIP:
            return replace(response, drip_seconds=rule.seconds)
        if rule.kind is FaultKind.LOST_AFTER:
            return HANG_UP
        if rule.when == "after" and (failure := self._failure(rule)):
            return failure
        return response

    def _failure(self, rule: FaultRule) -> Response | None:
        """The response that replaces the real one; None for a delay, after waiting."""
        match rule.kind:
            case FaultKind.ERROR | FaultKind.THROTTLE:
                return _error(ApiError(rule.error_code, rule.message, status=rule.http_status))
            case FaultKind.JUNK:
                return Response(
                    status=rule.http_status, body=rule.message.encode(), outcome=rule.kind
                )
            case FaultKind.HTTP:
                return Response(
                    status=rule.http_status,
                    # The response of a load balancer in front of EC2; botocore recognises the tag.
                    body=f"<html><body>{rule.message}</body></html>".encode(),
                    content_type="text/html",
                    outcome=str(rule.http_status),
                )
            case FaultKind.DELAY:
                self._world.timeline.clock.pause(rule.seconds)
        return None

    def _carry_out(
        self, action: str, parsed: dict[str, Any] | ApiError, kind: FaultKind | None = None
    ) -> Response:
        if isinstance(parsed, ApiError):
            return _error(parsed)
        request = Request(
            params=parsed,
            stuck=kind is FaultKind.STUCK,
            ghost=kind is FaultKind.GHOST,
            failed=kind is FaultKind.FAILED,
            undone=kind is FaultKind.UNDONE,
        )
        try:
            result = perform(self._world, action, request)
            operation = query_protocol.operation_named(action)
            body = query_protocol.render(operation, result, _request_id())
        except ApiError as error:
            return _error(error)
        except Exception:  # noqa: BLE001 -- a bug is reported like an error of EC2
            traceback.print_exc(file=sys.stderr)
            return _error(ApiError("InternalError", "bug in the sandbox", status=500))
        return Response(status=200, body=body)


def _parsed(action: str, form: Mapping[str, str]) -> dict[str, Any] | ApiError:
    try:
        return query_protocol.parse(query_protocol.operation_named(action), form)
    except ApiError as error:
        return error


def _error(error: ApiError) -> Response:
    return Response(
        status=error.status,
        body=query_protocol.render_error(error, _request_id()),
        outcome=error.code,
    )


def _request_id() -> str:
    return str(uuid.uuid4())
