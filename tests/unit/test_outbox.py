"""Log lines for a reader that does not read, or cannot."""

import logging
import os
import pty
import socket
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event as Signal

import pytest

from ebs_autoscale.telemetry.outbox import (
    WAITING_MAX,
    Descriptor,
    Journal,
    LogFile,
    Outbox,
)

MANY = 3 * WAITING_MAX
LONG = "x" * 2000


def record(text: str) -> logging.LogRecord:
    """A record of the logging library."""
    return logging.makeLogRecord({"msg": text})


def pipe() -> tuple[int, int]:
    """A pipe: where it is read, and where written."""
    return os.pipe()


def terminal() -> tuple[int, int]:
    """A terminal whose user has pressed Ctrl-S."""
    user, program = pty.openpty()
    termios.tcflow(program, termios.TCOOFF)
    return user, program


def stream() -> tuple[int, int]:
    """What journald gives a service as its stderr."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return ours.detach(), theirs.detach()


@pytest.fixture(params=[pipe, terminal, stream])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Both ends of something that nobody reads."""
    reader, writer = request.param()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


@pytest.fixture
def make_outbox() -> Iterator[Callable[..., Outbox]]:
    """Make outboxes, and end their threads."""
    made: list[Outbox] = []

    def make(deliver: Callable[[bytes], None], *, patient: bool = False) -> Outbox:
        def tell(count: int) -> None:
            box.emit(record(f"dropped {count}"))

        box = Outbox(deliver, tell_dropped=tell, patient=patient)
        made.append(box)
        return box

    yield make
    for box in made:
        box.close()


def read_lines(fd: int, enough: Callable[[list[str]], bool]) -> list[str]:
    """Read lines until there are enough."""
    text = b""
    while not enough(lines := text.decode().replace("\r", "").split("\n")):
        text += os.read(fd, 65536)
    return lines[:-1]


def told(lines: list[str]) -> int:
    """How many lines were dropped, as these lines say."""
    return sum(int(line.split()[1]) for line in lines if line.startswith("dropped"))


def whole(lines: list[str]) -> list[str]:
    """The lines that were not dropped."""
    return [line for line in lines if not line.startswith("dropped")]


def test_a_reader_that_stands_still(
    ends: tuple[int, int], make_outbox: Callable[..., Outbox]
) -> None:
    """Nobody waits for it; once it reads, no line is torn, and others say how many were dropped."""
    reader, writer = ends
    flags = os.get_blocking(writer)
    outbox = make_outbox(Descriptor(writer))
    for number in range(MANY):
        outbox.emit(record(f"{number} {LONG}"))
    assert outbox.dropped > 0
    if os.isatty(writer):
        termios.tcflow(writer, termios.TCOON)
    # A line may be dropped before the reader's buffer is full, so that this is told twice.
    lines = read_lines(reader, lambda found: len(whole(found[:-1])) + told(found[:-1]) == MANY)
    kept = whole(lines)
    numbers = [int(line.partition(" ")[0]) for line in kept]
    assert kept == [f"{number} {LONG}" for number in numbers]
    assert numbers == sorted(numbers)
    assert told(lines) == outbox.dropped
    assert os.get_blocking(writer) == flags


def test_a_reader_that_is_gone(make_outbox: Callable[..., Outbox]) -> None:
    """Lines to a pipe without a reader are counted, and raise nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    outbox = make_outbox(Descriptor(writer))
    for number in range(3):
        outbox.emit(record(str(number)))
    outbox.flush()
    assert outbox.dropped == 3
    os.close(writer)


def test_a_line_that_cannot_be_formatted_is_counted(make_outbox: Callable[..., Outbox]) -> None:
    """The next one is written all the same."""
    taken: list[bytes] = []
    outbox = make_outbox(taken.append)
    outbox.emit(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    outbox.emit(record("surrogate \udcff"))
    outbox.flush()
    assert taken[0] == b"surrogate \\udcff\n"
    assert outbox.dropped == 1


def test_an_operator_waits_for_lines_in_order_but_not_for_a_reader_that_hangs(
    make_outbox: Callable[..., Outbox],
) -> None:
    """A verb's line is written when the call returns; behind a line that hangs nobody waits."""
    taken: list[bytes] = []
    make_outbox(taken.append, patient=True).emit(record("seen"))
    assert taken == [b"seen\n"]
    goes_on = Signal()
    outbox = make_outbox(lambda _: goes_on.wait() and None, patient=True)
    for number in range(50):
        outbox.emit(record(str(number)))
    goes_on.set()
    outbox.flush()
    assert outbox.dropped == 0


def test_a_log_file_is_found_by_its_name(tmp_path: Path) -> None:
    """After it was moved or removed a new one is begun; without its folder lines are refused."""
    path = tmp_path / "log" / "it.log"
    file = LogFile(path)
    with pytest.raises(FileNotFoundError):
        file(b"lost\n")
    path.parent.mkdir()
    file(b"one\n")
    path.rename(tmp_path / "rotated")
    file(b"two\n")
    path.unlink()
    file(b"three\n")
    assert (tmp_path / "rotated").read_bytes() == b"one\n"
    assert path.read_bytes() == b"three\n"


def test_a_line_that_was_cut_stays_alone() -> None:
    """After a write that was cut by a full disk, the next line begins on a line of its own."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, bytes(65536 - 4096))
    write = Descriptor(writer)
    with pytest.raises(BlockingIOError):
        write(b"y" * 9000)
    os.read(reader, 65536 - 4096)
    write(b"whole\n")
    assert os.read(reader, 65536) == b"y" * 4096 + b"\nwhole\n"
    for fd in (reader, writer):
        os.close(fd)


def test_a_journal_whose_socket_is_made_anew(tmp_path: Path) -> None:
    """Entries for a journald that is away are refused; the first one after it is back arrives."""

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(str(tmp_path / "socket"))
        return listener

    first = listen()
    journal = Journal(str(tmp_path / "socket"))
    first.close()
    (tmp_path / "socket").unlink()
    for _ in range(3):
        with suppress(OSError):
            journal(b"MESSAGE=lost\n")
    with listen() as second:
        journal(b"MESSAGE=found\n")
        assert second.recv(100) == b"MESSAGE=found\n"
    journal.close()


def test_lines_wait_until_there_is_a_thread(make_outbox: Callable[..., Outbox]) -> None:
    """A host that has none left now (TasksMax=) does not silence the program for ever."""
    got: list[bytes] = []
    outbox = make_outbox(got.append)
    size = threading.stack_size(1 << 46)
    try:
        outbox.emit(record("first"))
    finally:
        threading.stack_size(size)
    outbox.emit(record("second"))
    outbox.flush()
    assert got == [b"first\n", b"second\n"]
