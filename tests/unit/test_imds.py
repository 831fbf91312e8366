"""The identity of the instance, from a metadata service that answers as the test says."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ebs_autoscale.ec2 import imds
from ebs_autoscale.ec2.imds import PATIENCE_SECONDS, TOKEN_TTL_SECONDS, Imds
from ebs_autoscale.errors import Cause, Unfit
from ebs_autoscale.model import Identity
from tests.simulated.clock import SimulatedClock

TOKEN = "/latest/api/token"  # noqa: S105 -- a path
DOCUMENT = "/latest/dynamic/instance-identity/document"
PARTITION = "/latest/meta-data/services/partition"
GOOD = {
    "instanceId": "i-0123456789abcdef0",
    "instanceType": "m5.large",
    "region": "eu-central-1",
    "availabilityZone": "eu-central-1a",
    "accountId": "123456789012",
}


class Service(ThreadingHTTPServer):
    """IMDSv2 with one valid token; `troubles` are answered first, None is no answer."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.troubles: list[tuple[str, int, bytes] | None] = []
        self.token = "first"  # noqa: S105 -- no secret
        self.document = json.dumps(GOOD).encode()
        self.partition = b"aws\n"
        self.released = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Service

    def do_GET(self) -> None:
        """Answer with the troubles first."""
        self.server.requests.append(f"{self.command} {self.path}")
        if self.server.troubles and (
            self.server.troubles[0] is None or self.path == self.server.troubles[0][0]
        ):
            trouble = self.server.troubles.pop(0)
            if trouble is None:
                self.server.released.wait(60)
                return
            self.answer(*trouble[1:])
        elif self.path == TOKEN:
            self.give_token()
        elif self.headers["X-aws-ec2-metadata-token"] != self.server.token:
            self.answer(401, b"")
        else:
            self.answer(
                200, {DOCUMENT: self.server.document, PARTITION: self.server.partition}[self.path]
            )

    do_PUT = do_GET  # noqa: N815 -- named by BaseHTTPRequestHandler

    def give_token(self) -> None:
        """Answer a PUT with a lifetime, as version 2 asks for."""
        lifetime = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        good = self.command == "PUT" and lifetime == str(TOKEN_TTL_SECONDS)
        self.answer(200 if good else 400, self.server.token.encode())

    def answer(self, status: int, body: bytes) -> None:
        """Send it."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- named by the base
        """Log nothing."""


@pytest.fixture
def service() -> Iterator[Service]:
    """A metadata service of this host."""
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield service
        service.released.set()
        service.shutdown()
        thread.join()


def imds_of(service: Service, clock: SimulatedClock | None = None) -> Imds:
    """A client of the service."""
    endpoint = f"http://127.0.0.1:{service.server_port}"
    return Imds(clock or SimulatedClock(), {"AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint})


def test_identity_takes_a_token_first(service: Service) -> None:
    """The identity takes three requests: one for a token, two with it."""
    identity = imds_of(service).identity()
    assert identity == Identity(
        instance_id="i-0123456789abcdef0",
        instance_type="m5.large",
        region="eu-central-1",
        availability_zone="eu-central-1a",
        account_id="123456789012",
        partition="aws",
    )
    assert identity.owner == ("arn:aws:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0")
    assert service.requests == [f"PUT {TOKEN}", f"GET {DOCUMENT}", f"GET {PARTITION}"]


@pytest.mark.parametrize(
    "trouble",
    [
        (DOCUMENT, 401, b""),
        (TOKEN, 503, b"busy"),
        (DOCUMENT, 404, b"not yet"),
        (DOCUMENT, 200, b""),
        (DOCUMENT, 200, b"\xff\xfe"),
        (DOCUMENT, 200, b"[]"),
        (DOCUMENT, 200, b"null"),
        (DOCUMENT, 200, b'{"instanceId": "i-0123456789abcdef0"}'),
        (PARTITION, 500, b""),
    ],
)
def test_passing_trouble_is_retried(service: Service, trouble: tuple[str, int, bytes]) -> None:
    """After a stale token, a server error or an invalid document all is asked again."""
    service.troubles = [trouble]
    assert imds_of(service).identity().region == "eu-central-1"
    assert service.requests.count(f"PUT {TOKEN}") == 2


@pytest.mark.parametrize("place", [TOKEN, DOCUMENT])
def test_a_disabled_service_needs_an_operator(service: Service, place: str) -> None:
    """403 says that IMDS is disabled: no second try, and a hint how to enable it."""
    service.troubles = [(place, 403, b"")]
    with pytest.raises(Unfit, match=f"{place}: HTTP 403") as caught:
        imds_of(service).identity()
    assert "modify-instance-metadata-options" in caught.value.hint
    assert caught.value.cause is Cause.IMDS
    assert not service.troubles
    assert service.requests.count(f"PUT {TOKEN}") == 1


def test_patience_is_bounded(service: Service) -> None:
    """A service that keeps failing is given up after a time, with its last answer."""
    clock = SimulatedClock()
    began = clock.now_seconds()
    service.troubles = [(TOKEN, 503, b"")] * 1000
    with pytest.raises(Unfit, match=r"http://127.*HTTP 503") as caught:
        imds_of(service, clock).identity()
    assert caught.value.cause is Cause.IMDS
    assert clock.now_seconds() - began <= PATIENCE_SECONDS
    assert 5 < len(service.requests) < 20


def test_no_answer_is_a_timeout(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that does not answer, as seen from a container behind a hop, times out."""
    monkeypatch.setattr(imds, "REQUEST_TIMEOUT_SECONDS", 0.05)
    service.troubles = [None]
    with pytest.raises(Unfit) as caught:
        imds_of(service).identity(patience_seconds=0)
    assert caught.value.cause is Cause.IMDS
    assert "hop limit" in caught.value.hint


def test_no_service_is_unfit() -> None:
    """Outside EC2 nothing listens, which needs an operator."""
    with Service() as service:
        port = service.server_port
    closed = Imds(
        SimulatedClock(), {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{port}"}
    )
    with pytest.raises(Unfit, match="Connection refused") as caught:
        closed.identity()
    assert caught.value.cause is Cause.IMDS


def test_proxies_are_ignored(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxy the environment names, IMDS is asked directly."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert imds_of(service).identity().region == "eu-central-1"


@pytest.mark.parametrize(
    "endpoint",
    ["https://169.254.169.254", "169.254.169.254", "http://", "http://host:port", "http://[::1"],
)
def test_an_endpoint_must_be_a_url(endpoint: str) -> None:
    """An endpoint that is no http:// URL needs an operator, and is quoted."""
    wrong = Imds(SimulatedClock(), {"AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint})
    with pytest.raises(Unfit) as caught:
        wrong.identity()
    assert caught.value.cause is Cause.IMDS
    assert endpoint in caught.value.what


@pytest.mark.parametrize("environment", [{}, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": ""}])
def test_the_default_endpoint(environment: dict[str, Any]) -> None:
    """The default endpoint is the link-local address that EC2 documents."""
    assert Imds(SimulatedClock(), environment).endpoint == "http://169.254.169.254"
