"""What dies takes nobody along: workers, servers, clients, and libraries that misbehave."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import LIBRARIES
from tests_support import wait_for_task, wait_until

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.client import commands as control
from alchemist_ray.mpi_backend.node.process_state import is_gone


def pid_of(session, rank):
    return session.list_assigned_workers()[rank]["pid"]


def test_killed_worker_leaves_the_other_session_alone(connect, rng):
    victim, bystander = connect(2), connect(2)
    A, B = rng.standard_normal((300, 300)), rng.standard_normal((300, 300))
    hA, hB = bystander.send_matrix(A), bystander.send_matrix(B)
    lost = victim.send_matrix(A)
    victim.load_library("faults"), bystander.load_library("linalg")
    failures, products = [], []

    def nap():
        try:
            victim.run_task("faults", "nap", seconds=30.0)
        except errors.GroupDiedError as death:
            failures.append(death)

    def multiply():
        for _ in range(40):
            products.append(bystander.run_task("linalg", "gemm", A=hA, B=hB))

    pids = [pid_of(victim, rank) for rank in (0, 1)]
    threads = [threading.Thread(target=nap), threading.Thread(target=multiply)]
    for thread in threads:
        thread.start()
    wait_for_task(victim, "faults.nap")
    os.kill(pids[1], signal.SIGKILL)
    for thread in threads:
        thread.join(30)
    for product in products:
        np.testing.assert_allclose(np.asarray(product), A @ B)
    assert len(products) == 40
    (death,) = failures
    assert f"(rank 1, process {pids[1]} on" in str(death)
    assert "request_workers" in str(death)
    assert wait_until(lambda: all(map(is_gone, pids)))
    with pytest.raises(errors.AlchemistError):
        np.asarray(lost)
    with pytest.raises(errors.NoWorkersError):
        victim.send_matrix(A)
    victim.request_workers(2)
    np.testing.assert_array_equal(np.asarray(victim.send_matrix(A)), A)


def test_worker_killed_while_idle_is_noticed_at_the_next_command(connect):
    session = connect(2)
    session.load_library("faults")
    os.kill(pid_of(session, 0), signal.SIGKILL)
    with pytest.raises(errors.GroupDiedError, match="rank 0"):
        session.run_task("faults", "echo", value=1)
    session.request_workers(2)
    assert session.run_task("faults", "echo", value=1) == 1


def test_worker_killed_before_a_transfer(connect, rng):
    session = connect(2)
    handle = session.send_matrix(rng.standard_normal((100, 100)))
    os.kill(pid_of(session, 1), signal.SIGKILL)
    time.sleep(0.5)
    with pytest.raises(errors.GroupDiedError, match="rank 1"):
        session.fetch_matrix(handle)
    with pytest.raises(errors.NoWorkersError):
        session.fetch_matrix(handle)
    session.request_workers(2)
    np.testing.assert_array_equal(np.asarray(session.send_matrix(np.eye(3))), np.eye(3))


def test_library_that_crashes(connect):
    session, other = connect(2), connect(1)
    session.load_library("faults")
    with pytest.raises(errors.GroupDiedError):
        session.run_task("faults", "crash", rank=1)
    assert other.run_task("faults", "echo", value="unharmed") == "unharmed"
    session.request_workers(2)


def test_exception_on_one_rank_comes_with_rank_host_and_traceback(connect):
    session = connect(2)
    with pytest.raises(errors.RemoteTaskError, match=r"ValueError: by hand \[rank 1 on") as info:
        session.run_task("faults", "raise_on", rank=1, message="by hand")
    assert info.value.rank == 1
    assert any("raise ValueError(message)" in note for note in info.value.__notes__)
    assert session.run_task("faults", "echo", value="alive") == "alive"


def test_exit_in_a_library_is_an_error(connect):
    session = connect(2)
    with pytest.raises(errors.RemoteTaskError, match="SystemExit: 3"):
        session.run_task("faults", "leave")
    assert session.run_task("faults", "echo", value="alive") == "alive"


def test_rank_that_leaves_the_others_in_mpi(connect, monkeypatch):
    monkeypatch.setattr(control, "GRACE_SECONDS", 0.5)
    session = connect(2)
    with pytest.raises(errors.RemoteTaskError, match="left the others waiting") as info:
        session.run_task("faults", "raise_on_and_wait", rank=1)
    assert "worker group was ended, since rank 0 did not come back" in str(info.value)
    session.request_workers(2)
    assert session.run_task("faults", "echo", value="alive") == "alive"


def test_client_that_dies_gives_its_workers_back(server, connect):
    watcher = connect()
    free = len(watcher.list_available_workers())
    script = (
        "import os, sys, alchemist_ray as alchemist\n"
        "als = alchemist.AlchemistSession()\n"
        "als.connect(sys.argv[1], int(sys.argv[2]), os.environ['T'])\n"
        "als.request_workers(2)\n"
        "print('ready', flush=True)\n"
        "als.run_task('TestLib', 'greet', name='you')\n"
        "input()\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script, server.hostname, str(server.port)],
        env={**os.environ, "T": server.token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdout.readline() == b"ready\n"
    assert len(watcher.list_available_workers()) == free - 2
    client.kill()
    client.wait()
    assert wait_until(lambda: len(watcher.list_available_workers()) == free)


def test_server_that_dies_takes_its_workers_and_tells_its_clients():
    server = alchemist.start_server(num_workers=2)
    session = alchemist.AlchemistSession()
    session.connect(server.hostname, server.port, server.token)
    session.request_workers(2)
    pids = [pid_of(session, rank) for rank in (0, 1)]
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until(lambda: all(map(is_gone, pids)))
    with pytest.raises((errors.GroupDiedError, errors.NotConnectedError)):
        session.run_task("TestLib", "greet", name="you")
    with pytest.raises(errors.NotConnectedError):
        session.list_all_workers()
    session.stop()
    server.stop()


def test_owner_that_dies_takes_its_server(tmp_path):
    script = (
        "import alchemist_ray as alchemist\n"
        "server = alchemist.start_server(num_workers=2)\n"
        "als = alchemist.AlchemistSession()\n"
        "als.connect(server.hostname, server.port, server.token)\n"
        "als.request_workers(2)\n"
        "print(server.pid, *(row['pid'] for row in als.list_all_workers()), flush=True)\n"
        "input()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 3
    assert not any(map(is_gone, pids))
    owner.kill()
    owner.wait()
    assert wait_until(lambda: all(map(is_gone, pids)))


def test_idle_connections_do_not_take_a_worker_down(connect):
    """Who has proven nothing gets a place in a short queue, and no more."""
    session = connect(2, transport="tcp")
    endpoint = session.address.endpoints[0]
    idle = [socket.create_connection((endpoint.address, endpoint.port)) for _ in range(150)]
    threads = len(os.listdir(f"/proc/{pid_of(session, 0)}/task"))
    for sock in idle:
        sock.close()
    assert threads < 100
    np.testing.assert_array_equal(np.asarray(session.send_matrix(np.eye(9))), np.eye(9))


def test_ranks_that_hold_the_interpreter_lock_go_with_the_server():
    server = alchemist.start_server(num_workers=2, libraries={"faults": str(LIBRARIES / "faults.py")})
    session = alchemist.AlchemistSession()
    session.connect(server.hostname, server.port, server.token)
    session.request_workers(2)
    session.load_library("faults")
    pids = [pid_of(session, rank) for rank in (0, 1)]

    def seize():
        with pytest.raises(errors.AlchemistError):
            session.run_task("faults", "seize")

    stuck = threading.Thread(target=seize)
    stuck.start()
    time.sleep(0.5)  # a rank in this task answers nobody
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until(lambda: all(map(is_gone, pids)))
    stuck.join(20)
    session.stop()
    server.stop()


def test_server_ends_with_its_owner_though_a_forked_child_lives(tmp_path):
    script = (
        "import os, time, alchemist_ray as alchemist\n"
        "server = alchemist.start_server(num_workers=1)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    time.sleep(20)\n"
        "    os._exit(0)\n"
        "print(server.pid, child, flush=True)\n"
        "input()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    server, child = (int(word) for word in owner.stdout.readline().split())
    owner.kill()
    owner.wait()
    try:
        assert wait_until(lambda: is_gone(server))
    finally:
        os.kill(child, signal.SIGKILL)
