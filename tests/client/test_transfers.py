"""What transfers leave behind, show, and survive: memory, progress bars, interrupts."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import numpy as np
import pytest
from tests_support import memory_in_use, wait_until

from alchemist_ray import errors
from alchemist_ray.client import progress


@pytest.fixture(scope="module")
def session(session_by_transport):
    return session_by_transport


def resident(pid):
    """Return the resident memory of a process in bytes."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_200_sends_and_frees_leave_memory_where_it_was_after_the_tenth(session, rng):
    A = rng.standard_normal((700, 500))
    pids = [os.getpid(), *(row["pid"] for row in session.list_assigned_workers())]
    levels = {}
    pairs = ["MC_MR", "VC_STAR", "STAR_VR", "STAR_STAR", "CIRC_CIRC"]  # the first ten sends are all there are
    for number in range(1, 201):
        handle = session.send_matrix(A, pairs[number % 5], block_size=number % 2 or None)
        if number % 5 == 0:  # twice among the first ten: fetching and comparing take memory of this process too
            np.testing.assert_array_equal(np.asarray(handle), A)
        handle.free()
        if number in (10, 200):
            levels[number] = memory_in_use(session), [resident(pid) for pid in pids]
    assert levels[10][0] == levels[200][0]
    assert all(late - early < 2**23 for early, late in zip(levels[10][1], levels[200][1], strict=True))


def test_long_transfers_show_bytes_and_rate(session, rng, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SHOW_AFTER_SECONDS", 0)
    A = rng.standard_normal((2000, 500))
    monkeypatch.setattr(session, "show_progress", True)
    handle = session.send_matrix(iter([A[:1000], A[1000:]]), shape=A.shape)
    session.fetch_matrix(handle)
    shown = capsys.readouterr().err
    assert "Sending" in shown
    assert "Fetching" in shown
    assert "8.00M" in shown
    assert "B/s" in shown
    monkeypatch.setattr(session, "show_progress", None)
    session.fetch_matrix(handle)
    assert capsys.readouterr().err == ""


def interrupt_main_thread(stop):
    """Interrupt the main thread again and again, at moments of its own, until told to stop."""
    rng = np.random.default_rng(1)
    while not stop.wait(rng.uniform(0.002, 0.02)):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_interrupts_harm_neither_the_session_nor_what_other_threads_write(session, rng):
    """The main thread is interrupted in the middle of anything, while other threads write on the same connections."""
    A = rng.standard_normal((600, 500))
    handle = session.send_matrix(A, "MC_MR", block_size=16)
    before = memory_in_use(session)
    done, stop, wrong = threading.Event(), threading.Event(), []

    def write_and_read(number):
        try:
            while not done.is_set():
                writer = session.matrix_writer((400, 50), np.float64, "MC_MR", block_size=16)
                for row in range(0, 400, 50):
                    writer.write(np.full((50, 50), number + row), row=row)
                got = np.asarray(writer.close())
                if not (got == number + np.repeat(np.arange(0, 400, 50), 50)[:, np.newaxis]).all():
                    wrong.append(np.unique(got))
        except errors.AlchemistError as failure:
            wrong.append(failure)

    threads = [threading.Thread(target=write_and_read, args=(number,)) for number in (0.25, 0.5)]
    threads.append(threading.Thread(target=interrupt_main_thread, args=(stop,)))
    interrupts, deadline = 0, time.monotonic() + 1.5
    try:
        for thread in threads:
            thread.start()
        while time.monotonic() < deadline:
            try:
                while time.monotonic() < deadline:
                    if not (handle[3:500] == A[3:500]).all():
                        wrong.append("read")
                    session.send_matrix(A, "STAR_VR", block_size=1)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        stopped = False
        while not stopped:
            try:
                stop.set()
                threads[-1].join()
                stopped = True
            except KeyboardInterrupt:
                pass
        done.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert interrupts > 3
    gc.collect()
    assert wait_until(lambda: memory_in_use(session) == before)
    np.testing.assert_array_equal(np.asarray(handle), A)
