"""Interrupts (Ctrl-C) and refused work leave no stale answers, no lost workers and no lost memory."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from tests_support import memory_in_use, wait_until

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.client import group as group_client
from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.transfer.plane import plane_of
from alchemist_ray.layouts import tiling
from alchemist_ray.protocol import messages as m


@pytest.fixture(scope="module", params=["auto", "tcp"])
def pair_by_transport(request, server):
    with alchemist.AlchemistSession(transport=request.param) as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        yield session


@pytest.fixture
def pair(pair_by_transport):
    """A session with two workers, in which the tests before have left nothing."""
    gc.collect()
    assert wait_until(lambda: memory_in_use(pair_by_transport) == [0, 0])
    return pair_by_transport


def interrupt_once(monkeypatch, module, name):
    """Have the next call of a function be interrupted."""
    real = getattr(module, name)
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(name)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupted)


@pytest.mark.parametrize("where", ["gather", "scatter"])
def test_interrupted_transfer_does_not_leave_its_answer_to_the_next(pair, monkeypatch, where):
    shape = (301, 97)
    ones, twos = np.ones(shape), np.full(shape, 2.0)
    A, B = (pair.send_matrix(matrix, "MC_MR", block_size=8) for matrix in (ones, twos))
    before = memory_in_use(pair)
    interrupt_once(monkeypatch, tiling, where)
    with pytest.raises(KeyboardInterrupt):
        np.asarray(A) if where == "gather" else pair.send_matrix(np.zeros(shape), "MC_MR", block_size=8)
    for _ in range(2):
        np.testing.assert_array_equal(np.asarray(B), twos)
        np.testing.assert_array_equal(np.asarray(A), ones)
    assert wait_until(lambda: memory_in_use(pair) == before)


def test_interrupt_between_request_and_answer(pair, monkeypatch):
    A, B = pair.send_matrix(np.ones((50, 5))), pair.send_matrix(np.full((50, 5), 2.0))
    connection = plane_of(A.address).connections[0]
    real = type(connection)._receive
    interrupts = [KeyboardInterrupt]

    def receive(self, channel, expected, number):
        if interrupts:
            raise interrupts.pop()
        return real(self, channel, expected, number)

    monkeypatch.setattr(type(connection), "_receive", receive)
    with pytest.raises(KeyboardInterrupt):
        np.asarray(A)
    np.testing.assert_array_equal(np.asarray(B), np.full((50, 5), 2.0))
    np.testing.assert_array_equal(np.asarray(A), np.ones((50, 5)))


def test_interrupt_while_workers_start_gives_them_back(connect, monkeypatch):
    session, watcher = connect(), connect()
    free = len(watcher.list_available_workers())
    interrupt_once(monkeypatch, group_client, "CommandStream")
    with pytest.raises(KeyboardInterrupt):
        session.request_workers(2)
    assert len(watcher.list_available_workers()) == free
    session.request_workers(2)
    assert session.run_task("TestLib", "greet", name="you")


def test_workers_that_cannot_be_reached_are_given_back(connect, monkeypatch):
    session = connect(transport="tcp")
    real = GroupAddress.from_wire

    def elsewhere(granted, *args):
        for row in granted["workers"]:
            row["port"] = 1
        return real(granted, *args)

    monkeypatch.setattr(GroupAddress, "from_wire", elsewhere)
    with pytest.raises(errors.GroupStartError, match=r"this process cannot reach them.*--advertise"):
        session.request_workers(2)
    monkeypatch.undo()
    session.request_workers(2)


def test_command_that_reached_some_ranks_only_ends_the_group(connect, monkeypatch):
    session = connect(2)
    session.load_library("faults")
    channels = session._workers.current._commands._channels

    class Interrupting:
        def __init__(self, sock):
            self.sock = sock

        def send(self, octets):
            channels[1]._sock = self.sock
            raise KeyboardInterrupt

        def __getattr__(self, name):
            return getattr(self.sock, name)

    channels[1]._sock = Interrupting(channels[1]._sock)
    with pytest.raises(KeyboardInterrupt):
        session.run_task("faults", "echo", value=1)
    with pytest.raises(errors.GroupDiedError):
        session.run_task("faults", "echo", value=2)
    session.request_workers(2)
    assert session.run_task("faults", "echo", value=3) == 3


def test_memory_is_given_back_after_a_refused_task(session):
    A, B = session.send_matrix(np.ones((500, 500))), session.send_matrix(np.ones((500, 500)))
    session.load_library("linalg")
    plane_of(B.address).free([B.matrix_id])
    with pytest.raises(errors.FreedMatrixError):
        session.run_task("linalg", "gemm", A=A, B=B)
    A.free()
    assert memory_in_use(session) == [0, 0]


def test_memory_is_given_back_when_a_result_cannot_be_kept(session):
    for _ in range(3):
        with pytest.raises(errors.InvalidArrayError, match="int8"):
            session.run_task("faults", "half_kept", rows=1000)
    assert memory_in_use(session) == [0, 0]


def test_matrix_whose_writer_is_gone_is_given_back(connect):
    from alchemist_ray.layouts.spec import spec_of

    session = connect(2)
    plane = plane_of(session.address)
    plane.create(4711, spec_of(np.ones((500, 500)), "VC_STAR", 2), private=True)
    assert min(memory_in_use(session)) > 0
    for connection in plane.connections:
        connection.close()
    assert wait_until(lambda: memory_in_use(session) == [0, 0])


def test_client_that_speaks_for_itself_cannot_name_a_path(session, tmp_path):
    """The workers hold to the registry, whatever a client sends them."""
    proof = tmp_path / "ran"
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(proof)!r}, 'w')\n")
    for name, path in (("evil", str(evil)), ("linalg", str(evil)), ("os", "os")):
        with pytest.raises(errors.LibraryRefusedError):
            session._workers.current._commands.run(lambda n, name=name, path=path: m.LoadLibrary(n, name, path))
    assert not proof.exists()
    assert session.run_task("TestLib", "greet", name="you")
