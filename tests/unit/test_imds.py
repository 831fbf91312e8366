"""Identity and credentials, from a metadata service that answers as the test says."""

import json
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ebs_autoscale.clock import Clock, SystemClock
from ebs_autoscale.ec2.imds import (
    PATIENCE_SECONDS,
    REFUSALS_BELIEVED,
    TOKEN_TTL_SECONDS,
    Imds,
)
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Unfit
from ebs_autoscale.model import Identity, RoleCredentials
from tests.simulated.clock import SimulatedClock

TOKEN = "/latest/api/token"  # noqa: S105 -- a path
DOCUMENT = "/latest/dynamic/instance-identity/document"
PARTITION = "/latest/meta-data/services/partition"
ROLES = "/latest/meta-data/iam/security-credentials/"
ROLE = f"{ROLES}worker"
GOOD = {
    "instanceId": "i-0123456789abcdef0",
    "instanceType": "m5.large",
    "region": "eu-central-1",
    "availabilityZone": "eu-central-1a",
    "accountId": "123456789012",
}
KEYS = {
    "Code": "Success",
    "AccessKeyId": "ASIA0123",
    "SecretAccessKey": "very/secret+",
    "Token": "tok/en+==",
    "Expiration": "2026-11-28T08:00:00Z",
}
EXPIRES_AT_SECONDS = 1795852800.0
ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"


class Service(ThreadingHTTPServer):
    """IMDSv2 with one valid token.

    `troubles` are answered first, each to the next request for its path: a status with a body, or
    bytes instead of an answer. `late_seconds` passes before each answer, `drip_seconds` before
    each byte of it. `endless` is repeated after bytes; None ends the connection, b"" keeps it open.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.troubles: list[tuple[str, int, bytes] | tuple[str, bytes]] = []
        self.late_seconds = self.drip_seconds = 0.0
        self.endless: bytes | None = None
        self.token = "first"  # noqa: S105 -- no secret
        self.content = {
            DOCUMENT: json.dumps(GOOD).encode(),
            PARTITION: b"aws\n",
            ROLES: b"worker",
            ROLE: json.dumps(KEYS).encode(),
        }
        self.released = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that no longer waits is what some tests want."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Service

    def do_GET(self) -> None:
        """Answer with the troubles first."""
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.released.wait(self.server.late_seconds)
        if self.server.troubles and self.path == self.server.troubles[0][0]:
            trouble = self.server.troubles.pop(0)
            if isinstance(trouble[1], bytes):
                self.wfile.write(trouble[1])
                self.go_on()
            else:
                self.answer(*trouble[1:])
        elif self.path == TOKEN:
            self.give_token()
        elif self.headers["X-aws-ec2-metadata-token"] != self.server.token:
            self.answer(401, b"")
        else:
            self.answer(200, self.server.content[self.path])

    do_PUT = do_GET  # noqa: N815 -- named by BaseHTTPRequestHandler

    def give_token(self) -> None:
        """Answer a PUT with a lifetime, as version 2 asks for."""
        lifetime = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        good = self.command == "PUT" and lifetime == str(TOKEN_TTL_SECONDS)
        self.answer(200 if good else 400, self.server.token.encode())

    def answer(self, status: int, body: bytes) -> None:
        """Send it, byte by byte if it is to drip."""
        answer = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        step = 1 if self.server.drip_seconds else len(answer)
        for begin in range(0, len(answer), step):
            self.server.released.wait(self.server.drip_seconds)
            self.wfile.write(answer[begin : begin + step])

    def go_on(self) -> None:
        """Send more until the client no longer waits, or say nothing more."""
        while self.server.endless:
            self.wfile.write(self.server.endless)
        if self.server.endless is not None:
            self.server.released.wait()

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


def imds_of(service: Service, clock: Clock | None = None, **environment: str) -> Imds:
    """A client of the service."""
    endpoint = f"http://127.0.0.1:{service.server_port}"
    patient = 30.0  # a machine under load is no bad answer
    return Imds(
        clock or SimulatedClock(),
        {ENDPOINT: endpoint, **environment},
        first_deadline_seconds=patient,
    )


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


def test_credentials_of_the_role(service: Service) -> None:
    """The credentials follow the role's name, with the token that the identity has used."""
    client = imds_of(service)
    client.identity()
    found = client.credentials()
    assert found == RoleCredentials(
        access_key="ASIA0123",
        secret_key="very/secret+",  # noqa: S106 -- no secret
        session_token="tok/en+==",  # noqa: S106 -- no secret
        expires_at_seconds=EXPIRES_AT_SECONDS,
    )
    assert service.requests[3:] == [f"GET {ROLES}", f"GET {ROLE}"]
    assert "very/secret" not in repr(found)


BAD_STATUSES = (301, 400, 401, 403, 404, 405, 429, 500, 503)
BAD_BODIES = (b"", b"\xff\xfe", b"a\nb", b"\0", b"[" * 60000, b"<html>", b"x" * 70000)
BAD_JSON = (b"null", b"[]", b"7", b'"text"', b"{}", b"{", b"9" * 5000, b'{"instanceId": 7}')
BAD_ANSWERS = (
    b"",
    b"\r\n\r\n",
    b"\x16\x03\x01 junk \x00\xff\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\nshort",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nshort",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
)


def a_null_for_each(keys: dict[str, str]) -> list[bytes]:
    """The document, with a bad value for one key at a time."""
    bad: tuple[object, ...] = (None, 7, [], {}, "", "a\r\nX: y", "\ud800", "x" * 9000)
    return [json.dumps({**keys, key: value}).encode() for key in keys for value in bad]


def bad_answers() -> Iterator[tuple[str, int, bytes] | tuple[str, bytes]]:
    """Every path with every kind of trouble."""
    for path in (TOKEN, DOCUMENT, PARTITION, ROLES, ROLE):
        yield from ((path, status, b"no") for status in BAD_STATUSES)
        yield from ((path, 200, body) for body in BAD_BODIES)
        yield from ((path, raw) for raw in BAD_ANSWERS)
    for path, keys in ((DOCUMENT, GOOD), (ROLE, KEYS)):
        yield from ((path, 200, body) for body in (*BAD_JSON, *a_null_for_each(keys)))


def test_one_bad_answer_costs_less_than_a_second(service: Service) -> None:
    """Whatever it is, the next try comes a moment later and all is asked again, token included."""
    for trouble in bad_answers():
        service.troubles, service.requests = [trouble], []
        clock = SimulatedClock()
        began, client = clock.now_seconds(), imds_of(service, clock)
        assert client.identity().region == "eu-central-1", trouble[:2]
        assert client.credentials().access_key == "ASIA0123", trouble[:2]
        assert not service.troubles
        assert service.requests.count(f"PUT {TOKEN}") == 2, trouble[:2]
        assert clock.now_seconds() - began < 1


def test_junk_is_an_error_of_ours(service: Service) -> None:
    """A service of random bytes leads to an answer or to an error that a person can read."""
    seed = random.randrange(10**6)  # noqa: S311 -- no secret
    dice = random.Random(seed)  # noqa: S311 -- no secret
    client = imds_of(service, AWS_METADATA_SERVICE_NUM_ATTEMPTS="1")
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 150\r\n\r\n" + json.dumps(KEYS).encode()
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(dice.randrange(1, 20)):
            raw[dice.randrange(len(raw))] = dice.choice((0, 10, 13, 34, 255, dice.randrange(256)))
        path = dice.choice((TOKEN, DOCUMENT, PARTITION, ROLES, ROLE))
        service.troubles = [(path, bytes(raw[: dice.randrange(len(raw))]))]
        said = ""
        try:
            client.identity(), client.credentials()
        except EbsAutoscaleError as error:
            said = error.what
        assert said == "" or said.isprintable(), (seed, said)
        assert len(said) < 400, (seed, said)


@pytest.mark.parametrize(
    ("path", "status", "cause", "hint"),
    [
        (TOKEN, 403, Cause.IMDS, "modify-instance-metadata-options"),
        (DOCUMENT, 403, Cause.IMDS, "modify-instance-metadata-options"),
        (ROLES, 404, Cause.CREDENTIALS, "attach an instance profile"),
    ],
)
def test_a_refusal_is_believed_when_repeated(
    service: Service, path: str, status: int, cause: Cause, hint: str
) -> None:
    """Disabled, or without a role: an operator has to act, and hears so within seconds."""
    service.troubles = [(path, status, b"")] * REFUSALS_BELIEVED
    clock = SimulatedClock()
    began, client = clock.now_seconds(), imds_of(service, clock)
    with pytest.raises(Unfit) as caught:
        client.credentials() if path is ROLES else client.identity()
    assert caught.value.cause is cause
    assert hint in caught.value.hint
    assert not service.troubles
    assert clock.now_seconds() - began < 3


def test_credentials_that_ec2_cannot_give(service: Service) -> None:
    """A role that EC2 may not assume has an answer that says so."""
    document = {"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role"}
    service.content[ROLE] = json.dumps(document).encode()
    with pytest.raises(Unfit, match=r"worker.*AssumeRoleUnauthorizedAccess") as caught:
        imds_of(service).credentials()
    assert caught.value.cause is Cause.CREDENTIALS
    assert "trust policy" in caught.value.hint


@pytest.mark.parametrize("path", [TOKEN, DOCUMENT, ROLES, ROLE])
def test_patience_is_bounded(service: Service, path: str) -> None:
    """A service that keeps failing is given up after a time, with its last answer.

    It has not said that there is no role, so neither do we.
    """
    clock = SimulatedClock()
    began = clock.now_seconds()
    service.troubles = [(path, 500, b"")] * 1000
    client = imds_of(service, clock)
    ask = client.credentials if path in {ROLES, ROLE} else client.identity
    with pytest.raises(Unfit, match=r"http://127.*HTTP 500") as caught:
        ask()
    assert caught.value.cause is Cause.IMDS
    assert "instance profile" not in caught.value.hint
    assert clock.now_seconds() - began <= PATIENCE_SECONDS
    assert 5 < len(service.requests) < 40


@pytest.mark.parametrize(("seconds", "tries"), [("", 3), ("5", 1)])
def test_slow_is_not_absent(service: Service, seconds: str, tries: int) -> None:
    """A service that is late is given more time at each try, or what an operator allows."""
    service.late_seconds = 0.25
    client = Imds(
        SystemClock(),
        {
            ENDPOINT: f"http://127.0.0.1:{service.server_port}",
            "AWS_METADATA_SERVICE_TIMEOUT": seconds,
        },
        first_deadline_seconds=0.1,
    )
    assert client.identity().region == "eu-central-1"
    assert service.requests.count(f"PUT {TOKEN}") >= tries


def test_the_last_try_does_not_outlast_the_patience(service: Service) -> None:
    """A service that does not answer gets more time at each try, but no more than there is."""
    service.late_seconds = 60
    endpoint = {ENDPOINT: f"http://127.0.0.1:{service.server_port}"}
    clock = SystemClock()
    began, client = clock.now_seconds(), Imds(clock, endpoint, first_deadline_seconds=0.3)
    with pytest.raises(Unfit, match="timed out"):
        client.identity(patience_seconds=1.7)
    # With pauses of 0.25 and 0.5 s, tries of 0.3, 0.6 and 1.2 s would end after 2.85 s.
    assert len(service.requests) == 3
    assert clock.now_seconds() - began < 2.5


@pytest.mark.parametrize("drip_seconds", [0.001, 0.03])
def test_a_dripping_answer_is_bounded(service: Service, drip_seconds: float) -> None:
    """The whole answer has to come in time, however many reads it takes, or is asked for again."""
    service.drip_seconds = drip_seconds
    endpoint = {ENDPOINT: f"http://127.0.0.1:{service.server_port}"}
    clock = SystemClock()
    began, client = clock.now_seconds(), Imds(clock, endpoint, first_deadline_seconds=0.4)
    if drip_seconds < 0.01:
        assert client.identity().region == "eu-central-1"
        return
    with pytest.raises(Unfit, match="timed out"):
        client.identity(patience_seconds=0)
    assert clock.now_seconds() - began < 2


ANSWERS_WITHOUT_END = (
    (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 9000),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 9000),
    (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 9000),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0", b"0" * 9000),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", b"x" * 9000),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b"x" * 9000),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: trailer\r\n"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", b"1\r\nx\r\n"),
)


@pytest.mark.parametrize(("begin", "rest"), ANSWERS_WITHOUT_END)
def test_an_answer_without_end_is_bounded(service: Service, begin: bytes, rest: bytes) -> None:
    """However it is framed, it is given up at a length, and at the deadline if it just stops."""
    service.troubles, service.endless = [(TOKEN, begin)] * 2, rest
    clock = SystemClock()
    began = clock.now_seconds()
    with pytest.raises(Unfit, match=r"longer than|65536 bytes|IncompleteRead") as caught:
        imds_of(service, clock).identity(patience_seconds=0)
    assert caught.value.cause is Cause.IMDS
    assert clock.now_seconds() - began < 10
    service.endless = b""
    endpoint = {ENDPOINT: f"http://127.0.0.1:{service.server_port}"}
    with pytest.raises(Unfit, match="timed out"):
        Imds(clock, endpoint, first_deadline_seconds=0.05).identity(patience_seconds=0)
    assert clock.now_seconds() - began < 10


@pytest.mark.parametrize("framing", ["", "Transfer-Encoding: chunked\r\n"])
def test_an_answer_is_never_cut(service: Service, framing: str) -> None:
    """One that is too long is an error, even where its beginning alone would be a good answer."""
    text = b"aws\n".ljust(70000)
    body = b"11170\r\n" + text + b"\r\n0\r\n\r\n" if framing else text
    service.troubles = [(PARTITION, f"HTTP/1.1 200 OK\r\n{framing}\r\n".encode() + body)]
    with pytest.raises(Unfit, match="longer than 65536 bytes"):
        imds_of(service, AWS_METADATA_SERVICE_NUM_ATTEMPTS="1").identity()


def test_no_answer_is_a_timeout(service: Service) -> None:
    """A service that does not answer, as seen from a container behind a hop, times out."""
    service.late_seconds = 60
    endpoint = {ENDPOINT: f"http://127.0.0.1:{service.server_port}"}
    with pytest.raises(Unfit) as caught:
        Imds(SimulatedClock(), endpoint, first_deadline_seconds=0.05).identity(patience_seconds=0)
    assert caught.value.cause is Cause.IMDS
    assert "hop limit" in caught.value.hint


@pytest.mark.parametrize("tries", [1, 3, 20])
def test_an_operator_may_say_how_often(service: Service, tries: int) -> None:
    """boto3's own setting for the number of tries counts instead of our patience."""
    service.troubles = [(TOKEN, 500, b"")] * 1000
    with pytest.raises(Unfit):
        imds_of(service, AWS_METADATA_SERVICE_NUM_ATTEMPTS=str(tries)).identity()
    assert len(service.requests) == tries


def test_no_service_is_unfit() -> None:
    """Outside EC2 nothing listens, which needs an operator."""
    with Service() as service:
        closed = imds_of(service)
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
    ("name", "value"),
    [
        *(
            (ENDPOINT, url)
            for url in (
                "https://169.254.169.254",
                "169.254.169.254",
                "http://",
                "http://host:port",
                "http://host:0",
                "http://[::1",
                "http://[fd00:ec2::254]:99999",
            )
        ),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv5"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "soon"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "0"),
        ("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "-1"),
        ("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "9" * 5000),
        ("AWS_EC2_METADATA_DISABLED", "TRUE"),
    ],
)
def test_a_bad_environment_is_named(name: str, value: str) -> None:
    """What cannot be followed needs an operator: the variable is named, and its value quoted."""
    with pytest.raises(Unfit, match=name) as caught:
        Imds(SimulatedClock(), {name: value})
    assert caught.value.cause is Cause.IMDS
    assert value[:50] in caught.value.what or name.endswith("DISABLED")


@pytest.mark.parametrize(
    ("environment", "endpoint", "address"),
    [
        ({}, "http://169.254.169.254", ("169.254.169.254", 80)),
        ({ENDPOINT: ""}, "http://169.254.169.254", ("169.254.169.254", 80)),
        ({f"{ENDPOINT}_MODE": "IPv4"}, "http://169.254.169.254", ("169.254.169.254", 80)),
        ({f"{ENDPOINT}_MODE": "IPv6"}, "http://[fd00:ec2::254]", ("fd00:ec2::254", 80)),
        ({f"{ENDPOINT}_MODE": "ipv6", ENDPOINT: "http://a:8"}, "http://a:8", ("a", 8)),
        ({ENDPOINT: "http://[fd00:ec2::254]"}, "http://[fd00:ec2::254]", ("fd00:ec2::254", 80)),
        ({ENDPOINT: "http://[fd00:ec2::254]/"}, "http://[fd00:ec2::254]/", ("fd00:ec2::254", 80)),
        ({ENDPOINT: "http://[::1]:81"}, "http://[::1]:81", ("::1", 81)),
    ],
)
def test_the_endpoint(
    environment: dict[str, Any],
    endpoint: str,
    address: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The endpoint is chosen by boto3's rules, and the address taken from it rightly."""
    connected: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("socket.create_connection", connect)
    client = Imds(SimulatedClock(), environment)
    assert client.endpoint == endpoint
    with suppress(Unfit):
        client.identity(patience_seconds=0)
    assert connected == [address]


def test_an_endpoint_with_a_path(service: Service) -> None:
    """What stands before /latest is part of each request."""
    service.content = {f"/proxy{path}": body for path, body in service.content.items()}
    endpoint = f"http://127.0.0.1:{service.server_port}/proxy/"
    with suppress(Unfit):
        Imds(SimulatedClock(), {ENDPOINT: endpoint}).identity(patience_seconds=0)
    assert service.requests == [f"PUT /proxy{TOKEN}"]
