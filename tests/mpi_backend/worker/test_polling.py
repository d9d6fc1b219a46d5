"""Workers poll for commands that come soon, and only for those."""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace

import pytest

from alchemist_ray.mpi_backend.worker import polling
from alchemist_ray.mpi_backend.worker.polling import PollingReceiver


class Bytes:
    """A channel whose messages are single bytes."""

    def __init__(self, sock):
        self.sock = sock

    def fileno(self):
        return self.sock.fileno()

    def receive(self):
        return self.sock.recv(1)


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


def cpu_of_waiting(receiver, near, seconds):
    """Return the CPU seconds of this thread for a wait of this length for a command."""
    timer = threading.Timer(seconds, near.send, [b"x"])
    timer.start()
    began = time.thread_time()
    receiver.receive()
    timer.join()
    return time.thread_time() - began


def soon(receiver, near):
    near.send(b"x")
    receiver.receive()


def test_polls_after_a_command_that_came_at_once_for_a_while_only(pair, monkeypatch):
    monkeypatch.setattr(polling, "POLLING_SECONDS", 0.1)
    monkeypatch.setattr(polling, "LOST", 1.0)  # no other process wants the core
    receiver = PollingReceiver(Bytes(pair[1]), polls=True)
    assert cpu_of_waiting(receiver, pair[0], 0.3) < 0.02  # nothing is known yet
    assert cpu_of_waiting(receiver, pair[0], 0.3) < 0.02  # the last command took long to come
    soon(receiver, pair[0])
    assert 0.02 < cpu_of_waiting(receiver, pair[0], 0.4) < 0.15
    assert cpu_of_waiting(receiver, pair[0], 0.3) < 0.02


def test_others_do_not_poll(pair):
    receiver = PollingReceiver(Bytes(pair[1]), polls=False)
    soon(receiver, pair[0])
    assert cpu_of_waiting(receiver, pair[0], 0.1) < 0.02


def test_polls_ever_more_seldom_where_the_core_is_wanted(pair, monkeypatch):
    monkeypatch.setattr(polling, "LOST", -1.0)  # other processes always want the core
    looks = []
    receiver = PollingReceiver(Bytes(pair[1]), polls=True)
    monkeypatch.setattr(receiver, "_poller", SimpleNamespace(poll=lambda wait: looks.append(wait) or [1]))
    for _ in range(300):
        soon(receiver, pair[0])
    assert len(looks) < 20
    monkeypatch.setattr(polling, "LOST", 1.0)
    for _ in range(300):
        soon(receiver, pair[0])
    assert len(looks) > 150
