"""A peer whose host is gone, without the network: what TCP knows of a connection."""

import contextlib
import errno
import socket
import struct
import time

import pytest

from alchemist_ray.protocol import Connection, Side
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.transport import channel as channels
from alchemist_ray.transport.channel import Channel, describe_loss
from alchemist_ray.transport.silence import SILENCE_SECONDS, is_silent, watch


@pytest.fixture
def pair():
    """Yield two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield client, server


class Pretending:
    """A socket whose TCP tells what a test wants."""

    def __init__(self, retransmits=0, probes=0, last_ack=0):
        octets = bytes([1, 0, retransmits, probes, 0, 0, 0, 0])
        self.info = octets + struct.pack("=13I", *[0] * 12, last_ack)

    def getsockopt(self, level, option, size):
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        assert size == len(self.info)
        return self.info


GONE = SILENCE_SECONDS * 1000


@pytest.mark.parametrize(
    ("told", "silent"),
    [
        ({}, False),
        ({"last_ack": 10 * GONE}, False),  # an idle connection: keepalive watches it
        ({"retransmits": 5, "last_ack": GONE - 1}, False),
        ({"retransmits": 2, "last_ack": GONE}, False),  # packets may get lost
        ({"retransmits": 3, "last_ack": GONE}, True),
        ({"probes": 3, "last_ack": GONE}, True),  # the peer did not read, and then its host vanished
        ({"probes": 9, "last_ack": 200}, False),  # it does not read, but its host answers
    ],
)
def test_silence_is_told_from_busyness(told, silent):
    assert is_silent(Pretending(**told)) is silent


def test_a_peer_that_does_not_read_is_not_silent(pair):
    """Its window is closed, and the system probes it; the probes are answered."""
    client, _ = pair
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.send(bytes(2**20))
    time.sleep(1.5)
    assert not is_silent(client)


def test_an_idle_connection_is_probed(pair):
    client, _ = pair
    watch(client, always_reads=True)
    idle, interval, count = (
        client.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert idle + interval * count == SILENCE_SECONDS
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == GONE


def opened(sock, side):
    channels.prepare(sock)
    return Channel(sock, Connection.opened(side, Purpose.MATRICES))


def test_who_waits_for_a_silent_peer_is_told(pair, monkeypatch):
    waiting = opened(pair[0], Side.INITIATOR)
    monkeypatch.setattr(channels, "is_silent", lambda sock: True)
    begun = time.monotonic()
    for wait in (lambda: waiting.receive(), lambda: waiting.receive(30), waiting.check_alive):
        with pytest.raises(TimeoutError) as caught:
            wait()
        assert caught.value.errno == errno.ETIMEDOUT
        assert "the network or the host failed" in describe_loss(caught.value)
    assert time.monotonic() - begun < 5


def test_a_slow_peer_is_waited_for_and_nothing_is_lost(pair):
    """A message of many ticks: the receiver reads it in pieces, with pauses longer than a tick."""
    import threading

    sender, receiver = opened(pair[0], Side.INITIATOR), opened(pair[1], Side.ACCEPTOR)
    octets = memoryview(bytes(range(256)) * 2**14)
    request = m.WriteBlock(1, 1, 0, 1, 0, 1)
    thread = threading.Thread(target=lambda: sender.send(request, [octets], len(octets)))
    thread.start()
    assert receiver.receive() == request
    time.sleep(1.3)
    target = memoryview(bytearray(len(octets)))
    receiver.receive_payload_into(target[: len(octets) // 2])
    time.sleep(1.3)
    receiver.receive_payload_into(target[len(octets) // 2 :])
    thread.join()
    assert target == octets


def test_a_transfer_without_progress_is_given_up_when_a_timeout_is_set(pair):
    waiting = opened(pair[0], Side.INITIATOR)
    waiting.set_timeout(1.0)
    waiting.connection.payload_left = 8
    with pytest.raises(TimeoutError, match="no progress for 1 s"):
        waiting.receive_payload_into(memoryview(bytearray(8)))
