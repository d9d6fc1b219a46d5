"""A forked child shares no connection, lock, counter or pool with its parent: it opens its own or refuses."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import traceback

import numpy as np
import pytest
from tests_support import wait_until

from alchemist_ray import AlchemistSession, errors


def in_child(function, seconds=60):
    """Run `function` in a forked child; return what it returns, or raise what it raises."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(receive)
            try:
                result = (True, function())
            except BaseException as failure:  # noqa: BLE001 - told to the parent
                result = (False, failure if isinstance(failure, Exception) else RuntimeError(traceback.format_exc()))
            with os.fdopen(send, "wb") as pipe:
                pickle.dump(result, pipe)
        finally:
            os._exit(0)
    os.close(send)
    alarm = threading.Timer(seconds, os.kill, (child, 9))
    alarm.start()
    with os.fdopen(receive, "rb") as pipe:
        octets = pipe.read()
    alarm.cancel()
    os.waitpid(child, 0)
    assert octets, "the child did not end"
    succeeded, result = pickle.loads(octets)
    if not succeeded:
        raise result
    return result


@pytest.fixture
def matrices(session):
    return session.send_matrix(np.full((400, 300), 1.0)), session.send_matrix(np.full((400, 300), 100.0))


def test_handles_read_their_own_matrix_in_the_child_while_the_parent_reads_another(matrices):
    ones, hundreds = matrices

    def read():
        return {float(hundreds[0, 0]) for _ in range(50)} | set(np.unique(np.asarray(hundreds)))

    stop = threading.Event()
    seen = set()

    def parent_reads():
        while not stop.is_set():
            seen.update(np.unique(np.asarray(ones)))

    thread = threading.Thread(target=parent_reads)
    thread.start()
    try:
        assert in_child(read) == {100.0}
    finally:
        stop.set()
        thread.join()
    assert seen == {1.0}


@pytest.mark.parametrize(
    "use",
    [
        lambda session, handle: handle.norm(),
        lambda session, handle: handle + handle,
        lambda session, handle: session.send_matrix(np.eye(3)),
        lambda session, handle: session.fetch_matrix(handle),
        lambda session, handle: session.matrix_writer((3, 3)),
        lambda session, handle: session.load_library("linalg"),
        lambda session, handle: session.run_task("linalg", "norm", A=handle),
        lambda session, handle: session.list_all_workers(),
        lambda session, handle: session.request_workers(1),
        lambda session, handle: session.yield_workers(),
        lambda session, handle: session.has_workers(),
        lambda session, handle: session.check_workers(),
        lambda session, handle: session.worker_logs(),
        lambda session, handle: session.cancel(),
        lambda session, handle: session.step_simulation("heat", 1, np.zeros(1)),
        lambda session, handle: session.session_id,
        lambda session, handle: session.address,
        lambda session, handle: session.connect(),
    ],
)
def test_the_session_of_the_parent_says_at_once_that_it_cannot_be_used(session, matrices, use):
    parent = os.getpid()
    with pytest.raises(errors.ForkedSessionError, match=f"process {parent}") as caught:
        in_child(lambda: use(session, matrices[0]))
    assert caught.value.parent == parent
    assert matrices[0].norm() == pytest.approx(np.sqrt(120_000))  # the parent goes on


def test_the_end_of_a_child_leaves_the_parents_session_and_matrices(connect):
    session = connect(2)
    handle = session.send_matrix(np.eye(20))

    def leave_everything():
        nonlocal handle
        with session:
            pass
        handle = None
        gc.collect()
        return True

    assert in_child(leave_everything)
    assert handle.norm() == pytest.approx(np.sqrt(20))
    assert session.has_workers()


def test_a_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child(session, matrices):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with session._workers.lock:
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(30)
    try:
        with pytest.raises(errors.ForkedSessionError):
            in_child(lambda: session.list_all_workers(), seconds=20)
        assert in_child(lambda: float(matrices[1][3, 3]), seconds=20) == 100.0
    finally:
        leave.set()
        thread.join()


def test_a_writer_writes_from_the_child_over_a_connection_of_its_own(session):
    writer = session.matrix_writer((40, 30))
    writer.write(np.full((20, 30), 1.0))
    in_child(lambda: writer.write(np.full((20, 30), 2.0), row=20))
    handle = writer.close()
    assert np.array_equal(np.asarray(handle), np.repeat([1.0, 2.0], 20)[:, None] * np.ones(30))


def test_a_child_opens_a_session_of_its_own(server, session, matrices):
    def compute():
        with AlchemistSession() as own:
            own.connect(server.hostname, server.port, server.token)
            own.request_workers(1)
            return own.session_id, own.send_matrix(np.full((5, 5), 2.0)).sum()

    session_id, total = in_child(compute)
    assert session_id != session.session_id
    assert total == 50.0
    assert matrices[0].sum() == 120_000.0


def test_a_session_that_was_never_connected_is_free_to_connect_in_the_child(server):
    fresh = AlchemistSession()

    def connect():
        fresh.connect(server.hostname, server.port, server.token)
        fresh.stop()
        return True

    assert in_child(connect)
    assert not fresh.connected


def test_the_server_notices_that_the_parent_is_dead_though_a_child_lives(server, connect):
    """A child that kept the parent's sockets open would keep its workers."""
    watcher = connect()
    receive, send = os.pipe()
    parent = os.fork()
    if parent == 0:
        owner = AlchemistSession()
        owner.connect(server.hostname, server.port, server.token)
        owner.request_workers(1)
        child = os.fork()
        if child == 0:
            os.close(receive)
            threading.Event().wait(60)  # longer than the test
            os._exit(0)
        os.write(send, f"{child} {owner.session_id}".encode())
        os.kill(os.getpid(), 9)
    os.waitpid(parent, 0)
    child, session_id = map(int, os.read(receive, 100).split())
    os.close(receive)
    os.close(send)
    try:
        deadline = threading.Event()
        for _ in range(200):
            if all(row["session"] != session_id for row in watcher.list_all_workers()):
                break
            deadline.wait(0.05)
        assert all(row["session"] != session_id for row in watcher.list_all_workers())
    finally:
        os.kill(child, 9)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_handle_keeps_its_matrix_alive_and_computes(session, duplicate):
    original = session.send_matrix(np.eye(4))
    twin = duplicate({"A": original})["A"]
    del original
    gc.collect()
    session.check_workers()
    assert twin.norm() == 2.0
    twin.free()
    assert twin.freed


SERVER = """
import os, sys, threading
import alchemist_ray as alchemist
server = alchemist.start_server(num_workers=1)
child = os.fork()
if child == 0:
    assert server.running
    server.stop()  # the parent's: left alone
    os.close(1)  # so that the reader of the parent's output sees its end
    threading.Event().wait(60)  # longer than the test
    os._exit(0)
print(server.pid, child, flush=True)
os.kill(os.getpid(), 9)
"""


def test_an_own_server_ends_with_its_killed_owner_though_a_child_lives():
    owner = subprocess.run([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, timeout=100, check=False)
    server, child = map(int, owner.stdout.split())
    try:
        assert wait_until(lambda: not os.path.exists(f"/proc/{server}"), 20)
        assert os.path.exists(f"/proc/{child}")
    finally:
        os.kill(child, 9)
