"""Raw TCP streams between two hosts, as many as there are workers: the baseline of transfers and steps.

The far end of each stream is a process of its own, as a worker is. The near end has one thread for each stream. Both
ends hold the bytes, or the memory for them, in pages that have been touched. A stream sends its whole share with one
``sendall``, and receives up to 16 MiB at a time with ``recv_into``, directly into place. Run as a program, this module
is the far end of one stream; it prints the port that it listens on.
"""

from __future__ import annotations

import itertools
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from transfer_baselines import receive

CONNECT_SECONDS = 30.0
_ORDER = struct.Struct("!cQ")
_TAKE, _GIVE, _ECHO = b"t", b"g", b"e"


class RawStreams:
    """The near ends of some streams; a context manager.

    Parameters
    ----------
    addresses : sequence of (str, int)
        Where the far ends listen.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._sockets = [_connect(host, port) for host, port in addresses]
        self._threads = ThreadPoolExecutor(len(self._sockets))

    def send_seconds(self, source: np.ndarray) -> float:
        """Send the bytes of a contiguous array. Return the seconds until the far ends have all of them."""
        return self._move(_send, source)

    def fetch_seconds(self, target: np.ndarray) -> float:
        """Fill a contiguous array with bytes of the far ends, and return the seconds."""
        return self._move(_fetch, target)

    def _move(self, move: Callable[[socket.socket, memoryview], None], array: np.ndarray) -> float:
        octets = array.reshape(-1).view(np.uint8).data
        cuts = [len(octets) * k // len(self._sockets) for k in range(len(self._sockets) + 1)]
        shares = [octets[start:stop] for start, stop in itertools.pairwise(cuts)]
        started = time.perf_counter()
        list(self._threads.map(move, self._sockets, shares))
        return time.perf_counter() - started

    def echoes(self) -> list[socket.socket]:
        """Make the far ends send back every byte from now on; return the sockets."""
        for sock in self._sockets:
            sock.sendall(_ORDER.pack(_ECHO, 0))
        return self._sockets

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown()
        for sock in self._sockets:
            sock.close()


def _connect(host: str, port: int) -> socket.socket:
    sock = socket.create_connection((host, port), CONNECT_SECONDS)
    sock.settimeout(None)  # so that one call of sendall is one system call
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _send(sock: socket.socket, octets: memoryview) -> None:
    sock.sendall(_ORDER.pack(_TAKE, len(octets)))
    sock.sendall(octets)
    receive(sock, memoryview(bytearray(1)))


def _fetch(sock: socket.socket, octets: memoryview) -> None:
    sock.sendall(_ORDER.pack(_GIVE, len(octets)))
    receive(sock, octets)


def _serve(sock: socket.socket, nbytes: int) -> None:
    octets = memoryview(bytearray(b"\1") * nbytes)  # every page is touched
    order = memoryview(bytearray(_ORDER.size))
    while True:
        receive(sock, order)
        kind, count = _ORDER.unpack(order)
        if kind == _TAKE:
            receive(sock, octets[:count])
            sock.sendall(b"\0")
        elif kind == _GIVE:
            sock.sendall(octets[:count])
        else:
            while received := sock.recv(65536):
                sock.sendall(received)


def main() -> None:
    """Serve one connection to an address with memory for so many bytes, until the near end closes it."""
    address, nbytes = sys.argv[1], int(sys.argv[2])
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            _serve(sock, nbytes)
        except (EOFError, ConnectionError):
            return


if __name__ == "__main__":
    main()
