"""Which tests are quick: those that start no MPI job, no server, no Ray and no training. ``make quick`` runs these.

Tests need no mark. A test is quick unless its module, the conftest beside the module or a fixture of the test can start
something, as far as the names in the source tell. ``pytest.mark.quick`` on a test or a module declares it quick all the
same. A quick test that starts something fails.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest

STARTS = re.compile(
    r"\b(start_server|AlchemistSession\(|HPC\w+\(|gymnasium\.make|mpirun|mpiexec|run_cases|run_program|Job\(|Report\(|run_experiment"
    r"|larger_than_memory|program_of|import ray|from ray|evaluate\(|mark\.systems|mark\.hosts)"
)
"""Names of what starts processes, in the text of a module."""
ROOT_CONFTEST = Path(__file__).with_name("conftest.py")
FIXTURES = {"server", "session", "connect", "session_by_transport"}
"""The fixtures of tests/conftest.py that start a server."""
JOBS = re.compile(r"mpiexec|-m alchemist_ray\.mpi_backend\.driver\.program|raylet|gcs_server")
"""What stands in the command line of a job, a server or Ray."""

_started: list[str] = []


def _note_process(event, arguments):
    if event == "subprocess.Popen":
        command = " ".join(map(str, arguments[1] if not isinstance(arguments[1], str | bytes) else [arguments[1]]))
        if JOBS.search(command):
            _started.append(command)


sys.addaudithook(_note_process)


def pytest_ignore_collect(collection_path, config):
    """Do not import modules without quick tests when quick tests are asked for: some import Ray and PyTorch."""
    only_quick = config.option.markexpr == "quick" and collection_path.suffix == ".py"
    return True if only_quick and _all_may_start_something(collection_path) else None


def pytest_collection_modifyitems(items):
    """Mark the quick tests, before ``-m`` chooses among them."""
    for item in items:
        if item.get_closest_marker("quick") is None and not _may_start_something(item):
            item.add_marker(pytest.mark.quick)


def _may_start_something(item):
    return not FIXTURES.isdisjoint(item.fixturenames) or _names_a_start(item.path)


def _all_may_start_something(file):
    return _names_a_start(file) and "mark.quick" not in file.read_text()


@cache
def _names_a_start(file):
    beside = file.with_name("conftest.py")
    texts = [path.read_text() for path in (file, beside) if path.exists() and path != ROOT_CONFTEST]
    return any(STARTS.search(text) for text in texts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a quick test that has started a job."""
    _started.clear()
    result = yield
    if _started and item.get_closest_marker("quick") is not None:
        pytest.fail(f"the test is marked quick and started {_started[0]}", pytrace=False)
    return result
