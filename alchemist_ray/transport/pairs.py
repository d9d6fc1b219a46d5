"""Sockets between a process and its children: a child inherits its end, or gets it in a packet."""

from __future__ import annotations

import errno
import os
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
        """Send a packet, with descriptors that stay open here; raise OSError if it is too long."""
        if len(packet) > PACKET_BYTES:
            raise OSError(errno.EMSGSIZE, f"a packet of {len(packet)} bytes is longer than {PACKET_BYTES}")
        socket.send_fds(self._sock, [packet], descriptors)

    def receive(self) -> tuple[bytes, list[int]]:
        """Return the next packet and its descriptors; the packet is empty if the peer has ended its side.

        Raises
        ------
        OSError
            If the packet is too long, or this process may not have so many descriptors; the packet is lost then.
        """
        packet, descriptors, flags, _ = socket.recv_fds(self._sock, PACKET_BYTES, MAX_DESCRIPTORS)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            if flags & socket.MSG_CTRUNC:
                raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: not all descriptors of a packet fit")
            raise OSError(errno.EMSGSIZE, f"a packet is longer than {PACKET_BYTES} bytes")
        return packet, descriptors

    async def receive_soon(self) -> bytes:
        """Return the next packet, as :meth:`receive`, without blocking the event loop."""
        import asyncio  # the warm process, which is started before all else, does without it

        self._sock.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            return await loop.sock_recv(self._sock, PACKET_BYTES)
        except ConnectionResetError:  # the peer has closed its side before it had read all; what it has sent is here
            return await loop.sock_recv(self._sock, PACKET_BYTES)

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes; it can still send."""
        self._sock.shutdown(socket.SHUT_WR)

    def end_reading(self) -> None:
        """Take nothing more: the peer cannot send any more; what it has sent can still be received."""
        self._sock.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
