"""What the tests share: a server, sessions, and a check that nothing outlives them."""

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

os.environ[MARK] = uuid.uuid4().hex
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def marked_processes() -> dict[int, str]:
    """Return the processes that this test run has started and that still live, with their command lines."""
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
    """Return the shared-memory segments of MPI and of ours."""
    return {name for name in os.listdir("/dev/shm") if "mpich" in name.lower() or "alchemist" in name.lower()}


def leaked(before: set[str]) -> set[str]:
    """Return the segments that have come since `before`, but for those that MPI jobs of others have mapped."""
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
    """Fail the run if a process or a shared-memory segment of it is left at its end."""
    before = shared_memory()
    yield
    close_jobs()
    deadline = time.monotonic() + 10
    while (marked_processes() or leaked(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not (left := marked_processes()), f"processes outlived the tests: {left}"
    assert not leaked(before)


@pytest.fixture(scope="module", autouse=True)
def _modules_leave_nothing_behind():
    """Take away Ray Tune's handler, which swallows the next Ctrl-C, and what has every collection of garbage take long.

    With RLlib and PyTorch imported a collection takes 0.2 s; some tests make hundreds.
    """
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory):
    """The directory under which the server's workers read and write files."""
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
    """Return a function that opens sessions on the server; they are stopped after the test."""
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
    """A session with two workers for the tests of a module."""
    with alchemist.AlchemistSession() as shared:
        shared.connect(server.hostname, server.port, server.token)
        shared.request_workers(2)
        yield shared


@pytest.fixture(scope="module", params=["auto", "tcp"])
def session_by_transport(request, server):
    """A session with four workers for the tests of a module, over shared memory and then over TCP."""
    with alchemist.AlchemistSession(transport=request.param) as shared:
        shared.connect(server.hostname, server.port, server.token)
        shared.request_workers(4)
        yield shared


@pytest.fixture
def rng():
    return np.random.default_rng(20190507)
