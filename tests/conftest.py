"""Fixtures for all tests: a server, sessions, and a check that no process or shared memory is left over."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from mpi_jobs import close_jobs
from quick import pytest_collection_modifyitems, pytest_ignore_collect, pytest_runtest_call  # noqa: F401  # hooks
from skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401  # hooks

import alchemist_ray as alchemist

LIBRARIES = Path(__file__).parent / "libraries"
MARK = "ALCHEMIST_TEST_RUN"
END_SECONDS = 90
"""Time for the last processes to end. An agent of Ray whose raylet was killed tries for a minute to tell Ray so."""

os.environ[MARK] = uuid.uuid4().hex
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts the jobs behind its & like this
    signal.signal(signal.SIGINT, signal.default_int_handler)


def marked_processes() -> dict[int, str]:
    """Return the processes that this test run started and that are still alive, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{MARK}={os.environ[MARK]}".encode() in environment and command:
            found[int(entry.name)] = command
    return found


def shared_memory() -> set[str]:
    """Return the names of the shared-memory segments of MPI and of this package."""
    return {name for name in os.listdir("/dev/shm") if "mpich" in name.lower() or "alchemist" in name.lower()}


def leaked(before: set[str]) -> set[str]:
    """Return the segments that are new since `before`, except those that foreign MPI jobs have mapped."""
    found = shared_memory() - before
    if not found:
        return found
    ours = marked_processes()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in ours:
            with contextlib.suppress(OSError):
                maps = (entry / "maps").read_text()
                found -= {name for name in found if f"/dev/shm/{name}" in maps}
    return found


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left() -> object:
    """Fail the test run if one of its processes or shared-memory segments is left at the end."""
    before = shared_memory()
    yield
    close_jobs()
    deadline = time.monotonic() + END_SECONDS
    while (marked_processes() or leaked(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not (left := marked_processes()), f"processes outlived the tests: {left}"
    assert not leaked(before)


@pytest.fixture(scope="module", autouse=True)
def _modules_leave_nothing_behind():
    """Remove Ray Tune's signal handler, which swallows the next Ctrl-C, and keep garbage collections short.

    With RLlib and PyTorch imported, a collection takes 0.2 s, and some tests make hundreds. Objects of a module that is
    done are frozen, so that later collections skip them.
    """
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory):
    """Return the directory in which the server's workers may read and write files."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def server(data_directory):
    with alchemist.start_server(
        num_workers=12,
        memory_per_worker=256 * 2**20,
        libraries={"faults": str(LIBRARIES / "faults.py")},
        data_directories=[data_directory],
    ) as running:
        yield running


@pytest.fixture
def connect(server):
    """Return a function that opens sessions on the server. They are stopped after the test."""
    opened = []

    def open_session(num_workers: int = 0, **options: object) -> alchemist.AlchemistSession:
        session = alchemist.AlchemistSession(**options)
        opened.append(session)
        session.connect(server.hostname, server.port, server.token)
        if num_workers:
            session.request_workers(num_workers)
        return session

    yield open_session
    for session in opened:
        session.stop()


@pytest.fixture(scope="module")
def session(server):
    """Yield a session with two workers for the tests of a module."""
    with alchemist.AlchemistSession() as shared:
        shared.connect(server.hostname, server.port, server.token)
        shared.request_workers(2)
        yield shared


@pytest.fixture(scope="module", params=["auto", "tcp"])
def session_by_transport(request, server):
    """Yield a session with four workers for the tests of a module, first over shared memory and then over TCP."""
    with alchemist.AlchemistSession(transport=request.param) as shared:
        shared.connect(server.hostname, server.port, server.token)
        shared.request_workers(4)
        yield shared


@pytest.fixture
def rng():
    return np.random.default_rng(20190507)
