"""The session, end to end: a real server, real MPI workers, real sockets."""

from __future__ import annotations

import gc
import inspect
import os
import pickle
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tests_support import in_background, wait_for_task, wait_until

import alchemist_ray as alchemist
from alchemist_ray.errors import ArgumentValueError, DeadlineError, SessionError
from alchemist_ray.layouts.layout import PAIRS, Grid, Layout
from alchemist_ray.layouts.spec import DTYPES


def matrices_on_server(session):
    """Return how many matrices rank 0 of the session holds."""
    status = session.server_status()
    (row,) = [s for s in status["sessions"] if s["id"] == session.session_id]
    return len(row["workers"][0]["matrices"])


def test_workers_are_listed_by_who_holds_them():
    with alchemist.start_server(num_workers=4) as server:
        first, second = (alchemist.AlchemistSession() for _ in range(2))
        for session, count in ((first, 2), (second, 1)):
            session.connect(server.hostname, server.port, server.token)
            session.request_workers(count)
        assert len(first.list_all_workers()) == 4
        assert [row["id"] for row in first.list_assigned_workers()] == [1, 2]
        assert [row["id"] for row in second.list_assigned_workers()] == [3]
        assert [row["id"] for row in second.list_available_workers()] == [4]
        assert {row["state"] for row in first.list_available_workers()} == {"IDLE"}
        first.yield_workers()
        assert len(second.list_available_workers()) == 3
        second.stop()
        assert len(first.list_available_workers()) == 4


def test_yielded_workers_can_be_requested_again_with_another_number(connect):
    session = connect(1)
    session.yield_workers()
    assert len(session.request_workers(3)) == 3
    assert session.load_library("TestLib").greet("you")


def test_requesting_workers_twice_is_refused_and_the_first_ones_stay(connect):
    session = connect(1)
    with pytest.raises(ArgumentValueError, match="already has 1 workers"):
        session.request_workers(1)
    assert session.num_workers == 1
    assert session.load_library("TestLib").greet("you")


@pytest.mark.parametrize("transport", ["auto", "tcp"])
@pytest.mark.parametrize("pair", PAIRS)
def test_round_trip_in_every_layout(connect_once, transport, pair, rng):
    session = connect_once(transport)
    A = rng.standard_normal((37, 23))
    handle = session.send_matrix(A, layout=pair)
    assert handle.layout == pair
    np.testing.assert_array_equal(session.fetch_matrix(handle), A)


@pytest.fixture(scope="module")
def connect_once(server):
    """Return one session a transport, with two workers."""
    sessions = {}

    def get(transport):
        if transport not in sessions:
            sessions[transport] = alchemist.AlchemistSession(transport=transport)
            sessions[transport].connect(server.hostname, server.port, server.token)
            sessions[transport].request_workers(2)
        return sessions[transport]

    yield get
    for session in sessions.values():
        session.stop()


@pytest.mark.parametrize("transport", ["auto", "tcp"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip_of_every_type(connect_once, transport, dtype, rng):
    session = connect_once(transport)
    A = (100 * rng.standard_normal((50, 11))).astype(dtype)
    fetched = session.fetch_matrix(session.send_matrix(A))
    assert fetched.dtype == A.dtype
    np.testing.assert_array_equal(fetched, A)


STRIDES = {
    "C": lambda A: A,
    "Fortran": np.asfortranarray,
    "view": lambda A: A[3:, ::2],
    "reversed": lambda A: A[::-1, ::-1],
    "broadcast": lambda A: np.broadcast_to(A[0], A.shape),
    "big endian": lambda A: A.astype(">f8"),
}


@pytest.mark.parametrize("transport", ["auto", "tcp"])
@pytest.mark.parametrize("strides", STRIDES)
def test_round_trip_of_any_strides(connect_once, transport, strides, rng):
    session = connect_once(transport)
    A = STRIDES[strides](rng.standard_normal((60, 41)))
    A.flags.writeable = False
    np.testing.assert_array_equal(session.fetch_matrix(session.send_matrix(A, layout="MC_MR")), A)


@pytest.mark.parametrize("transport", ["auto", "tcp"])
@pytest.mark.parametrize("layout", ["VC_STAR", "MC_MR", "STAR_VC"])
def test_round_trip_of_a_matrix_larger_than_any_buffer(connect_once, transport, layout, rng):
    session = connect_once(transport)
    A = rng.standard_normal((4001, 777))
    out = np.zeros_like(A)
    handle = session.send_matrix(A, layout=layout)
    assert session.fetch_matrix(handle, out=out) is out
    np.testing.assert_array_equal(out, A)
    handle.free()


def test_round_trip_with_chosen_grid_and_block(connect, rng):
    session = connect(4)
    A = rng.standard_normal((29, 31))
    for grid in (Grid(1, 4), Grid(2, 2), Grid(4, 1)):
        for block in ((1, 1), (3, 5), (64, 64)):
            handle = session.send_matrix(A, layout=Layout("MC_MR", grid, block))
            assert (handle.grid, handle.block_size) == (grid, block)
            np.testing.assert_array_equal(np.asarray(handle), A)


def test_more_workers_than_elements(connect):
    session = connect(4)
    A = np.array([[7.0]])
    for pair in PAIRS:
        np.testing.assert_array_equal(np.asarray(session.send_matrix(A, layout=pair)), A)


def test_handle_behaves_as_a_matrix(session, rng):
    A = rng.standard_normal((8, 5)).astype(np.float32)
    handle = session.send_matrix(A, layout="VC_STAR")
    assert (handle.shape, handle.ndim, handle.size, len(handle)) == ((8, 5), 2, 40, 8)
    assert (handle.dtype, handle.nbytes, handle.layout) == (np.float32, 160, "VC_STAR")
    assert f"MatrixHandle {handle.matrix_id}: 8 x 5 float32, VC_STAR on 2x1" in repr(handle)
    assert np.asarray(handle, dtype=np.float64).dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(handle), np.linalg.norm(A))
    with pytest.raises(ValueError, match="copying"):
        np.array(handle, copy=False)


def test_handle_frees_by_name_and_when_garbage_collected(connect, rng):
    session = connect(2)
    A = rng.standard_normal((10, 10))
    kept, freed, dropped = (session.send_matrix(A) for _ in range(3))
    assert matrices_on_server(session) == 3
    freed.free()
    freed.free()
    assert matrices_on_server(session) == 2
    del dropped
    gc.collect()
    session.send_matrix(A).free()
    assert matrices_on_server(session) == 1
    np.testing.assert_array_equal(np.asarray(kept), A)


def test_result_is_freed_with_its_last_reference(connect, rng):
    session = connect(2)
    A = session.send_matrix(rng.standard_normal((10, 10)))
    gc.disable()  # references alone must do: a cycle would keep the memory until the next collection
    try:
        for _ in range(5):
            session.run_task("faults", "scale", A=A, factor=2)
        session.run_task("faults", "echo", value=1)
        assert matrices_on_server(session) == 1
    finally:
        gc.enable()


def test_memory_is_where_it_was_after_many_sends_and_frees(session, rng):
    A = rng.standard_normal((1000, 1000))
    for _ in range(100):  # 800 MB in all, where the workers have 256 MB each
        session.send_matrix(A)
    (row,) = [s for s in session.server_status()["sessions"] if s["id"] == session.session_id]
    assert all(worker["memory_in_use"] < 3 * A.nbytes for worker in row["workers"])


def test_handle_pickles_to_another_process(session, rng, tmp_path):
    A = rng.standard_normal((100, 10))
    handle = session.send_matrix(A)
    (tmp_path / "handle.pickle").write_bytes(pickle.dumps(handle))
    script = (
        "import pickle, sys, numpy as np\n"
        "handle = pickle.load(open(sys.argv[1], 'rb'))\n"
        "np.save(sys.argv[2], np.asarray(handle))\n"
        "del handle\n"
    )
    arguments = [str(tmp_path / "handle.pickle"), str(tmp_path / "A.npy")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=30)
    np.testing.assert_array_equal(np.load(tmp_path / "A.npy"), A)
    np.testing.assert_array_equal(np.asarray(handle), A)  # the copy that is gone has not taken it along


def test_handle_is_freed_from_another_process(session, rng):
    handle = session.send_matrix(rng.standard_normal((10, 10)))
    script = "import pickle, sys\npickle.load(sys.stdin.buffer).free()\n"
    subprocess.run([sys.executable, "-c", script], input=pickle.dumps(handle), check=True, timeout=30)
    with pytest.raises(alchemist.errors.FreedMatrixError):
        np.asarray(handle)


def test_library_functions_are_real_functions(session):
    faults = session.load_library("faults")
    assert faults.version == "3.1"
    assert "misbehaves" in faults.__doc__
    assert "scale" in dir(faults)
    assert faults.scale.__doc__ == "Return factor * A."
    signature = inspect.signature(faults.typed)
    assert list(signature.parameters) == ["A", "k", "tol", "name"]
    assert signature.parameters["tol"].default == 1e-3
    assert signature.parameters["tol"].kind is inspect.Parameter.KEYWORD_ONLY


def test_arguments_arrive_as_they_were_sent(session, rng):
    echo = session.load_library("faults").echo
    for value in (None, True, 7, -(2**40), 0.1, 1 + 2j, "Zürich", b"\0\xff", [1, [2.5, "x"]], {"a": {"b": [1]}}):
        assert echo(value) == value
    array = rng.standard_normal((3, 4))
    np.testing.assert_array_equal(echo(array), array)
    assert echo(np.float32(0.5)) == 0.5


def test_task_takes_and_returns_matrices(session, rng):
    A = rng.standard_normal((40, 30))
    for pair in PAIRS:
        handle = session.send_matrix(A, layout=pair)
        np.testing.assert_array_equal(np.asarray(session.run_task("faults", "scale", A=handle, factor=-2)), -2 * A)
        assert session.run_task("faults", "total", A=handle) == pytest.approx(A.sum())


def test_libraries_are_listed(session):
    rows = {row["name"]: row for row in session.list_available_libraries()}
    assert {"linalg", "TestLib", "faults"} <= set(rows)
    assert rows["faults"]["provider"] == "--library"
    assert rows["faults"]["source"].endswith("faults.py")


def test_print_times_prints_the_table_of_figure_3(session, rng, capsys):
    handle = session.send_matrix(rng.standard_normal((100, 100)), layout="VC_STAR", print_times=True)
    session.fetch_matrix(handle, print_times=True)
    printed = capsys.readouterr().out
    assert printed.count("Worker | Serialization time |  Send time  | Receive time | Deserialization time") == 2
    assert len([line for line in printed.splitlines() if line.count("|") == 4 and "e-" in line]) == 4


def test_verbose_session_says_what_it_does(server, capsys):
    with alchemist.AlchemistSession(verbose=True) as session:
        session.connect_to_alchemist(server.hostname, server.port, server.token)
        session.request_workers(1)
        session.load_library("TestLib")
    printed = capsys.readouterr().out
    assert "Starting Alchemist session ... ready" in printed
    assert "Connected to Alchemist!" in printed
    assert re.search(r"Total allocated 1 workers:\nWorker-\d+ on", printed)
    assert "Library 'TestLib' successfully loaded." in printed


def test_progress_reaches_the_caller(session, monkeypatch):
    reports = []

    class Display:
        def __init__(self, task):
            reports.append(task)

        def __call__(self, report):
            reports.append(report.done / report.total)

        def close(self):
            reports.append("closed")

    monkeypatch.setattr(session, "make_progress", Display)
    session.run_task("faults", "nap", seconds=1.5)
    assert reports[0] == "faults.nap"
    assert reports[-2:] == [1.0, "closed"]
    assert len(reports) > 5
    assert reports[1:-1] == sorted(reports[1:-1])


def test_two_sessions_compute_at_the_same_time(connect, rng):
    first, second = connect(2), connect(2)
    first.load_library("faults"), second.load_library("faults")
    seconds = {}

    def nap(session, name):
        started = time.monotonic()
        session.run_task("faults", "nap", seconds=1.0)
        seconds[name] = time.monotonic() - started

    started = time.monotonic()
    threads = [threading.Thread(target=nap, args=pair) for pair in ((first, "first"), (second, "second"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(seconds) == {"first", "second"}
    assert time.monotonic() - started < sum(seconds.values())  # had they taken turns, it would be at least the sum


def test_data_moves_while_a_task_runs(session, rng):
    A = rng.standard_normal((100, 100))
    handle = session.send_matrix(A)
    session.load_library("faults")
    nap = threading.Thread(target=session.run_task, args=("faults", "nap"), kwargs={"seconds": 2.0})
    nap.start()
    wait_for_task(session, "faults.nap")
    np.testing.assert_array_equal(np.asarray(handle), A)  # straight from the workers, past the running task
    assert nap.is_alive()
    nap.join(30)


def test_a_late_answer_is_dropped(session, monkeypatch):
    session.load_library("faults")

    class Impatient(BaseException):
        pass

    class GiveUp:
        def __init__(self, task):
            pass

        def __call__(self, report):
            raise Impatient

        def close(self):
            pass

    display, session.make_progress = session.make_progress, GiveUp
    with pytest.raises(Impatient):
        session.run_task("faults", "nap", seconds=0.5)
    session.make_progress = display
    assert session.run_task("faults", "echo", value="next") == "next"


def test_default_server_needs_no_address():
    script = (
        "import numpy as np, alchemist_ray as alchemist\n"
        "with alchemist.AlchemistSession() as als:\n"
        "    als.request_workers(2)\n"
        "    print(als.load_library('TestLib').greet('you'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "you" in done.stdout


def test_session_stops_twice_and_connects_again(server):
    session = alchemist.AlchemistSession()
    session.connect(server.hostname, server.port, server.token)
    session.request_workers(1)
    session.stop()
    session.stop()
    with pytest.raises(alchemist.errors.NotConnectedError):
        session.list_all_workers()
    session.connect(server.hostname, server.port, server.token)
    assert len(session.list_all_workers()) == 12
    session.stop()


def test_deadline_names_what_did_not_come():
    error = DeadlineError("the answer", 3.0, "Try again.")
    assert str(error) == "the answer did not come within 3 s. Try again."


def test_descriptor_count_is_stable(session):
    A = np.ones((10, 10))
    session.send_matrix(A).free()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        session.send_matrix(A).free()
    assert len(os.listdir("/proc/self/fd")) == before


def test_stop_ends_a_request_that_waits_in_line(connect):
    holder, session = connect(1), connect()
    wait = in_background(lambda: session.request_workers(12, wait=60))
    assert wait_until(lambda: holder.server_status()["waiting"] == 1)
    begun = time.monotonic()
    session.stop()
    assert time.monotonic() - begun < 5
    assert isinstance(wait(), SessionError)
    assert wait_until(lambda: holder.server_status()["waiting"] == 0)
