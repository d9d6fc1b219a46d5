"""Tasks that are cancelled, take too long, print too much, return different results on different ranks, or crash."""

from __future__ import annotations

import _thread
import gc
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import LIBRARIES
from tests_support import in_background, wait_for_task, wait_until

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.client import commands as control


@pytest.fixture
def two(session):
    """The session of two workers that tests share which leave it as it was, with the library of faults."""
    gc.collect()  # the matrices of tests before
    session.load_library("faults")
    return session


@pytest.fixture
def own(connect):
    """A session of two workers for one test, with the library of faults."""
    session = connect(2)
    session.load_library("faults")
    return session


def run(session, task, /, **arguments):
    return session.run_task("faults", task, **arguments)


def with_timeout(session, seconds, task, /, **arguments):
    session.task_timeout = seconds
    try:
        return run(session, task, **arguments)
    finally:
        session.task_timeout = None


class Recorder:
    """A progress display that notes the texts of all reports in a list."""

    def __init__(self, shown):
        self._shown = shown

    def __call__(self, report):
        self._shown.append(report.text)

    def close(self):
        pass


def matrices_of(connect, session_id):
    """Return the ids of the matrices that a session's workers hold, as another session sees them."""
    (row,) = [row for row in connect().server_status()["sessions"] if row["id"] == session_id]
    return [matrix["id"] for matrix in row["workers"][0]["matrices"]]


# --- cancellation -----------------------------------------------------------------------------------------------------


def test_a_task_is_cancelled_from_another_thread_on_all_ranks_and_the_session_goes_on(two):
    A = two.send_matrix(np.arange(12.0).reshape(4, 3))
    wait = in_background(lambda: run(two, "count", steps=3000))
    wait_for_task(two, "faults.count")
    asked = time.monotonic()
    two.cancel()
    failure = wait()
    assert isinstance(failure, errors.TaskCancelledError)
    assert failure.task == "faults.count"
    assert time.monotonic() - asked < 2
    assert run(two, "total", A=A) == 66.0
    assert run(two, "count", steps=2) == 2


def test_a_task_that_reports_progress_all_the_time_is_cancelled_when_its_caller_says_so(two):
    asked = time.monotonic()
    two.is_cancelled = lambda: time.monotonic() - asked > 0.5
    with pytest.raises(errors.TaskCancelledError):
        run(two, "report_and_look", seconds=20.0)
    assert time.monotonic() - asked < 3
    two.is_cancelled = None


def test_progress_that_is_no_number_is_not_shown_and_harms_nobody(two):
    for total in (float("nan"), float("inf"), 0.0):
        assert run(two, "report_and_look", seconds=0.2, total=total) == "done"


def test_cancelling_when_nothing_runs_does_not_cancel_what_comes_next(two):
    two.cancel()
    assert run(two, "count", steps=2) == 2


def test_ctrl_c_stops_the_task_and_leaves_the_session_usable(two):
    threading.Timer(0.5, _thread.interrupt_main).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(two, "count", steps=3000)
    assert time.monotonic() - started < 3
    assert run(two, "echo", value=1) == 1


def test_ctrl_c_does_not_wait_long_for_a_task_that_does_not_stop_and_says_so(two, monkeypatch):
    monkeypatch.setattr(control, "INTERRUPT_SECONDS", 0.5)
    threading.Timer(0.3, _thread.interrupt_main).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        run(two, "nap", seconds=2.5)
    assert time.monotonic() - started < control.INTERRUPT_SECONDS + 1.5
    assert "faults.nap has not stopped yet" in caught.value.__notes__[0]
    assert run(two, "echo", value=1) == 1  # after the nap


def test_a_command_that_waits_for_a_cancelled_task_says_which_and_since_when(two, monkeypatch, caplog):
    monkeypatch.setattr(control, "INTERRUPT_SECONDS", 0.2)
    monkeypatch.setattr(control, "WARNING_SECONDS", 0.3)
    threading.Timer(0.2, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        run(two, "nap", seconds=3.0)
    shown = []
    monkeypatch.setattr(two, "make_progress", lambda task: Recorder(shown))
    with caplog.at_level(logging.WARNING, "alchemist.session"):
        assert run(two, "echo", value=1) == 1
        text = r"faults.echo waits: faults.nap still runs on rank 0, 1, though it was asked to stop \d s ago"
        assert re.search(text, caplog.records[0].message)
        assert re.search(text, shown[0])
        caplog.clear()
        assert run(two, "nap", seconds=0.8) == 0.8  # the ranks are free again: no word is said
        assert not caplog.records


def test_a_timeout_of_a_command_that_waits_for_a_cancelled_task_names_it(own, monkeypatch):
    monkeypatch.setattr(control, "INTERRUPT_SECONDS", 0.2)
    monkeypatch.setattr(control, "GRACE_SECONDS", 0.5)
    threading.Timer(0.2, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        run(own, "nap", seconds=30.0)
    with pytest.raises(errors.TaskTimeoutError, match=r"it had not begun, since faults\.nap still runs on rank 0, 1"):
        with_timeout(own, 0.3, "echo", value=1)


def test_a_cancelled_task_that_does_not_stop_is_named(two, monkeypatch, caplog):
    monkeypatch.setattr(control, "WARNING_SECONDS", 0.2)
    two.is_cancelled = lambda: True
    try:
        assert run(two, "nap", seconds=1.5) == 1.5
    finally:
        two.is_cancelled = None
    assert "faults.nap was asked to stop" in caplog.text


def test_matrices_of_an_interrupted_task_are_freed(two, connect):
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        run(two, "count_with_matrix", steps=2000)
    run(two, "echo", value=1)
    run(two, "echo", value=1)
    assert matrices_of(connect, two.session_id) == []


def test_a_script_that_gets_ctrl_c_ends(server):
    script = (
        "import alchemist_ray as alchemist, sys\n"
        "session = alchemist.AlchemistSession()\n"
        f"session.connect({server.hostname!r}, {server.port}, {server.token!r})\n"
        "session.request_workers(2)\n"
        "print('ready', flush=True)\n"
        "session.run_task('faults', 'count', steps=3000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"ready\n"
        time.sleep(0.7)
        client.send_signal(signal.SIGINT)
        _, stderr = client.communicate(timeout=10)
    assert client.returncode != 0
    assert b"KeyboardInterrupt" in stderr


# --- timeouts ---------------------------------------------------------------------------------------------------------


def test_a_task_that_looks_is_stopped_when_its_time_is_up_and_nothing_is_lost(two):
    A = two.send_matrix(np.ones((5, 5)))
    started = time.monotonic()
    with pytest.raises(
        errors.TaskTimeoutError, match=r"faults.count did not end within its timeout of 0.4 s"
    ) as caught:
        with_timeout(two, 0.4, "count", steps=3000)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - started < 3
    assert run(two, "total", A=A) == 25.0


@pytest.mark.parametrize(("task", "arguments"), [("hang", {"rank": 1}), ("seize", {})])
def test_a_task_that_never_returns_takes_its_group_but_not_the_session(own, connect, monkeypatch, task, arguments):
    monkeypatch.setattr(control, "GRACE_SECONDS", 1.0)
    bystander = connect(1)
    B = bystander.send_matrix(np.ones((3, 3)))
    with pytest.raises(errors.TaskTimeoutError) as caught:
        with_timeout(own, 0.3, task, **arguments)
    assert "The worker group was ended, since rank" in str(caught.value)
    assert "all matrices and simulations of the session are lost. request_workers(n)" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert own.num_workers == 0
    assert bystander.run_task("faults", "total", A=B) == 9.0
    own.request_workers(2)
    assert run(own, "echo", value="again") == "again"


def test_a_task_within_its_time_is_left_alone(two):
    assert with_timeout(two, 30, "count", steps=2) == 2


@pytest.mark.parametrize("seconds", [1e9, float("inf"), np.float32(60)])
def test_a_timeout_may_be_long(two, seconds):
    assert with_timeout(two, seconds, "count", steps=2) == 2


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_timeout_of_no_time_is_refused(two, seconds):
    with pytest.raises(errors.ArgumentValueError, match="greater than 0 seconds"):
        with_timeout(two, seconds, "echo", value=1)


@pytest.mark.parametrize("seconds", ["5", True, [1]])
def test_a_timeout_that_is_no_number_is_refused(two, seconds):
    with pytest.raises(errors.ArgumentError, match="must be a number of seconds"):
        with_timeout(two, seconds, "echo", value=1)


def test_a_library_whose_import_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(control, "GRACE_SECONDS", 0.5)
    path = str(LIBRARIES / "slow_import.py")
    with (
        alchemist.start_server(num_workers=1, memory_per_worker=2**24, libraries={"slow": path}) as server,
        alchemist.AlchemistSession(task_timeout=0.5) as session,
    ):
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(1)
        with pytest.raises(errors.TaskTimeoutError, match="loading library slow"):
            session.load_library("slow")
        session.task_timeout = None
        session.request_workers(1)
        assert session.load_library("TestLib").greet("you").startswith("Hello")


# --- beside a task ----------------------------------------------------------------------------------------------------


def test_logs_and_status_are_to_be_had_while_a_task_runs(two):
    run(two, "say", words="meanwhile")
    wait = in_background(lambda: run(two, "nap", seconds=2.0))
    wait_for_task(two, "faults.nap")
    asked = time.monotonic()
    assert any("meanwhile" in log for log in two.worker_logs().values())
    assert two.server_status()["sessions"]
    assert len(two.list_assigned_workers()) == 2
    assert time.monotonic() - asked < 1.5
    assert wait() is None


def test_a_session_is_stopped_though_its_task_never_returns(own, connect):
    watcher = connect()
    free = len(watcher.list_available_workers())
    wait = in_background(lambda: run(own, "hang", rank=0))
    wait_for_task(own, "faults.hang")
    asked = time.monotonic()
    own.stop()
    assert time.monotonic() - asked < 6
    assert isinstance(wait(), errors.AlchemistError)
    assert wait_until(lambda: len(watcher.list_available_workers()) == free + 2, 5)


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["scalar", "array", "type", "none", "shape", "number"])
def test_different_results_on_different_ranks_are_an_error(two, connect, how):
    with pytest.raises(errors.ResultMismatchError, match="rank 1 did not return the same as rank 0") as caught:
        run(two, "lie", how=how)
    assert caught.value.ranks == [1]
    assert run(two, "echo", value=1) == 1
    assert matrices_of(connect, two.session_id) == []


def test_a_result_of_rank_0_alone_and_equal_results_are_none(two):
    assert run(two, "only_on_root") == 2.5
    result = run(two, "same_everywhere")
    np.testing.assert_array_equal(result["x"], [1.0, np.nan])
    assert result["y"] == [1, "two", 3j]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("message", r"file .udcff is missing"),
        ("result", "surrogates not allowed"),
        ("text", "its text raises"),
    ],
)
def test_words_that_cannot_be_sent_are_an_error_like_any_other(two, how, text):
    A = two.send_matrix(np.ones((3, 3)))
    with pytest.raises(errors.RemoteTaskError, match=text):
        run(two, "odd_words", how=how)
    with pytest.raises(errors.ArgumentError, match="surrogates not allowed"):
        run(two, "echo", value="\udcff")
    assert run(two, "total", A=A) == 9.0


def test_arguments_arrive_as_they_are_annotated(two):
    got = run(two, "types_of", x=[1, 2], t=(1, 2), c=2, f=3, either=[1])
    assert got == ["ndarray", "tuple", "complex", "float", "list"]


# --- the end of a worker ----------------------------------------------------------------------------------------------


def test_a_segmentation_fault_is_told_with_the_stack_of_the_rank(own):
    with pytest.raises(errors.GroupDiedError) as caught:
        run(own, "crash", rank=1)
    assert "(rank 1, process" in str(caught.value)
    assert "while they ran faults.crash" in str(caught.value)
    assert "Segmentation fault" in caught.value.log
    assert "faults.py" in caught.value.log
    own.request_workers(2)
    assert run(own, "echo", value=1) == 1


def test_mpi_abort_and_exit_end_the_group_and_nothing_else(own, connect):
    bystander = connect(1)
    B = bystander.send_matrix(np.ones((3, 3)))
    for task, arguments in (("abort", {"rank": 0}), ("quit_process", {})):
        with pytest.raises(errors.GroupDiedError):
            run(own, task, **arguments)
        assert bystander.run_task("faults", "total", A=B) == 9.0
        own.request_workers(2)
        assert run(own, "echo", value=task) == task


# --- output -----------------------------------------------------------------------------------------------------------


def test_what_a_library_prints_and_logs_is_in_the_sessions_logs(own):
    run(own, "say", words="zorbamel")
    wanted = ["zorbamel printed by rank", "zorbamel to stderr", "zorbamel logged", "zorbamel by C"]
    assert wait_until(lambda: all(word in log for log in own.worker_logs().values() for word in wanted), 5)
    assert len(own.worker_logs()) == 2


def test_logs_are_of_this_session_alone_and_outlive_its_workers(own, connect):
    run(own, "say", words="quixotry")
    with pytest.raises(errors.GroupDiedError):
        run(own, "crash", rank=0)
    assert any("quixotry" in log for log in own.worker_logs(1000).values())
    other = connect(2)
    other.load_library("faults")
    assert not any("quixotry" in log for log in other.worker_logs(1000).values())
    assert connect().worker_logs() == {}


@pytest.mark.parametrize(("how", "megabytes"), [("c", 512), ("python", 64), ("c_with_lock", 64)])
def test_a_library_that_prints_a_gigabyte_fills_no_disk_and_blocks_nobody(own, how, megabytes):
    logs = Path(own.server_status()["log_dir"], f"session-{own.session_id:03d}")
    run(own, "shout", megabytes=megabytes, how=how)  # on each of two ranks
    assert wait_until(lambda: all("the last word" in log for log in own.worker_logs(3).values()), 10)
    sizes = [path.stat().st_size for path in logs.iterdir()]
    assert sum(sizes) < 2 * 40 * 2**20
    assert run(own, "echo", value=1) == 1


# --- what a task is given ---------------------------------------------------------------------------------------------


def test_scratch_directories_are_of_the_rank_alone_and_go_with_the_workers(own):
    places = [Path(place) for place in run(own, "leave_file")]
    assert [(place / "left").read_text() for place in places] == ["0", "1"]
    assert all(place.stat().st_mode & 0o077 == 0 for place in [places[0].parent, *places])
    own.yield_workers()
    assert wait_until(lambda: not places[0].parent.exists(), 5)
    own.request_workers(2)
    again = Path(run(own, "leave_file")[0])
    with pytest.raises(errors.GroupDiedError):
        run(own, "crash", rank=0)
    assert wait_until(lambda: not again.parent.exists(), 5)


@pytest.mark.parametrize("layout", ["MC_MR", "VC_STAR", "STAR_VR", "CIRC_CIRC"])
def test_a_matrix_arrives_in_the_layout_that_the_task_wants(two, layout):
    A = two.send_matrix(np.arange(35.0).reshape(7, 5), layout=layout)
    assert run(two, "layout_of", A=A) == ["VC_STAR", 595.0]


@pytest.mark.parametrize("value", ["fast", "exact", 3, None])
def test_a_choice_is_admitted(two, value):
    assert run(two, "choose", method=value) == value


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("fats", errors.ArgumentValueError, "did you mean 'fast'"),
        ("slow", errors.ArgumentValueError, "must be one of 'fast', 'exact', 3"),
        (4, errors.ArgumentValueError, "must be one of"),
        (2.5, errors.ArgumentError, "not float"),
        (True, errors.ArgumentError, "not bool"),
    ],
)
def test_another_value_is_refused_before_anything_is_sent(two, value, error, text):
    with pytest.raises(error, match=text):
        run(two, "choose", method=value)


def test_the_process_that_writes_the_logs_ends_with_its_workers(own):
    pid = own.list_assigned_workers()[0]["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    starter = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not Path("/proc", starter).exists(), 5)


def test_ranks_run_at_the_thread_level_at_which_mpich_yields_the_core_while_it_waits(two):
    """Below it an Allreduce of two ranks on one core takes 8 ms instead of 24 us."""
    assert run(two, "is_thread_multiple")
