"""A switch that delays each frame, for kernels without netem: ``python userspace_switch.py SECONDS INTERFACE...``.

It has a packet socket on each interface. Frames travel with their virtio-net header, so that large TCP segments and
checksums that are still to be computed pass unchanged.
"""

from __future__ import annotations

import collections
import contextlib
import select
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
ETH_P_ALL = 3
BUFFER = 64 * 2**20
LONGEST_FRAME = 70000
HEADER = 10
FRAMES_AT_ONCE = 16


def port(interface):
    """Return a socket that receives all frames that come in by an interface."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    opened.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    opened.bind((interface, ETH_P_ALL))
    return opened


def frames(source):
    """Yield the frames that wait at a port, but only so many that the other ports get their turn."""
    with contextlib.suppress(OSError):  # no more frames, or the host of this port has ended
        for _ in range(FRAMES_AT_ONCE):
            yield source.recv(LONGEST_FRAME)


def main(delay, *interfaces):
    ports = [port(interface) for interface in interfaces]
    port_of = {}  # by hardware address
    waiting = collections.deque()
    print("ready", flush=True)
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select(ports, [], [], pause)
        due = time.monotonic() + delay
        for source in readable:
            for frame in frames(source):
                receiver, sender = frame[HEADER : HEADER + 6], frame[HEADER + 6 : HEADER + 12]
                port_of[sender] = source
                others = [other for other in ports if other is not source]
                waiting.append((due, [port_of[receiver]] if receiver in port_of else others, frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, targets, frame = waiting.popleft()
            for target in targets:
                with contextlib.suppress(OSError):  # dropped by a rule of the firewall
                    target.send(frame)


main(float(sys.argv[1]), *sys.argv[2:])
