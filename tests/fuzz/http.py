"""A metadata service whose HTTP answers have any bytes, and need not end."""

import socket
import threading
from contextlib import suppress
from typing import Self

from ebs_autoscale.checks.ec2 import clock_lines
from ebs_autoscale.clock import SystemClock
from ebs_autoscale.ec2.imds import Imds
from ebs_autoscale.errors import EbsAutoscaleError

_BODY = b'{"Code": "Success", "AccessKeyId": "A", "SecretAccessKey": "B", "Token": "C"}'
_HEAD = b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 07:00:00 GMT\r\nServer: EC2ws\r\n"
RAW_ANSWERS = (
    _HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY,
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n6\r\nworker\r\n2\r\n\r\n\r\n0\r\nX: y\r\n\r\n",
    _HEAD + b"\r\n" + _BODY,
    b"HTTP/1.1 100 Continue\r\n\r\n" + _HEAD + b"Content-Length: 5\r\n\r\ntoken",
    b"HTTP/1.1 307 -\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
)


class RawService:
    """Answers each request with the same bytes; `endless` repeats them until the client leaves."""

    def __init__(self, *, endless: bool) -> None:
        self._endless, self._content = endless, b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self._environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{port}"}
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def __call__(self, content: bytes) -> None:
        """Ask for everything once."""
        self._content, dates = content, [""]
        imds = Imds(SystemClock(), self._environment, on_date=dates.append)
        for ask in (imds.identity, imds.credentials):
            with suppress(EbsAutoscaleError):
                ask(patience_seconds=0.0)
        for date in dates:
            list(clock_lines(date, 0.0))

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.recv(65536)
                client.sendall(self._content)
                while self._endless and self._content:
                    client.sendall(self._content * (1 + 9000 // len(self._content)))
