"""An HTTP response on its way to the client."""

from dataclasses import dataclass

from ec2_sandbox.journal import LOST, OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Status, body and the outcome for the journal; status 0 closes the connection instead.

    With `drip_seconds` that much time passes before each byte of the body.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/xml;charset=UTF-8"
    outcome: str = OK
    drip_seconds: float = 0.0


HANG_UP = Response(status=0, outcome=LOST)
