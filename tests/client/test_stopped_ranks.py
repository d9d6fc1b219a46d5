"""A rank that is stopped, as by SIGSTOP: who waits for it hears of it, whatever was asked in between."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import numpy as np
import pytest
from tests_support import in_background, wait_until

from alchemist_ray import errors

REPORT_SECONDS = 10.0
"""A stopped rank is reported within this time."""


@contextlib.contextmanager
def stopped(session, rank):
    """Stop a rank for the duration of the block; wait until the server knows."""
    pid = session.list_assigned_workers()[rank]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def ask_until_noticed(session):
    """Ask the server for other things until its notice of the stopped rank has arrived between the answers."""
    driver, group_id = session._workers.driver(), session.address.group_id

    def noticed():
        session.list_all_workers()
        return driver.stopped_ranks(group_id) is not None

    assert wait_until(noticed, REPORT_SECONDS)


@pytest.mark.parametrize("on_stopped", ["wait", "end"])
def test_a_notice_that_another_request_has_read_is_not_lost(connect, caplog, on_stopped):
    session = connect(2, on_stopped=on_stopped)
    session.load_library("faults")
    with stopped(session, 1):
        ask_until_noticed(session)
        wait = in_background(lambda: session.run_task("faults", "echo", value=1))
        if on_stopped == "end":
            error = wait(REPORT_SECONDS)
            assert isinstance(error, errors.GroupDiedError)
            assert "rank 1 is stopped" in str(error)
        else:
            assert wait_until(lambda: "rank 1 is stopped" in caplog.text, 2)
    if on_stopped == "wait":
        assert wait() is None


@pytest.mark.parametrize("transport", ["auto", "tcp"])
@pytest.mark.parametrize("what", ["fetch", "send"])
def test_a_transfer_hears_of_a_stopped_rank(connect, transport, what):
    session = connect(2, on_stopped="end", transport=transport)
    A = np.ones((2000, 1000))
    handle = session.send_matrix(A)
    with stopped(session, 1):
        begun = time.monotonic()
        with pytest.raises(errors.GroupDiedError, match="rank 1 is stopped"):
            session.fetch_matrix(handle) if what == "fetch" else session.send_matrix(A)
        assert time.monotonic() - begun < REPORT_SECONDS


def test_a_transfer_waits_for_a_stopped_rank_and_says_so(connect, caplog):
    session = connect(2)
    A = np.ones((2000, 1000))
    handle = session.send_matrix(A)
    with stopped(session, 1):
        fetched = np.zeros_like(A)
        wait = in_background(lambda: np.copyto(fetched, session.fetch_matrix(handle)))
        assert wait_until(lambda: "rank 1 is stopped" in caplog.text, REPORT_SECONDS)
    assert wait() is None
    np.testing.assert_array_equal(fetched, A)
