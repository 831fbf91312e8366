"""Connects a box with its EC2: an address in its network namespace, answered from outside."""

import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from threading import Thread

METADATA_ADDRESS = ("169.254.169.254", 80)

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CHUNK_BYTES = 65536

Address = tuple[str, int]


class Wire:
    """Forwards connections from an address in a network namespace to one outside.

    The sandbox is outside, where the test controls it and where it survives reboots. A socket
    belongs to the namespace in which it was created, so only that needs a thread in there.
    """

    def __init__(self, namespace: Path, *, listen: Address, to: Address) -> None:
        with ThreadPoolExecutor(1) as pool:
            self._socket = pool.submit(_listen_in, namespace, listen).result()
        self._to = to
        self._thread = Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more connections; the existing ones end with their box."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                Thread(target=_join, args=(near, self._to), daemon=True).start()


def _listen_in(namespace: Path, address: Address) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(fd)
    return socket.create_server(address)


def _join(near: socket.socket, to: Address) -> None:
    with (
        suppress(OSError),
        near,
        socket.create_connection(to) as far,
        DefaultSelector() as selector,
    ):
        other = {near: far, far: near}
        for end, opposite in other.items():
            selector.register(end, EVENT_READ, opposite)
        while True:
            for key, _ in selector.select():
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    return
                key.data.sendall(chunk)
