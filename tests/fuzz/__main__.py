"""`make fuzz`: change samples for a while, and stop at the first exception that is not declared."""

import argparse
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from time import monotonic

from tests.fuzz.targets import Target, targets

# For one attempt; a machine under load takes tens of milliseconds and a few MiB.
_LONGEST_SECONDS = 20.0
_MOST_KIB = 128 * 1024

# What parsers have stumbled over: escapes, numbers without end, other scripts, control bytes.
_PIECES = (
    *(b"", b"\0", b"\n", b" ", b"\t", b"\\", b"\\0", b"\\777", b'"', b"<", b">", b"{", b"[" * 3000),
    *(
        b"-1",
        b"0",
        b"\xff" * 8,
        b"\r\n",
        b"\r\n\r\n",
        b"chunked",
        b"9" * 5000,
        b"1e999",
        b"NaN",
        b"Infinity",
        b"null",
        b"[]",
        b"{}",
        b"true",
    ),
    *(
        b"\xff\xfe",
        b"\xed\xa0\x80",
        "²".encode(),
        "٣".encode(),
        b"\\ud800",
        b"&#0;",
        b"&amp;",
        b"=",
        b":",
    ),
    *(
        b"<item/>",
        b"<size/>",
        b"<tagSet/>",
        b"2026-99-99T00:00:00Z",
        b"!!python/object:x",
        b"&a *a",
    ),
)


def changed(sample: bytes, random: Random) -> bytes:
    """The sample with a few changes: other bytes and words, parts cut or doubled."""
    content = bytearray(sample)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(content) + 1)
        end = min(len(content), start + random.choice((0, 1, 1, 4, 20, 200)))
        how = random.randrange(4)
        if how == 0 and content:
            content[min(start, len(content) - 1)] = random.randrange(256)
        elif how == 1:
            content[start:end] = random.choice(_PIECES)
        elif how == 2:
            content[start:start] = content[start:end] * random.choice((1, 2, 50))
        elif words := _words(content):
            first, last = random.choice(words)
            content[first:last] = random.choice(_PIECES)
    return bytes(content)


def _words(content: bytearray) -> list[tuple[int, int]]:
    """Where each run of letters and digits begins and ends, as far as is quick to find."""
    words, start = [], None
    for index, byte in enumerate(content[:5000]):
        if chr(byte).isalnum():
            start = index if start is None else start
        elif start is not None:
            words.append((start, index))
            start = None
    return words


def fuzz(seconds: float, seed: int) -> Iterator[str]:
    """Change samples for so long; a sentence for each parser that raised something else."""
    random, until = Random(seed), monotonic() + seconds  # noqa: S311 -- repeatable on purpose
    with targets() as known:
        failed: set[str] = set()
        for number, name in _in_turn(known):
            if monotonic() > until or failed == known.keys():
                break
            if name not in failed and (problem := _tried(known[name], random)):
                failed.add(name)
                yield f"{name}, attempt {number}: {problem}"


def _in_turn(known: dict[str, Target]) -> Iterator[tuple[int, str]]:
    number = 0
    while True:
        for name in known:
            number += 1
            yield number, name


def _tried(target: Target, random: Random) -> str:
    samples, parse, declared = target
    content = changed(random.choice(samples), random)
    began_seconds, began_kib = monotonic(), _peak_kib()
    try:
        with _bounded():
            parse(content)
    except declared:
        pass
    except Exception as error:  # noqa: BLE001 -- it is what this looks for
        return f"{type(error).__name__}: {str(error)[:200]}, from {content[:3000]!r}"
    seconds, kib = monotonic() - began_seconds, _peak_kib() - began_kib
    if seconds > _LONGEST_SECONDS or kib > _MOST_KIB:
        return f"took {seconds:.1f} s and {kib} KiB, from {content[:3000]!r}"
    return ""


class _NoEnd(BaseException):
    """A parser used the processor for too long; nobody handles this by mistake."""


@contextmanager
def _bounded() -> Iterator[None]:
    def end(*_: object) -> None:
        raise _NoEnd

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_SECONDS)
    try:
        yield
    except _NoEnd as error:
        raise RuntimeError("does not end") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def use_no_real_account() -> None:
    """Have boto3 sign with credentials that are nobody's."""
    os.environ.update(AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="example")  # noqa: S106 -- none


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=Random().randrange(10**6))  # noqa: S311 -- printed
    arguments = parser.parse_args()
    use_no_real_account()
    print(f"fuzzing for {arguments.seconds:g} s with --seed {arguments.seed}", flush=True)  # noqa: T201 -- its output
    problems = 0
    for sentence in fuzz(arguments.seconds, arguments.seed):
        problems += 1
        print(sentence, flush=True)  # noqa: T201 -- its output
    sys.exit(1 if problems else 0)
