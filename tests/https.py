"""An HTTPS server with a certificate authority of its own, which also behaves badly if asked to."""

import ssl
import subprocess
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

_NAMES = "subjectAltName=IP:127.0.0.1,IP:169.254.169.254"


class HttpsServer:
    """Serves files by name on loopback, until closed; see `answer` for what else it does.

    /NAME?short ends in the middle, ?slow never ends, ?hang does not begin, ?garbage is no HTTP,
    ?late answers 503 twice before; /302/URL leads there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        """How often each path was asked for."""
        self.sent_bytes = 0
        self.closing = threading.Event()
        self.authority = folder / "authority.pem"
        """The certificate to trust."""
        key = folder / "key.pem"
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        argv += ["-nodes", "-days", "2", "-subj", "/CN=tests", "-addext", _NAMES]
        argv += ["-keyout", str(key), "-out", str(self.authority)]
        subprocess.run(argv, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority, key)
        self._server = _Server(("127.0.0.1", 0), type("", (_Handler,), {"site": self}))
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error."""


class _Handler(BaseHTTPRequestHandler):
    site: HttpsServer

    def do_GET(self) -> None:
        self.site.asked[self.path] += 1
        name, _, how = self.path[1:].partition("?")
        file = self.site.folder / name
        if how == "hang":
            self.site.closing.wait(60)
        elif how == "garbage":
            self.wfile.write(b"\0\xff\n" * 1000)
        elif name.startswith("302/"):
            self.send_response(302)
            self.send_header("Location", name.removeprefix("302/"))
            self.end_headers()
        elif how == "late" and self.site.asked[self.path] <= 2:
            self.send_error(503)
        elif file.is_file():
            self._send(file.read_bytes(), how)
        else:
            self.send_error(404)

    def _send(self, content: bytes, how: str) -> None:
        self.send_response(200)
        if how != "slow":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        while how == "slow" and not self.site.closing.wait(0.05):
            self.wfile.write(b"x")
        self.wfile.write(content[: len(content) // 2] if how == "short" else content)
        self.site.sent_bytes += len(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name
        pass
