"""The credentials of the instance's role, as the last link of boto3's chain of credentials."""

from collections.abc import Callable
from typing import Any, Self

import botocore.credentials

from ebs_autoscale.clock import Clock
from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.model import RoleCredentials

# EC2's answers to credentials that have expired or were revoked, whatever they say themselves.
STALE_CREDENTIALS = frozenset(
    {"RequestExpired", "ExpiredToken", "AuthFailure", "InvalidClientTokenId"}
)
# IMDS has new credentials at least five minutes before the old ones expire.
RENEW_BEFORE_SECONDS = 60.0


class InstanceRole(botocore.credentials.Credentials):
    """The credentials of the instance's role: renewed when they expire, or EC2 refuses them.

    boto3's own ones are asked for once, in one second, through a proxy, and without a word on what
    went wrong. `fetch` asks IMDS; `held` are credentials that were fetched before.
    """

    def __init__(
        self, clock: Clock, fetch: Callable[[], RoleCredentials], held: RoleCredentials | None
    ) -> None:
        self._clock, self._fetch, self._held = clock, fetch, held
        self._renew_at_seconds = 0.0

    def load(self) -> Self:
        """Be ready for use: what boto3 calls when it has found no other credentials."""
        now = self._clock.wall_seconds()
        if self._held and self._held.expires_at_seconds > now + RENEW_BEFORE_SECONDS:
            self._take(self._held)
        else:
            self._renew()
        return self

    def get_frozen_credentials(self) -> botocore.credentials.ReadOnlyCredentials:
        """The credentials for one request."""
        if self._clock.wall_seconds() >= self._renew_at_seconds:
            self._renew()
        return super().get_frozen_credentials()

    def renew_if_refused(self, response: Any = None, **_: object) -> float | None:
        """Have boto3 repeat a call, after no time, if EC2 refused it and there are newer ones.

        A call may also be denied because an operator has given the instance another role since.
        """
        code = response[1].get("Error", {}).get("Code") if response else ""
        is_stale, is_denied = code in STALE_CREDENTIALS, code == "UnauthorizedOperation"
        if not self._renew_at_seconds or not (is_stale or (is_denied and self._held)):
            return None
        before = self.access_key
        try:
            self._renew()
        except EbsAutoscaleError:
            if is_stale:
                raise
        return None if self.access_key == before else 0.0

    def _renew(self) -> None:
        self._held = None
        self._take(self._fetch())

    def _take(self, found: RoleCredentials) -> None:
        super().__init__(found.access_key, found.secret_key, found.session_token, method="iam-role")
        # IMDS has no newer ones than these, even if they have expired by the clock of this host.
        now = self._clock.wall_seconds()
        self._renew_at_seconds = (
            max(found.expires_at_seconds, now + 2 * RENEW_BEFORE_SECONDS) - RENEW_BEFORE_SECONDS
        )
