"""The addresses of this host: on the way to another, and where a program can listen."""

from __future__ import annotations

import socket


def address_towards(peer: str) -> str:
    """Return the address of this host from which it would reach `peer`; nothing is sent.

    Raises
    ------
    OSError
        If this host has no route to it.
    """
    with socket.socket(socket.AF_INET6 if ":" in peer else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))
        return str(probe.getsockname()[0])


def check_bindable(address: str) -> None:
    """Raise OSError unless a program on this host can listen at an address."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
