"""Sockets between a process and its children: a child inherits its end, or gets it in a packet."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Self

PACKET_BYTES = 2**16
"""Longest packet."""
MAX_DESCRIPTORS = 200
"""Descriptors in one packet at most; the kernel takes 253."""


def stream_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected stream sockets."""
    return socket.socketpair()


def inherited_stream(descriptor: int) -> socket.socket:
    """Return the stream socket that this process has inherited."""
    return socket.socket(fileno=descriptor)


class PacketSocket:
    """A connected socket of packets, which may carry open file descriptors.

    Parameters
    ----------
    descriptor : int
        A descriptor of the socket, which the object owns from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._sock = socket.socket(fileno=descriptor)

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return two connected sockets."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(here.detach()), cls(there.detach())

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._sock.fileno()

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a packet, with descriptors that stay open here."""
        socket.send_fds(self._sock, [packet], descriptors)

    def receive(self) -> tuple[bytes, list[int]]:
        """Return the next packet and its descriptors; the packet is empty if the peer has ended its side."""
        packet, descriptors, _, _ = socket.recv_fds(self._sock, PACKET_BYTES, MAX_DESCRIPTORS)
        return packet, descriptors

    async def receive_soon(self) -> bytes:
        """Return the next packet, as :meth:`receive`, without blocking the event loop."""
        import asyncio  # the warm process, which is started before all else, does without it

        self._sock.setblocking(False)
        return await asyncio.get_running_loop().sock_recv(self._sock, PACKET_BYTES)

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes; it can still send."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
