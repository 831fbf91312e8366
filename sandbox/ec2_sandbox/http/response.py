"""An HTTP response on its way to the client."""

from dataclasses import dataclass

from ec2_sandbox.journal import LOST, OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Status, body and the outcome for the journal; status 0 closes the connection instead."""

    status: int
    body: bytes = b""
    content_type: str = "text/xml;charset=UTF-8"
    outcome: str = OK


HANG_UP = Response(status=0, outcome=LOST)
