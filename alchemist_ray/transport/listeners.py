"""The sockets on which a worker listens."""

from __future__ import annotations

import contextlib
import secrets
import socket


def listen_on_tcp(bind: str, ports: tuple[int, int] | None = None, preferred: int = 0) -> socket.socket:
    """Listen on TCP.

    Parameters
    ----------
    bind : str
        The address of the interface, IPv4 or IPv6.
    ports : (int, int), optional
        The first and last port that may be used; by default any.
    preferred : int
        The port to use if it is among these and free; otherwise it is the first free one.

    Raises
    ------
    OSError
        If no port is free, or the address does not belong to this host.
    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    if ports is None:
        return socket.create_server((bind, 0), family=family)
    low, high = ports
    for port in (preferred, *range(low, high + 1)):
        if low <= port <= high:
            with contextlib.suppress(OSError):
                return socket.create_server((bind, port), family=family)
    raise OSError(f"no port of {low}-{high} is free on {bind}: widen --worker-ports")


def listen_on_this_host() -> tuple[socket.socket, str]:
    """Listen on an abstract Unix socket, which can be reached on this host only; return it and its random name."""
    name = f"alchemist-{secrets.token_hex(16)}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + name)
    listener.listen()
    return listener, name
