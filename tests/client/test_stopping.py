"""Long compiled calls are stopped by cancel(), timeouts and Ctrl-C: the group, its matrices and the session live on."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests_support import in_background, wait_until

from alchemist_ray import errors
from alchemist_ray.mpi_backend.node.process_state import is_gone, sockets_of

N = 2500
"""Order of a matrix whose eigenvectors take far longer than any of these tests."""
BOUND = 8.0
"""Seconds within which a call has ended; on an idle machine it takes a tenth of that."""


@pytest.fixture(scope="module")
def busy(session):
    """The session of two workers, with a large matrix, a small one, and the libraries."""
    session.load_library("faults")
    session.load_library("linalg")
    A = np.random.default_rng(3).standard_normal((N, N))
    return session, session.send_matrix(A), A


def children_of(session):
    """Return the processes that compute for the session's ranks, by rank."""
    return {row["pid"]: computing(row["pid"]) for row in session.list_assigned_workers()}


def computing(pid):
    """Return the forks of a rank that compute."""
    try:
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def wait_for_child(session):
    assert wait_until(lambda: any(children_of(session).values()), 30)
    return next(child for children in children_of(session).values() for child in children)


def assert_nothing_is_lost(session, handle, A):
    """The next call answers at once and rightly, the matrix is as it was, no process and no memory is left."""
    small = session.send_matrix(A[:20, :20])
    begun = time.monotonic()
    w, V = session.run_task("linalg", "eig", A=small)
    assert time.monotonic() - begun < BOUND
    V = np.asarray(V)
    np.testing.assert_allclose(A[:20, :20] @ V, V * w, atol=1e-10)
    np.testing.assert_array_equal(handle[:3, :], A[:3])
    assert session.run_task("faults", "total", A=handle) == pytest.approx(A.sum())
    assert not any(children_of(session).values())


@pytest.mark.parametrize("task", ["eig", "eigvals", "eigh", "svd"])
def test_a_timeout_stops_it(busy, task):
    session, handle, A = busy
    begun = time.monotonic()
    with pytest.raises(errors.TaskTimeoutError, match=rf"linalg.{task} did not end within its timeout of 1 s$"):
        session.load_library("linalg").options(timeout=1)[task](handle)
    assert time.monotonic() - begun < 1 + BOUND
    assert_nothing_is_lost(session, handle, A)


def test_cancel_stops_it(busy):
    session, handle, A = busy
    wait = in_background(lambda: session.run_task("linalg", "eig", A=handle))
    wait_for_child(session)
    begun = time.monotonic()
    session.cancel()
    failure = wait()
    assert time.monotonic() - begun < BOUND
    assert isinstance(failure, errors.TaskCancelledError)
    assert_nothing_is_lost(session, handle, A)


def test_ctrl_c_stops_it_and_nothing_has_to_be_waited_for(busy):
    session, handle, A = busy

    def interrupt():
        wait_for_child(session)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        session.run_task("linalg", "eig", A=handle)
    thread.join()
    assert not getattr(caught.value, "__notes__", [])
    assert_nothing_is_lost(session, handle, A)


def test_status_and_matrices_are_served_meanwhile(busy):
    session, handle, A = busy
    wait = in_background(lambda: session.run_task("linalg", "eig", A=handle))
    wait_for_child(session)
    begun = time.monotonic()
    (row,) = [row for row in session.server_status()["sessions"] if row["id"] == session.session_id]
    assert row["workers"][0]["task"] == "linalg.eig"
    np.testing.assert_array_equal(handle[5:7, :], A[5:7])
    assert time.monotonic() - begun < BOUND
    session.cancel()
    assert isinstance(wait(), errors.TaskCancelledError)


def test_a_child_that_the_system_kills_is_an_error_and_the_group_lives_on(busy):
    session, handle, A = busy
    wait = in_background(lambda: session.run_task("linalg", "eig", A=handle))
    child = wait_for_child(session)
    assert wait_until(lambda: int(Path(f"/proc/{child}/oom_score_adj").read_text()) >= 500, 5)
    os.kill(child, signal.SIGKILL)
    failure = wait()
    assert isinstance(failure, errors.TaskKilledError)
    assert failure.cause == "SIGKILL"
    assert "memory runs out" in str(failure)
    assert_nothing_is_lost(session, handle, A)


def test_a_child_has_no_connection_of_its_rank(busy):
    session, handle, _ = busy
    wait = in_background(lambda: session.run_task("linalg", "eig", A=handle))
    child = wait_for_child(session)
    assert wait_until(lambda: not list(sockets_of(child)), 5)
    assert not is_gone(child)  # of a process that is gone no socket is seen
    session.cancel()
    wait()


def test_a_killed_rank_takes_its_child_with_it(connect, busy):
    _, _, A = busy
    session = connect(2)
    handle = session.send_matrix(A)
    wait = in_background(lambda: session.run_task("linalg", "eig", A=handle))
    child = wait_for_child(session)
    rank = next(pid for pid, children in children_of(session).items() if children)
    os.kill(rank, signal.SIGKILL)
    assert isinstance(wait(), errors.GroupDiedError)
    assert wait_until(lambda: not Path(f"/proc/{child}").exists(), 5)


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("return", None, ""),
        ("raise", errors.RemoteTaskError, "ValueError: refused in the child"),
        ("raise odd", errors.RemoteTaskError, "Odd"),
        ("unpicklable", errors.RemoteTaskError, "lambda"),
        ("crash", errors.TaskKilledError, "SIGSEGV"),
        ("exit", errors.TaskKilledError, "exit status 3"),
    ],
)
def test_a_library_of_the_users_computes_in_children_too(busy, how, error, text):
    session, _, _ = busy
    B = session.send_matrix(np.arange(200_000.0).reshape(100_000, 2))
    run = lambda: session.run_task("faults", "compute_in_child", A=B, how=how)  # noqa: E731
    if error is None:
        doubled, seen = run()
        np.testing.assert_array_equal(np.asarray(doubled), 2 * np.asarray(B))
        assert seen == [0.0, 1.0]
        return
    with pytest.raises(error, match=text) as caught:
        run()
    if how == "raise":
        assert "Traceback in the child process" in "".join(caught.value.__notes__)
    assert session.run_task("faults", "echo", value=1) == 1
