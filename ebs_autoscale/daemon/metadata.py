"""What the instance metadata service says, at hand before a growth needs it."""

from threading import Event, Thread

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.errors import Cause, EbsAutoscaleError
from ebs_autoscale.model import Identity, RoleCredentials

# Credentials are valid for about six hours, and are fetched again long before their end: an outage
# of IMDS is over by then, and a growth in the middle of it does not notice.
RENEW_EVERY_SECONDS = 3600.0
RETRY_SECONDS = 60.0


class InstanceMetadata:
    """Identity and credentials of this instance, fetched by a thread beside the loop.

    A growth that finds none here asks IMDS itself, and tells what is wrong. The type of an instance
    changes only while it is stopped. A request to IMDS is not one to EC2, and costs nothing.
    """

    def __init__(self) -> None:
        # The loop's own is woken by signals, which are none of a thread's business.
        self._clock = SystemClock()
        self._renewal = Event()
        self.identity: Identity | None = None
        self.credentials: RoleCredentials | None = None

    def start(self) -> None:
        """Begin to fetch; the thread ends with the process."""
        Thread(target=self._keep, name="imds", daemon=True).start()

    def renew(self) -> None:
        """Fetch again now: the instance may have got another role."""
        self._renewal.set()

    def fetch(self) -> float:
        """Fetch once; returns the seconds until the next time."""
        from ebs_autoscale.ec2.imds import Imds  # noqa: PLC0415 -- an HTTP client, in this thread

        try:
            imds = Imds(self._clock)
            self.identity = self.identity or imds.identity()
            self.credentials = imds.credentials()
        except EbsAutoscaleError as error:
            # Without a role there are other credentials, or a growth says that there are none.
            return RENEW_EVERY_SECONDS if error.cause is Cause.CREDENTIALS else RETRY_SECONDS
        left = self.credentials.expires_at_seconds - self._clock.wall_seconds()
        return min(max(left / 2, RETRY_SECONDS), RENEW_EVERY_SECONDS)

    def _keep(self) -> None:
        while True:
            delay = self.fetch()
            self._renewal.wait(delay)
            self._renewal.clear()
