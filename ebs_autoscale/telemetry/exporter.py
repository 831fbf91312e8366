"""Metrics for whoever collects them: a file that is kept up to date, and GET /metrics over HTTP.

Both are threads of their own, so that neither a slow disk nor a slow client delays the loop.
"""

import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

from ebs_autoscale.clock import Clock
from ebs_autoscale.config import MetricsSettings
from ebs_autoscale.errors import Cause, Problem
from ebs_autoscale.host import files
from ebs_autoscale.telemetry.metrics import CONTENT_TYPE, render
from ebs_autoscale.telemetry.view import View

# Prometheus and node_exporter look every 15 to 60 s.
FILE_EVERY_SECONDS = 15.0

# More than anybody needs who collects metrics: a page of 30 KB for one request.
CLIENTS_MAX = 8
CLIENT_PATIENCE_SECONDS = 5.0
REQUEST_MAX_BYTES = 8192

# A port may be in use only until another daemon has ended.
BIND_AGAIN_SECONDS = 10.0


class _Collector(Protocol):
    dropped: int
    problem: Problem | None

    def run(self) -> None:
        """Do the work until `close` is called."""

    def close(self) -> None:
        """End soon."""


class Exporter:
    """Has the latest view collected as the settings say; never waits for who collects it."""

    def __init__(self, mountpoint: str, clock: Clock) -> None:
        self._mountpoint = mountpoint
        self._clock = clock
        self._latest: tuple[View, float] | None = None
        self._settings = MetricsSettings()
        self._collectors: list[_Collector] = []
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """How many files could not be written and how many clients were turned away."""
        return self._dropped_before + sum(each.dropped for each in self._collectors)

    @property
    def problems(self) -> list[Problem]:
        """What prevents that metrics are collected now."""
        return [each.problem for each in self._collectors if each.problem]

    def publish(self, view: View) -> None:
        """Show this view from now on."""
        self._latest = (view, self._clock.wall_seconds())

    def follow(self, settings: MetricsSettings) -> None:
        """Start, or go on, as these settings say; not before this process has detached.

        What has a problem is started again.
        """
        if settings == self._settings and not self.problems:
            return
        self.close()
        self._settings = settings
        if settings.textfile:
            self._start(TextFile(settings.textfile, self._text))
        if settings.listen:
            self._start(Listener(settings.listen, self._text, self._clock))

    def close(self) -> None:
        """End all that was started."""
        self._dropped_before = self.dropped
        for each in self._collectors:
            each.close()
        self._collectors, self._settings = [], MetricsSettings()

    def _start(self, collector: _Collector) -> None:
        self._collectors.append(collector)
        try:
            Thread(target=collector.run, name="metrics", daemon=True).start()
        except RuntimeError as error:
            hint = "raise TasksMax= of the service, then reload it"
            collector.problem = Problem(Cause.METRICS, f"no metrics: {error}", hint)

    def _text(self) -> str | None:
        if self._latest is None:
            return None
        view, seen_at_seconds = self._latest
        try:
            return render(view, mountpoint=self._mountpoint, seen_at_seconds=seen_at_seconds)
        except Exception:  # noqa: BLE001 -- whatever it is, the next view may be fine
            self._dropped_before += 1
            return None


class TextFile:
    """Keeps a file up to date; it stays behind at the end, and its age then shows."""

    def __init__(self, path: Path, text: Callable[[], str | None]) -> None:
        self._path = path
        self._text = text
        self._closed = Event()
        self.dropped = 0
        self.problem: Problem | None = None

    def run(self) -> None:
        """Write at once, and then at intervals."""
        wait_seconds = 0.0
        while not self._closed.wait(wait_seconds):
            text = self._text()
            wait_seconds = FILE_EVERY_SECONDS if text else 1.0
            if text:
                self._write(text)

    def close(self) -> None:
        """Write no more."""
        self._closed.set()

    def _write(self, text: str) -> None:
        try:
            files.publish(self._path, text)
        except OSError as error:
            self.dropped += 1
            self.problem = Problem(
                Cause.METRICS,
                f"cannot write metrics.textfile {self._path}: {error.strerror}",
                "create its directory, or correct the path",
            )
        else:
            self.problem = None


@dataclass(slots=True, eq=False)
class _Client:
    connection: socket.socket
    deadline_seconds: float
    request: bytes = b""
    answer: memoryview = field(default_factory=lambda: memoryview(b""))


class Listener:
    """Answers GET /metrics, to a few clients at a time, none of which can take long.

    Of the standard library's HTTP server each client would have a thread, without end. A client too
    many takes the place of the one that has been there longest.
    """

    def __init__(
        self, address: tuple[str, int], text: Callable[[], str | None], clock: Clock
    ) -> None:
        self._address = address
        self._text = text
        self._clock = clock
        self._closed = Event()
        self._listening: socket.socket | None = None
        self._clients: list[_Client] = []
        self.dropped = 0
        self.problem: Problem | None = None

    def close(self) -> None:
        """Answer no more; clients that are being answered may take a second."""
        self._closed.set()
        if self._listening:
            # It becomes readable by that, which ends the wait for a client.
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Listen, as soon as the address is free."""
        wait_seconds = 0.0
        while not self._closed.wait(wait_seconds):
            wait_seconds = BIND_AGAIN_SECONDS
            try:
                with _listen(self._address) as listening, selectors.DefaultSelector() as selector:
                    selector.register(listening, selectors.EVENT_READ)
                    self._listening, self.problem = listening, None
                    self._serve(listening, selector)
            except OSError as error:
                host, port = self._address
                self.problem = Problem(
                    Cause.METRICS,
                    f"cannot listen on metrics.listen {host} port {port}: {error.strerror}",
                    "choose another port, one for each daemon; see `ss -ltnp`",
                )

    def _serve(self, listening: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            while not self._closed.is_set():
                self._serve_once(listening, selector)
        finally:
            for client in list(self._clients):
                self._end(client, selector)

    def _serve_once(self, listening: socket.socket, selector: selectors.BaseSelector) -> None:
        # Without a client, an idle daemon is not woken up.
        for key, _ in selector.select(timeout=1.0 if self._clients else None):
            if key.data is None:
                self._accept(listening, selector)
            elif key.data in self._clients:
                self._advance(key.data, selector)
        now = self._clock.now_seconds()
        for client in [each for each in self._clients if each.deadline_seconds <= now]:
            self._drop(client, selector)

    def _accept(self, listening: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            # It has gone again, this process has no descriptor left for it, or this is the end.
            self.dropped += not self._closed.wait(0.1)
            return
        connection.settimeout(0)
        if len(self._clients) >= CLIENTS_MAX:
            self._drop(self._clients[0], selector)
        client = _Client(connection, self._clock.now_seconds() + CLIENT_PATIENCE_SECONDS)
        selector.register(connection, selectors.EVENT_READ, client)
        self._clients.append(client)

    def _advance(self, client: _Client, selector: selectors.BaseSelector) -> None:
        try:
            if client.answer:
                client.answer = client.answer[client.connection.send(client.answer) :]
                if not client.answer:
                    self._end(client, selector)
                return
            received = client.connection.recv(REQUEST_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client, selector)
            return
        client.request += received
        is_complete = b"\r\n\r\n" in client.request or b"\n\n" in client.request
        if not is_complete and (not received or len(client.request) > REQUEST_MAX_BYTES):
            self._drop(client, selector)
        elif is_complete:
            client.answer = memoryview(self._answer(client.request))
            selector.modify(client.connection, selectors.EVENT_WRITE, client)

    def _answer(self, request: bytes) -> bytes:
        method, target, *_ = [*request.split(b"\n", 1)[0].split(), b"", b""]
        if method != b"GET":
            return _response("405 Method Not Allowed", "only GET is supported\n")
        if target.partition(b"?")[0] != b"/metrics":
            return _response("404 Not Found", "metrics are at /metrics\n")
        text = self._text()
        if text is None:
            return _response("503 Service Unavailable", "nothing has been measured yet\n")
        return _response("200 OK", text, CONTENT_TYPE)

    def _drop(self, client: _Client, selector: selectors.BaseSelector) -> None:
        self.dropped += 1
        self._end(client, selector)

    def _end(self, client: _Client, selector: selectors.BaseSelector) -> None:
        self._clients.remove(client)
        selector.unregister(client.connection)
        client.connection.close()


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(CLIENTS_MAX)
    except OSError:
        listening.close()
        raise
    listening.settimeout(0)
    return listening


def _response(status: str, text: str, content_type: str = "text/plain; charset=utf-8") -> bytes:
    body = text.encode("utf-8", "backslashreplace")
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
