"""What systemd is told."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ebs_autoscale.host.sd_notify import WATCHDOG_EVERY_SECONDS, Notifier

Hear = Callable[[], list[str]]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Notifier, Hear]]:
    """A notifier, and what a manager that listens at its address has received."""
    name = f"{tmp_path}/notify"
    address = f"\0{name}" if request.param == "abstract" else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(address)

        def hear() -> list[str]:
            heard = []
            while True:
                try:
                    heard.append(listener.recv(4096).decode())
                except BlockingIOError:
                    return heard

        yield Notifier({"NOTIFY_SOCKET": address.replace("\0", "@")}), hear


def test_each_message_is_a_datagram(manager: tuple[Notifier, Hear]) -> None:
    """Messages have the form of sd_notify(3), and a status is sent when it changes."""
    notifier, hear = manager
    notifier.ready()
    for sentence in ("growing", "growing", "50 % available — fine"):
        notifier.status(sentence)
    notifier.stopping()
    assert hear() == [
        "READY=1",
        "STATUS=growing",
        "STATUS=50 % available — fine",
        "STOPPING=1",
    ]


def test_the_watchdog_is_fed_at_a_pace(manager: tuple[Notifier, Hear]) -> None:
    """The watchdog is fed at once and then once a second, however often the loop ticks."""
    notifier, hear = manager
    for tick in range(41):
        notifier.feed_watchdog(100 + tick * WATCHDOG_EVERY_SECONDS / 8)
    assert hear() == ["WATCHDOG=1"] * 6


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_manager_nothing_is_sent(environment: dict[str, str]) -> None:
    """Without NOTIFY_SOCKET nothing is sent."""
    send_all(Notifier(environment))


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-listens-here", "/" + "x" * 300])
def test_a_missing_manager_is_no_failure(address: str) -> None:
    """An address without a listener, or an invalid one, is not a failure."""
    send_all(Notifier({"NOTIFY_SOCKET": address}))


def send_all(notifier: Notifier) -> None:
    """Send every message."""
    notifier.ready()
    notifier.status("watching")
    notifier.feed_watchdog(1.0)
    notifier.stopping()


@pytest.fixture
def stopped_manager(tmp_path: Path) -> Iterator[tuple[Notifier, Callable[[], list[str]]]]:
    """A notifier of a manager that reads nothing, and what frees its socket."""
    address = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as flood,
    ):
        listener.bind(address)
        flood.connect(address)
        with suppress(BlockingIOError):
            while True:
                flood.send(b"X=1")

        def hear() -> list[str]:
            heard = []
            with suppress(BlockingIOError):
                while True:
                    heard.append(listener.recv(4096).decode())
            return [each for each in heard if each != "X=1"]

        yield Notifier({"NOTIFY_SOCKET": address}), hear


def test_a_manager_that_stands_still_is_not_waited_for(
    stopped_manager: tuple[Notifier, Hear],
) -> None:
    """What it did not take is sent later, the last of each kind in order, and the rest counted."""
    notifier, hear = stopped_manager
    notifier.ready()
    notifier.reloading(1.0)
    for second in range(600):
        notifier.status(f"growing {second}")
        notifier.feed_watchdog(second)
    notifier.ready()
    assert hear() == []
    assert notifier.dropped == 599 + 599 + 1
    notifier.feed_watchdog(1000.0)
    assert [each.partition("\n")[0] for each in hear()] == [
        "RELOADING=1",
        "STATUS=growing 599",
        "READY=1",
        "WATCHDOG=1",
    ]


@pytest.mark.parametrize(
    "sentence", ["a\ud800b", "no UTF-8: \udcff", "a\nREADY=1", "nul\0", "x" * 10**7, "\x1b[2J"]
)
def test_any_status_is_one_line_of_text(manager: tuple[Notifier, Hear], sentence: str) -> None:
    """A status is one line of UTF-8 that systemd takes, whatever bytes are in it."""
    notifier, hear = manager
    notifier.status(sentence)
    [status] = hear()
    assert status.startswith("STATUS=")
    assert status.isprintable()
    assert len(status.encode()) < 4096


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """No descriptor stays open."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        before = len(list(Path("/proc/self/fd").iterdir()))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for count in range(8):
            notifier.status(f"{count}")
        assert len(list(Path("/proc/self/fd").iterdir())) == before
