"""Notice that the host of a TCP peer, or the network to it, is gone.

Nothing says so: a cut link sends no message. Only TCP knows whether the peer's host still acknowledges what it gets. A
peer that is busy, or even stopped, is not silent: its host answers for it. So three means together find silence, and
nothing else, within :data:`SILENCE_SECONDS`:

* on an idle connection, keepalive probes, which the system sends and watches;
* while bytes are under way on a connection that a thread waits for, :func:`is_silent`, asked every
  :data:`TICK_SECONDS`. The option ``TCP_USER_TIMEOUT`` would do it, but it also ends connections to busy peers, which
  acknowledge and do not read;
* on the connections of asyncio programs, whose peers always read, ``TCP_USER_TIMEOUT``.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio.trsock

SILENCE_SECONDS = 8
"""A host that has acknowledged nothing for so long is gone."""
TICK_SECONDS = 1.0
"""A wait looks so often whether the peer's host is still there."""

_IDLE_SECONDS = 3
_PROBES = SILENCE_SECONDS - _IDLE_SECONDS  # one a second
_TRIES = 3  # so many unanswered transmissions, since single packets may get lost
_TCP_INFO = struct.Struct("=8B13I")  # linux/tcp.h, up to tcpi_last_ack_recv
_RETRANSMITS, _PROBES_OUT, _LAST_ACK_RECEIVED = 2, 3, 20


def watch(sock: socket.socket | asyncio.trsock.TransportSocket, always_reads: bool = False) -> None:
    """Have the system watch a TCP connection.

    Parameters
    ----------
    sock : socket
        The connected socket.
    always_reads : bool
        Whether the peer always reads what it gets, so that bytes which it does not take mean that it is gone.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    if always_reads:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)


def set_tick(sock: socket.socket) -> None:
    """Make each call of a blocking socket raise ``BlockingIOError`` after a tick."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(TICK_SECONDS), 0))


def is_silent(sock: socket.socket) -> bool:
    """Whether the host of a TCP peer has not acknowledged bytes that were sent to it several times."""
    info = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    unanswered = max(info[_RETRANSMITS], info[_PROBES_OUT]) >= _TRIES
    return bool(unanswered and info[_LAST_ACK_RECEIVED] >= SILENCE_SECONDS * 1000)
