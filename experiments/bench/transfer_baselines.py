"""The baselines of transfers: a copy in memory, and a bare socket.

The socket is one TCP stream over loopback between two processes. Both ends hold the matrix, or the memory for it, in
pages that have been touched. One end calls ``sendall`` once for the whole matrix; the other end receives up to 16 MiB
at a time with ``recv_into``, directly into place. There is no layout, no second copy, and no header except a count.
Run as a program, this module is the far end.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

import numpy as np

CHUNK = 16 * 2**20
_ORDER = struct.Struct("!cQ")
_TAKE, _GIVE = b"t", b"g"


def copy_seconds(target: np.ndarray, source: np.ndarray) -> float:
    """Copy a matrix in memory with one thread, and return the seconds."""
    started = time.perf_counter()
    np.copyto(target, source)
    return time.perf_counter() - started


class RawSocket:
    """A connection to a process that receives or sends a given number of bytes.

    Parameters
    ----------
    nbytes : int
        The largest number of bytes that will be moved.
    """

    def __init__(self, nbytes: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._socket = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with far:
            command = [sys.executable, __file__, str(far.fileno()), str(nbytes)]
            self._process = subprocess.Popen(command, pass_fds=[far.fileno()])

    def send_seconds(self, source: np.ndarray) -> float:
        """Send the bytes of a contiguous array. Return the seconds until the far end has all of them."""
        octets = _octets(source)
        started = time.perf_counter()
        self._socket.sendall(_ORDER.pack(_TAKE, len(octets)))
        self._socket.sendall(octets)
        receive(self._socket, memoryview(bytearray(1)))
        return time.perf_counter() - started

    def fetch_seconds(self, target: np.ndarray) -> float:
        """Fill a contiguous array with bytes of the far end, and return the seconds."""
        octets = _octets(target)
        started = time.perf_counter()
        self._socket.sendall(_ORDER.pack(_GIVE, len(octets)))
        receive(self._socket, octets)
        return time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.wait()


def _octets(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def receive(sock: socket.socket, octets: memoryview) -> None:
    """Fill `octets`. Raise EOFError if the connection ends first."""
    filled = 0
    while filled < len(octets):
        received = sock.recv_into(octets[filled : filled + CHUNK], 0, socket.MSG_WAITALL)
        if received == 0:
            raise EOFError
        filled += received


def _serve(sock: socket.socket, nbytes: int) -> None:
    octets = _octets(np.ones(nbytes, np.uint8))
    order = memoryview(bytearray(_ORDER.size))
    while True:
        receive(sock, order)
        kind, count = _ORDER.unpack(order)
        if kind == _TAKE:
            receive(sock, octets[:count])
            sock.sendall(b"\0")
        else:
            sock.sendall(octets[:count])


def main() -> None:
    """Run the far end of a :class:`RawSocket` until the near end closes it."""
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            _serve(sock, int(sys.argv[2]))
        except (EOFError, ConnectionError):
            return


if __name__ == "__main__":
    main()
