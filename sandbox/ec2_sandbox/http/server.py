"""The HTTP server of the sandbox, on the loopback interface."""

import re
import socket
import sys
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from ec2_sandbox.devices.block_devices import block_devices
from ec2_sandbox.faults import FaultRules
from ec2_sandbox.http import control, query_protocol
from ec2_sandbox.http.ec2 import Ec2Endpoint
from ec2_sandbox.http.imds import MetadataService
from ec2_sandbox.http.response import Response
from ec2_sandbox.journal import Journal
from ec2_sandbox.settings import SandboxSettings
from ec2_sandbox.world.clock import SandboxClock
from ec2_sandbox.world.state import World

_HOST = "127.0.0.1"
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/")


class SandboxServer:
    """EC2, instance metadata and control on one port, as a context manager.

    Port 0 takes any free one. Transitions complete when they are due, whether or not a client
    calls. Raises HostUnfit when this host cannot provide the block devices.
    """

    def __init__(self, settings: SandboxSettings, *, directory: Path, port: int = 0) -> None:
        devices = block_devices(
            settings.block_devices, directory=directory, failing=settings.failing_devices
        )
        self.world = World(settings, clock=SandboxClock(settings.speed), devices=devices)
        faults, journal = FaultRules(settings.seed), Journal()
        self._http = _Server((_HOST, port), _Handler)
        self._http.world = self.world
        self._http.ec2 = Ec2Endpoint(self.world, faults=faults, journal=journal)
        self._http.metadata = MetadataService(self.world, faults=faults, journal=journal)
        self._http.control = control.Control(self.world, faults=faults, journal=journal)
        self._stopping = False
        self._threads = [
            Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True),
            Thread(target=self._tick, daemon=True),
        ]

    @property
    def url(self) -> str:
        """The base URL of all endpoints."""
        return f"http://{_HOST}:{self._http.server_port}"

    def start(self) -> None:
        """Start answering."""
        query_protocol.ec2_model()  # loaded now, so that the first call is not slower
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop answering and remove every link and block device."""
        self._http.shutdown()
        self._http.server_close()
        self._http.hang_up()
        with self.world.lock:
            self._stopping = True
            self.world.lock.notify_all()
        for thread in self._threads:
            thread.join()
        self.world.devices.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _tick(self) -> None:
        with self.world.lock:
            while not self._stopping:
                self.world.timeline.run_due()
                self.world.lock.wait(self.world.timeline.real_seconds_to_next())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A client that waits for a response must not delay the end of the sandbox.
    block_on_close = False
    world: World
    ec2: Ec2Endpoint
    metadata: MetadataService
    control: control.Control

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that disconnected is not an error; the journal has its call.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        """Close the connections that clients keep open."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Header and body in one segment: Nagle and delayed ACK would cost 40 ms per call.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._route()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 -- names of BaseHTTPRequestHandler

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- name of the base class
        """Log nothing: the journal has every call."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header, ahead of real time by `date_ahead_seconds`."""
        if timestamp is None:
            world = self.server.world
            ahead = timedelta(seconds=world.settings.date_ahead_seconds)
            timestamp = (world.timeline.clock.wall() + ahead).timestamp()
        return super().date_time_string(timestamp)

    def _route(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        if parts.path.startswith(control.PREFIX):
            response = self.server.control.answer(self.command, self.path, body)
        elif parts.path.startswith("/latest"):
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = self.server.metadata.answer(self.command, parts.path, headers)
        else:
            fields = body.decode() or parts.query
            form = dict(parse_qsl(fields, keep_blank_values=True))
            response = self.server.ec2.answer(form, access_key=self._access_key())
        self._send(response)

    def _access_key(self) -> str:
        match = _CREDENTIAL.search(self.headers.get("Authorization", ""))
        return match[1] if match else ""

    def _send(self, response: Response) -> None:
        if not response.status:
            self.close_connection = True
            return
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if not response.drip_seconds:
            self.wfile.write(response.body)
            return
        for byte in response.body:
            self.wfile.flush()
            self.server.world.timeline.clock.pause(response.drip_seconds)
            self.wfile.write(bytes([byte]))
