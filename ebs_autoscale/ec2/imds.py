"""Identity and credentials of this instance, from the instance metadata service (IMDSv2)."""

import http.client
import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.model import Identity, RoleCredentials

ENDPOINTS = {"ipv4": "http://169.254.169.254", "ipv6": "http://[fd00:ec2::254]"}

# The whole of an answer has to come within this time, which is boto3's. A service that is slower is
# given twice as much at the next try: a lost answer costs a second, and a slow one is no lost one.
FIRST_DEADLINE_SECONDS = 1.0
LONGEST_DEADLINE_SECONDS = 16.0

# IMDS may take tens of seconds to answer at boot; after that an operator is needed.
PATIENCE_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0

# "Disabled" (403) and "no role" (404) are believed once IMDS has said so this often in a row.
REFUSALS_BELIEVED = 4

TOKEN_TTL_SECONDS = 21600
# Credentials, the longest answer, have about 1.5 KiB; headers included.
ANSWER_MAX_BYTES = 64 * 1024

_TOKEN = "/latest/api/token"  # noqa: S105 -- a path
_ROLES = "/latest/meta-data/iam/security-credentials/"
_NAME = re.compile(r"[A-Za-z0-9+=,.@_-]{1,128}")
_SECRET = re.compile(r"[!-~]{1,8192}")

Answer = TypeVar("Answer")


class Imds:
    """The instance metadata service, version 2 only, never through a proxy.

    The environment is boto3's own: AWS_EC2_METADATA_SERVICE_ENDPOINT and _MODE,
    AWS_EC2_METADATA_DISABLED, AWS_METADATA_SERVICE_TIMEOUT and _NUM_ATTEMPTS. `on_date` gets the
    Date header of each answer. Paths and status codes:
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """

    def __init__(
        self,
        clock: Clock,
        environment: Mapping[str, str] = os.environ,
        *,
        first_deadline_seconds: float = FIRST_DEADLINE_SECONDS,
        on_date: Callable[[str], object] = lambda _date: None,
    ) -> None:
        self._clock = clock
        self._on_date = on_date
        self._url = _endpoint(environment)
        self._tries = _whole_number(environment, "AWS_METADATA_SERVICE_NUM_ATTEMPTS")
        chosen_seconds = _whole_number(environment, "AWS_METADATA_SERVICE_TIMEOUT")
        self._shortest_seconds = chosen_seconds or first_deadline_seconds
        self._deadline_seconds = self._shortest_seconds
        self._longest_seconds = chosen_seconds or LONGEST_DEADLINE_SECONDS
        self._patient_until_seconds = 0.0
        self._token = ""

    @property
    def endpoint(self) -> str:
        """The URL of the service."""
        return self._url.geturl()

    def identity(self, *, patience_seconds: float = PATIENCE_SECONDS) -> Identity:
        """The identity of this instance; raises Unfit when IMDS refuses or does not answer."""
        return self._patiently("identity", self._ask_identity, patience_seconds)

    def credentials(self, *, patience_seconds: float = PATIENCE_SECONDS) -> RoleCredentials:
        """The credentials of the instance's role; raises Unfit when there are none.

        They may have expired: when IMDS has no newer ones, EC2 decides.
        """
        return self._patiently("credentials", self._ask_credentials, patience_seconds)

    def _patiently(self, what: str, ask: Callable[[], Answer], patience_seconds: float) -> Answer:
        """Ask until there is an answer, or no more is to be expected."""
        self._patient_until_seconds = self._clock.now_seconds() + patience_seconds
        pause, tries, refusals = FIRST_PAUSE_SECONDS, 0, 0
        while True:
            try:
                return ask()
            except EbsAutoscaleError as error:
                self._token = ""
                tries += 1
                refusals = refusals + 1 if isinstance(error, Unfit) else 0
                is_late = self._clock.now_seconds() + pause > self._patient_until_seconds
                is_last = tries >= self._tries if self._tries else is_late
                if is_last or refusals >= REFUSALS_BELIEVED:
                    raise self._final(what, error) from error
            self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _final(self, what: str, error: EbsAutoscaleError) -> Unfit:
        if isinstance(error, Unfit):
            return error
        return Unfit(
            f"no {what} from the instance metadata service ({self.endpoint}): {error.what}",
            hint="check that IMDSv2 is enabled on this instance and can be reached; "
            "in a container its hop limit must be at least 2",
            cause=Cause.IMDS,
        )

    def _ask_identity(self) -> Identity:
        document = _json_object(self._get("/latest/dynamic/instance-identity/document"))
        partition = self._get("/latest/meta-data/services/partition").strip()
        return Identity(
            instance_id=_field(document, "instanceId", _NAME),
            instance_type=_field(document, "instanceType", _NAME),
            region=_field(document, "region", _NAME),
            availability_zone=_field(document, "availabilityZone", _NAME),
            account_id=_field(document, "accountId", _NAME),
            partition=_field({"partition": partition}, "partition", _NAME),
        )

    def _ask_credentials(self) -> RoleCredentials:
        role = self._role()
        document = _json_object(self._get(_ROLES + role))
        code = document.get("Code", "Success")
        if code != "Success":
            raise Unfit(
                f"IMDS has no credentials of the role {role}: {code!r:.80}",
                hint="check that the role exists and that its trust policy allows EC2",
                cause=Cause.CREDENTIALS,
            )
        return RoleCredentials(
            access_key=_field(document, "AccessKeyId", _SECRET),
            secret_key=_field(document, "SecretAccessKey", _SECRET),
            session_token=_field(document, "Token", _SECRET),
            expires_at_seconds=_seconds_of(_field(document, "Expiration", _SECRET)),
        )

    def _role(self) -> str:
        """The name of the instance's role; raises Unfit when IMDS says that there is none."""
        status, text = self._request("GET", _ROLES, self._with_token())
        if status == http.HTTPStatus.NOT_FOUND:
            raise Unfit(
                "this instance has no role (instance profile) and no other AWS credentials",
                hint="attach an instance profile to this instance",
                cause=Cause.CREDENTIALS,
            )
        lines = self._text_of("GET", _ROLES, status, text).split("\n")
        return _field({"role": lines[0].strip()}, "role", _NAME)

    def _get(self, path: str) -> str:
        status, text = self._request("GET", path, self._with_token())
        return self._text_of("GET", path, status, text)

    def _with_token(self) -> Mapping[str, str]:
        if not self._token:
            wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_SECONDS)}
            text = self._text_of("PUT", _TOKEN, *self._request("PUT", _TOKEN, wanted))
            self._token = _field({"token": text.strip()}, "token", _SECRET)
        return {"X-aws-ec2-metadata-token": self._token}

    def _text_of(self, method: str, path: str, status: int, text: str) -> str:
        """The text of a good answer; raises Unfit when IMDS is disabled, else Transient."""
        if status == http.HTTPStatus.OK:
            return text
        what = f"{method} {path}: HTTP {status}"
        if status == http.HTTPStatus.FORBIDDEN:
            hint = "enable the instance metadata service (aws ec2 modify-instance-metadata-options)"
            raise Unfit(f"{self.endpoint}: {what}", hint=hint, cause=Cause.IMDS)
        raise Transient(what, cause=Cause.IMDS_UNANSWERED)

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Status and text of one answer; raises Transient when there is none in time."""
        # The last try does not outlast the patience, but gets as much time as the first one.
        left_seconds = self._patient_until_seconds - self._clock.now_seconds()
        seconds = min(self._deadline_seconds, max(self._shortest_seconds, left_seconds))
        connection = _BoundedConnection(self._url, self._clock, seconds)
        try:
            with closing(connection):
                connection.request(method, self._url.path.rstrip("/") + path, headers=dict(headers))
                with connection.getresponse() as response:
                    body = response.read(ANSWER_MAX_BYTES)
                    self._on_date(response.getheader("Date", ""))
                    # Set only while something of the announced length is left.
                    if response.length:
                        raise http.client.IncompleteRead(b"", response.length)
                    return response.status, body.decode()
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, TimeoutError):
                self._deadline_seconds = min(2 * self._deadline_seconds, self._longest_seconds)
            what = f"{method} {path}: {_reason(error)}"
            raise Transient(what, cause=Cause.IMDS_UNANSWERED) from error


class _BoundedConnection(http.client.HTTPConnection):
    """A connection whose answer has to be complete in time and bytes, however it is framed."""

    def __init__(self, url: SplitResult, clock: Clock, seconds: float) -> None:
        # Without a port http.client would take the end of an IPv6 address for it.
        super().__init__(url.hostname or "", url.port or http.client.HTTP_PORT, timeout=seconds)
        self._clock = clock
        self._ends_at_seconds = clock.now_seconds() + seconds

    def connect(self) -> None:
        """Connect, with a socket that knows the deadline."""
        super().connect()
        self.sock = _BoundedSocket(self.sock, self._clock, self._ends_at_seconds)


class _BoundedSocket(socket.socket):
    """A connected socket that stops reading when the time is over or the answer too long.

    http.client itself reads interim answers, trailers and a chunk of size -1 to their end.
    """

    def __init__(self, connected: socket.socket, clock: Clock, ends_at_seconds: float) -> None:
        timeout = connected.gettimeout()
        super().__init__(fileno=connected.detach())
        self.settimeout(timeout)
        self._clock = clock
        self._ends_at_seconds = ends_at_seconds
        self._left_bytes = ANSWER_MAX_BYTES

    def recv_into(self, *arguments: Any) -> int:
        """Receive; raises TimeoutError once the time is over, HTTPException beyond the length."""
        left = self._ends_at_seconds - self._clock.now_seconds()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        count = super().recv_into(*arguments)
        self._left_bytes -= count
        if self._left_bytes < 0:
            raise http.client.HTTPException(f"longer than {ANSWER_MAX_BYTES} bytes")
        return count


def _endpoint(environment: Mapping[str, str]) -> SplitResult:
    """The endpoint that the environment names, by boto3's rules; raises Unfit."""
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise Unfit(
            "AWS_EC2_METADATA_DISABLED is set: the identity of this instance is not known",
            hint="remove AWS_EC2_METADATA_DISABLED from the environment of ebs-autoscale",
            cause=Cause.IMDS,
        )
    mode = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE") or "ipv4"
    chosen = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if not chosen and mode.lower() not in ENDPOINTS:
        what = f"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE={mode!r:.80} is neither IPv4 nor IPv6"
        raise Unfit(what, cause=Cause.IMDS)
    endpoint = chosen or ENDPOINTS[mode.lower()]
    try:
        url = urlsplit(endpoint)
        is_good = url.scheme == "http" and bool(url.hostname) and url.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        what = f"AWS_EC2_METADATA_SERVICE_ENDPOINT={endpoint} is not an http:// URL"
        raise Unfit(what, cause=Cause.IMDS)
    return url


def _whole_number(environment: Mapping[str, str], name: str) -> int | None:
    """A setting that an operator has made; raises Unfit when it is no such number."""
    text = environment.get(name)
    if not text:
        return None
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise Unfit(f"{name}={text!r:.80} is not a whole number of 1 to 999999", cause=Cause.IMDS)
    return int(text)


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = f"invalid JSON from IMDS: {_reason(error)}"
        raise Transient(what, cause=Cause.IMDS_UNANSWERED) from error
    if not isinstance(document, dict):
        what = f"IMDS answered with {type(document).__name__}, not a JSON object"
        raise Transient(what, cause=Cause.IMDS_UNANSWERED)
    return document


def _field(document: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    """A field that is a text of this form; what else it is does not go into the message."""
    value = document.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        kind = "missing" if value is None else f"invalid ({type(value).__name__})"
        raise Transient(f"IMDS answered, but {name} is {kind}", cause=Cause.IMDS_UNANSWERED)
    return value


def _seconds_of(moment: str) -> float:
    """Seconds since the epoch; a moment without a time zone is UTC."""
    try:
        found = datetime.fromisoformat(moment)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        what = f"IMDS answered, but Expiration is {moment!r:.80}"
        raise Transient(what, cause=Cause.IMDS_UNANSWERED) from error


def _reason(error: Exception) -> str:
    """What an error says, as long as a person can read it."""
    text = str(error)
    return text if text and text.isprintable() and len(text) <= 120 else f"{error!r:.160}"
