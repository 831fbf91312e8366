"""The identity of this instance, from the instance metadata service (IMDSv2)."""

import http.client
import json
import os
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import Cause, Transient, Unfit
from ebs_autoscale.model import Identity

ENDPOINT_DEFAULT = "http://169.254.169.254"
REQUEST_TIMEOUT_SECONDS = 2.0

# IMDS may take tens of seconds to answer at boot; after that an operator is needed.
PATIENCE_SECONDS = 30.0
TOKEN_TTL_SECONDS = 300


class Imds:
    """The instance metadata service, version 2 only, never through a proxy.

    The endpoint is boto3's own setting, AWS_EC2_METADATA_SERVICE_ENDPOINT. `on_date` gets the Date
    header of each answer. Paths and status codes:
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """

    def __init__(
        self,
        clock: Clock,
        environment: Mapping[str, str] = os.environ,
        *,
        on_date: Callable[[str], object] = lambda _date: None,
    ) -> None:
        self._clock = clock
        self._on_date = on_date
        self.endpoint = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or ENDPOINT_DEFAULT

    def identity(self, *, patience_seconds: float = PATIENCE_SECONDS) -> Identity:
        """The identity of this instance; raises Unfit when IMDS refuses or does not answer."""
        deadline = self._clock.now_seconds() + patience_seconds
        delay = 0.25
        while True:
            try:
                return self._ask()
            except Transient as error:
                if self._clock.now_seconds() + delay > deadline:
                    raise Unfit(
                        f"no instance metadata from {self.endpoint}: {error.what}",
                        hint="enable IMDSv2 on this instance; "
                        "in a container its hop limit must be at least 2",
                        cause=Cause.IMDS,
                    ) from error
            self._clock.sleep(delay)
            delay = min(delay * 2, 5.0)

    def _ask(self) -> Identity:
        token = self._request(
            "PUT",
            "/latest/api/token",
            {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_SECONDS)},
        )
        headers = {"X-aws-ec2-metadata-token": token}
        text = self._request("GET", "/latest/dynamic/instance-identity/document", headers)
        partition = self._request("GET", "/latest/meta-data/services/partition", headers)
        try:
            document = json.loads(text)
            return Identity(
                instance_id=document["instanceId"],
                instance_type=document["instanceType"],
                region=document["region"],
                availability_zone=document["availabilityZone"],
                account_id=document["accountId"],
                partition=partition.strip(),
            )
        except (ValueError, KeyError, TypeError) as error:
            what = f"invalid instance identity document: {error!r}"
            raise Transient(what, cause=Cause.IMDS_UNANSWERED) from error

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> str:
        """The text of one answer; raises Unfit when IMDS is disabled, else Transient."""
        try:
            connection = self._connection()
            try:
                connection.request(method, path, headers=dict(headers))
                response = connection.getresponse()
                text = response.read().decode()
                self._on_date(response.getheader("Date", ""))
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
            raise Transient(f"{method} {path}: {error}", cause=Cause.IMDS_UNANSWERED) from error
        if response.status == http.HTTPStatus.OK:
            return text
        what = f"{method} {self.endpoint}{path}: HTTP {response.status}"
        if response.status == http.HTTPStatus.FORBIDDEN:
            hint = "enable the instance metadata service (aws ec2 modify-instance-metadata-options)"
            raise Unfit(what, hint=hint, cause=Cause.IMDS)
        raise Transient(what, cause=Cause.IMDS_UNANSWERED)

    def _connection(self) -> http.client.HTTPConnection:
        try:
            url = urlsplit(self.endpoint)
            host, port = url.hostname if url.scheme == "http" else None, url.port
        except ValueError:
            host, port = None, None
        if not host:
            what = f"AWS_EC2_METADATA_SERVICE_ENDPOINT={self.endpoint} is not an http:// URL"
            raise Unfit(what, cause=Cause.IMDS)
        return http.client.HTTPConnection(host, port, timeout=REQUEST_TIMEOUT_SECONDS)
