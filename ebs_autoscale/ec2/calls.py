"""The calls that a client makes of EC2, each HTTP request on its own, as boto3's events tell."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from ebs_autoscale.clock import Clock
from ebs_autoscale.ec2.errors import meaning_of
from ebs_autoscale.errors import Cause


class CallResult(StrEnum):
    """How EC2 answered one request; a repetition by boto3 is a request of its own."""

    SUCCESS = "success"
    THROTTLED = "throttled"
    DENIED = "denied"
    ERROR = "error"
    UNANSWERED = "unanswered"


_OF_CAUSE = {
    Cause.DRY_RUN: CallResult.SUCCESS,
    Cause.THROTTLED: CallResult.THROTTLED,
    Cause.DENIED: CallResult.DENIED,
}


def follow_calls(events: Any, clock: Clock, tell: Callable[[str, CallResult, float], None]) -> None:
    """Call `tell` with the action, the result and the seconds of each request of a client.

    `events` are those of the client (`client.meta.events`), which makes one call at a time.
    """
    sent_at_seconds = clock.now_seconds()

    def sending(**_: object) -> None:
        nonlocal sent_at_seconds
        sent_at_seconds = clock.now_seconds()

    def answered(event_name: str, parsed_response: dict[str, Any] | None, **_: object) -> None:
        action = event_name.rpartition(".")[2]
        tell(action, result_of(parsed_response), clock.now_seconds() - sent_at_seconds)

    events.register("before-send.ec2", sending)
    events.register("response-received.ec2", answered)


def result_of(answer: dict[str, Any] | None) -> CallResult:
    """What an answer means, as botocore has parsed it; None where there was none."""
    if answer is None:
        return CallResult.UNANSWERED
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status < 400:
        return CallResult.SUCCESS
    code = answer.get("Error", {}).get("Code", "")
    return _OF_CAUSE.get(meaning_of(code, status=status).cause, CallResult.ERROR)
