"""Packets between processes arrive whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket

import pytest

from alchemist_ray.transport.pairs import PACKET_BYTES, PacketSocket


@pytest.fixture
def pair():
    one, other = PacketSocket.pair()
    with contextlib.closing(one), contextlib.closing(other):
        yield one, other


def test_a_packet_arrives_with_its_descriptors(pair):
    pair[0].send(b"hello", [0, 1])
    packet, descriptors = pair[1].receive()
    assert packet == b"hello"
    assert len(descriptors) == 2
    for descriptor in descriptors:
        os.close(descriptor)


def test_descriptors_that_do_not_fit_are_an_error_and_none_stays_open(pair):
    open_now = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    pair[0].send(b"order", [0] * 50)
    holes = [os.dup(0) for _ in range(max(0, highest - open_now + 1))]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(holes, default=highest) + 3, limits[1]))
    try:
        with pytest.raises(OSError, match="descriptors") as caught:
            pair[1].receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in holes:
            os.close(descriptor)
    assert caught.value.errno == errno.EMFILE
    assert len(os.listdir("/proc/self/fd")) == open_now


def test_a_packet_that_is_too_long_is_an_error_on_both_sides(pair):
    with pytest.raises(OSError, match="longer than"):
        pair[0].send(b"x" * (PACKET_BYTES + 1))
    with socket.socket(fileno=os.dup(pair[0].fileno())) as raw:
        raw.send(b"x" * (PACKET_BYTES + 1))
    with pytest.raises(OSError, match="longer than"):
        pair[1].receive()


def test_what_a_peer_has_said_arrives_though_it_has_not_read_all(pair):
    pair[0].send(b"last words")
    pair[1].send(b"unread")
    pair[0].close()

    async def receive():
        return await pair[1].receive_soon(), await pair[1].receive_soon()

    assert asyncio.run(receive()) == (b"last words", b"")


def test_the_longest_packet_arrives(pair):
    pair[0].send(b"x" * PACKET_BYTES)
    assert pair[1].receive() == (b"x" * PACKET_BYTES, [])
