"""Metrics over HTTP and in a file, with clients and disks that misbehave."""

import errno
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import MetricsSettings
from ebs_autoscale.telemetry.exporter import CLIENTS_MAX, Exporter
from ebs_autoscale.telemetry.view import State, View
from tests.system.bench import until

ODD = '/scratch "two"\nlines\\'


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter that has a view to show, and ends with the test."""
    found = Exporter(ODD, SystemClock())
    found.publish(View(state=State.WATCHING))
    yield found
    found.close()


def listening(exporter: Exporter) -> int:
    """The port at which it answers."""
    port = free_port()
    exporter.follow(MetricsSettings(listen=("127.0.0.1", port)))

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    until(answers, "a thread to do its work")
    return port


def ask(port: int, request: bytes) -> bytes:
    """What is answered to these bytes; empty when the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        answer = b""
        try:
            while received := client.recv(65536):
                answer += received
        except ConnectionResetError:
            pass
        return answer


def test_metrics_are_served(exporter: Exporter) -> None:
    """As Prometheus asks for them, with a label that any mountpoint fits in."""
    with urlopen(f"http://127.0.0.1:{listening(exporter)}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    assert 'ebs_autoscale_readable{mountpoint="/scratch \\"two\\"\\nlines\\\\"} 0\n' in text


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /metrics?x=1 HTTP/1.0\n\n", b"200"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\xff\xfe\x00 \r\n\r\n", b"405"),
        (b"\r\n\r\n", b"405"),
        (b"GET\r\n\r\n", b"404"),
    ],
)
def test_nothing_else_is_answered(exporter: Exporter, request_: bytes, status: bytes) -> None:
    """Only GET /metrics; whatever else comes gets an error."""
    assert ask(listening(exporter), request_).startswith(b"HTTP/1.1 " + status)


def test_an_endless_request_is_cut_off(exporter: Exporter) -> None:
    """A request without an end gets no answer, and is counted."""
    port = listening(exporter)
    before = exporter.dropped
    assert ask(port, b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 100_000) == b""
    assert exporter.dropped > before


def test_clients_that_do_nothing_keep_nobody_out(exporter: Exporter) -> None:
    """Several times as many silent clients as there is room for, and the next one is answered."""
    port = listening(exporter)
    with ExitStack() as stack:
        for _ in range(3 * CLIENTS_MAX):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        assert ask(port, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert exporter.dropped >= CLIENTS_MAX


def test_a_port_in_use_is_a_problem_that_ends(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another daemon has it until it ends; then this one listens."""
    monkeypatch.setattr("ebs_autoscale.telemetry.exporter.BIND_AGAIN_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        exporter.follow(MetricsSettings(listen=("127.0.0.1", port)))
        until(lambda: exporter.problems, "a thread to do its work")
        assert str(port) in exporter.problems[0].sentence
    until(lambda: not exporter.problems, "a thread to do its work")
    until(lambda: ask(port, b"GET /metrics HTTP/1.1\r\n\r\n"), "a thread to do its work")


def test_without_a_descriptor_it_listens_later(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails in the kernel is told, and tried again."""
    kind = selectors.DefaultSelector
    fails = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))]

    def selector() -> selectors.BaseSelector:
        if fails:
            raise fails.pop()
        return kind()

    monkeypatch.setattr("ebs_autoscale.telemetry.exporter.BIND_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(selectors, "DefaultSelector", selector)
    port = free_port()
    exporter.follow(MetricsSettings(listen=("127.0.0.1", port)))
    until(lambda: exporter.problems, "a thread to do its work")
    assert "Too many open files" in exporter.problems[0].sentence
    until(lambda: not exporter.problems, "a thread to do its work")
    assert ask(port, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_reload_starts_what_could_not_be_started(exporter: Exporter, tmp_path: Path) -> None:
    """A host that has no thread left now (TasksMax=), with the same settings later."""
    settings = MetricsSettings(textfile=tmp_path / "ebs.prom")
    size = threading.stack_size(1 << 46)
    try:
        exporter.follow(settings)
    finally:
        threading.stack_size(size)
    assert "no metrics" in exporter.problems[0].sentence
    exporter.follow(settings)
    until((tmp_path / "ebs.prom").exists, "a thread to do its work")
    assert not exporter.problems


def test_a_reload_moves_it(exporter: Exporter) -> None:
    """With another address the old one is free again."""
    first = listening(exporter)
    second = listening(exporter)
    assert ask(second, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")
    until(lambda: _is_free(first), "a thread to do its work")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_the_file_is_readable_by_all(exporter: Exporter, tmp_path: Path) -> None:
    """Whatever the umask of the daemon: node_exporter is another user."""
    path = tmp_path / "ebs.prom"
    old = os.umask(0o077)
    try:
        exporter.follow(MetricsSettings(textfile=path))
        until(path.exists, "a thread to do its work")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.read_text().endswith("\n")
    assert [each.name for each in tmp_path.iterdir()] == ["ebs.prom"]


def test_a_directory_that_does_not_exist_is_a_problem(exporter: Exporter, tmp_path: Path) -> None:
    """It is not created: a typing error would go unnoticed."""
    exporter.follow(MetricsSettings(textfile=tmp_path / "missing" / "ebs.prom"))
    until(lambda: exporter.problems, "a thread to do its work")
    assert "No such file or directory" in exporter.problems[0].sentence
    assert exporter.dropped == 1


def test_a_pipe_or_a_link_in_the_way_is_replaced(exporter: Exporter, tmp_path: Path) -> None:
    """Neither opened, which may wait for ever, nor followed."""
    path, other = tmp_path / "ebs.prom", tmp_path / "other"
    other.write_text("theirs")
    os.mkfifo(tmp_path / "ebs.prom.part")
    path.symlink_to(other)
    exporter.follow(MetricsSettings(textfile=path))
    until(lambda: not path.is_symlink(), "a thread to do its work")
    assert other.read_text() == "theirs"


def test_it_leaves_no_thread(tmp_path: Path) -> None:
    """What was started ends with it."""
    exporter = Exporter("/scratch", SystemClock())
    settings = MetricsSettings(textfile=tmp_path / "a.prom", listen=("127.0.0.1", free_port()))
    exporter.follow(settings)
    assert sum(thread.name == "metrics" for thread in threading.enumerate()) >= 2
    exporter.close()
    until(
        lambda: not [t for t in threading.enumerate() if t.name == "metrics"],
        "a thread to do its work",
    )
