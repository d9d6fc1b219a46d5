"""Measure the least cost of a message and its answer: bare sockets to processes that echo."""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator

from measure import seconds


def median_of_calls(action: Callable[[], object], count: int) -> float:
    """Return the median of the seconds of `count` calls."""
    return statistics.median(seconds(action) for _ in range(count))


@contextlib.contextmanager
def echoes(family: int, count: int) -> Iterator[list[socket.socket]]:
    """Yield sockets to `count` processes that send every byte back."""
    script = (
        "import socket, sys\n"
        "sock = socket.socket(fileno=int(sys.argv[1]))\n"
        "while octets := sock.recv(65536): sock.sendall(octets)\n"
    )
    sockets, processes = [], []
    for _ in range(count):
        near, far = _connected_pair(family)
        processes.append(subprocess.Popen([sys.executable, "-c", script, str(far.fileno())], pass_fds=[far.fileno()]))
        far.close()
        sockets.append(near)
    yield sockets
    for sock in sockets:
        sock.close()
    for process in processes:
        process.wait()


def _connected_pair(family: int) -> tuple[socket.socket, socket.socket]:
    if family == socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def round_trips(sockets: list[socket.socket]) -> None:
    """Send 64 bytes to each, and receive the answers."""
    for sock in sockets:
        sock.sendall(b"x" * 64)
    for sock in sockets:
        sock.recv(65536)
