"""A test that cannot run on this machine is skipped, and fails in CI, where nobody would notice that it never ran.

CI is where the environment has ``CI=true``. There only the reasons in :data:`ACCEPTED` may skip a test. The hooks look
at every skip, whether it comes from ``pytest.skip``, a ``skipif`` mark or ``pytest.importorskip``.
"""

from __future__ import annotations

import os
import shutil

import pytest

ACCEPTED = {
    "petsc4py is not installed": "PyPI has petsc4py and slepc4py as sources only; building PETSc takes half an hour",
}
"""What a reason begins with that CI accepts -> why CI cannot install what is missing."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Return a mark for tests that run programs which pip does not install."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: try `make system-packages`")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    """Judge the skip of a test."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _judge(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    """Judge the skip of a module."""
    report = yield
    _judge(report)
    return report


def _judge(report):
    if report.outcome != "skipped" or os.environ.get("CI") != "true":
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not reason.startswith(tuple(ACCEPTED)):
        report.outcome = "failed"
        report.longrepr = (
            f"{report.nodeid} was skipped: {reason}\n"
            "In CI this is a failure. Install what is missing (`make system-packages`), or accept it in tests/skips.py."
        )
