"""The rules of this suite: a skip fails in CI, and quick tests are found without marks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from skips import ACCEPTED, needs

pytestmark = pytest.mark.quick
TESTS = Path(__file__).parent

CONFTEST = """
import pytest
from quick import pytest_collection_modifyitems, pytest_ignore_collect, pytest_runtest_call
from skips import pytest_make_collect_report, pytest_runtest_makereport

@pytest.fixture
def server(): ...

@pytest.fixture
def indirect(server): ...
"""
SKIPPING = f"""
import pytest
from skips import needs

def test_runs(): ...

def test_skips():
    pytest.skip("no such machine")

@pytest.fixture
def unavailable():
    pytest.skip("no such fixture")

def test_skips_in_a_fixture(unavailable): ...

@needs("no-such-program")
def test_needs(): ...

@pytest.mark.xfail
def test_is_expected_to_fail():
    raise AssertionError

def test_is_accepted():
    pytest.skip({next(iter(ACCEPTED))!r})
"""
WHOLE_MODULE = "import pytest\npytest.importorskip('no_such_module')\n\ndef test_never_runs(): ...\n"
FREE = """
def test_is_quick(): ...

def test_uses_a_server(indirect): ...
"""
STARTING_ALL_THE_SAME = """
import pytest, subprocess, sys

@pytest.mark.quick
def test_starts_a_job_all_the_same():
    subprocess.run([sys.executable, "-c", "0", "mpiexec"], check=True)
"""
STARTING = """
import pytest
import alchemist_ray

def start():
    alchemist_ray.start_server()

def test_of_a_module_that_starts_servers(): ...

@pytest.mark.quick
def test_is_declared_quick(): ...
"""
HEAVY = "raise SystemExit('imported')\nimport ray\n"


@pytest.fixture
def run(tmp_path):
    """Return a function that runs files as a suite; it returns the outcomes by test or file, and what was printed."""

    def outcomes_of(files, *options, **environment):
        for name, text in {"conftest.py": CONFTEST, **files}.items():
            (tmp_path / name).write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    quick: quick\n    systems: systems\n")
        clean = {name: value for name, value in os.environ.items() if name != "CI"}
        settings = ("-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors")
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *settings, *options],
            cwd=tmp_path, env=clean | {"PYTHONPATH": str(TESTS)} | environment,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        lines = re.findall(r"^(PASSED|FAILED|ERROR|XFAIL) (?:\S+::)?([\w.]+)", ran.stdout, re.MULTILINE)
        return {name: outcome for outcome, name in lines}, ran.stdout

    return outcomes_of


def test_skips_are_skips_on_a_machine_that_is_not_ci(run):
    outcomes, printed = run({"test_skipping.py": SKIPPING, "test_module.py": WHOLE_MODULE})
    assert outcomes == {"test_runs": "PASSED", "test_is_expected_to_fail": "XFAIL"}
    assert "5 skipped" in printed


def test_skips_fail_in_ci_unless_they_are_accepted(run):
    outcomes, printed = run({"test_skipping.py": SKIPPING, "test_module.py": WHOLE_MODULE}, CI="true")
    assert outcomes == {
        "test_runs": "PASSED",
        "test_skips": "FAILED",
        "test_skips_in_a_fixture": "ERROR",
        "test_needs": "ERROR",
        "test_is_expected_to_fail": "XFAIL",
        "test_module.py": "ERROR",
    }
    assert "1 skipped" in printed
    assert "needs no-such-program: try `make system-packages`" in printed
    assert "no_such_module" in printed


def test_every_accepted_reason_says_why():
    assert all(len(why) > 20 for why in ACCEPTED.values())


def test_what_is_here_is_not_skipped():
    assert needs("sh").args == (False,)
    assert needs("sh", "no-such-program").kwargs["reason"].startswith("needs no-such-program:")


def test_quick_tests_are_found_and_what_they_start_is_seen(run):
    files = {"free": FREE, "starting": STARTING, "starting_all_the_same": STARTING_ALL_THE_SAME, "heavy": HEAVY}
    outcomes, printed = run({f"test_{name}.py": text for name, text in files.items()}, "-m", "quick")
    assert outcomes == {
        "test_is_quick": "PASSED",
        "test_is_declared_quick": "PASSED",
        "test_starts_a_job_all_the_same": "FAILED",
    }
    assert "the test is marked quick and started" in printed
