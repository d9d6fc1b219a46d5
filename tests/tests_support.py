"""Helpers that several test modules use."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from mpi_jobs import mpi_environment, run_program

from alchemist_ray import AlchemistSession
from alchemist_ray.client.transfer.plane import plane_of


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Return whether `condition` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def end_process(process: subprocess.Popen[Any], seconds: float = 10.0) -> None:
    """Ask a process to end; kill it if it does not end within so many seconds."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_task(session: AlchemistSession, task: str) -> None:
    """Wait until a worker of the session runs `task`, such as ``"faults.nap"``, as its server sees them."""

    def is_running() -> bool:
        (row,) = [s for s in session.server_status()["sessions"] if s["id"] == session.session_id]
        return any(worker["task"] == task for worker in row["workers"])

    assert wait_until(is_running, 20), f"{task} was not started"


def memory_in_use(session: AlchemistSession) -> list[int]:
    """Free the dropped matrices of the session, and return the bytes that each of its workers has in use."""
    plane_of(session.address).free_dropped()
    (row,) = [s for s in session.server_status()["sessions"] if s["id"] == session.session_id]
    return [worker["memory_in_use"] for worker in row["workers"]]


LIMIT = 30
"""Largest accepted scaled residual, as in the tests of LAPACK."""

PROGRAMS = Path(__file__).parent / "mpi_backend" / "programs"


def mpirun(size: int, program: Path, *arguments: str | Path) -> str:
    """Run a Python program on `size` ranks and return its output.

    The program runs under ``-m mpi4py``, so that an exception on one rank ends all ranks. Each rank computes with one
    thread. With more ranks than cores, waiting ranks sleep instead of spinning, so that other ranks get the cores.
    """
    mpiexec = Path(sys.executable).with_name("mpiexec")
    ran = subprocess.run(
        [mpiexec, "-n", str(size), sys.executable, "-m", "mpi4py", program, *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=mpi_environment(size),
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout


def run_cases(program: str, size: int, *cases: str) -> list[tuple[str, str, Any]]:
    """Run cases of one of :data:`PROGRAMS`, which prints a line ``[case, label, result]`` for each result."""
    results = [json.loads(line) for line in run_program(size, PROGRAMS / program, *cases).splitlines()]
    assert {name for name, _, _ in results} == set(cases)
    return [(name, label, result) for name, label, result in results]


def too_large(results: Iterable[tuple[str, Any]]) -> list[str]:
    """Return the residuals above :data:`LIMIT`, or NaN, as texts. Each result is a label with its scaled residuals."""
    wrong = []
    for label, result in results:
        residuals = result if isinstance(result, dict) else {"residual": result}
        wrong += [f"{label}: {what} {value}" for what, value in residuals.items() if not value <= LIMIT]
    return wrong


class Report:
    """Results of the cases of one of :data:`PROGRAMS` on 1 to 4 ranks. There is one run for each number of ranks.

    Parameters
    ----------
    program
        Name of the program.
    cases
        Numbers of ranks -> the cases to run on each of them.
    """

    def __init__(self, program: str, cases: dict[tuple[int, ...], list[str]]) -> None:
        self.cases = cases
        self._program = program
        self._outcome = cache(self._run)

    def _run(self, size: int) -> dict[str, list[tuple[str, Any]]] | AssertionError:
        """Return the results by case, or how the program failed, so that it fails once and not for each case."""
        names = [name for sizes, group in self.cases.items() if size in sizes for name in group]
        found: dict[str, list[tuple[str, Any]]] = {name: [] for name in names}
        try:
            results = run_cases(self._program, size, *names)
        except AssertionError as failure:
            return failure
        for name, label, result in results:
            found[name].append((label, result))
        return found

    def pairs(self) -> list[tuple[int, str]]:
        """Return all pairs of a number of ranks and one of its cases."""
        return [(size, name) for sizes, names in self.cases.items() for size in sizes for name in names]

    def of(self, size: int, name: str) -> list[tuple[str, Any]]:
        """Return the labels and results of a case."""
        outcome = self._outcome(size)
        assert not isinstance(outcome, AssertionError), str(outcome)
        return outcome[name]

    def check(self, size: int, name: str) -> None:
        """Fail if a case has no results, or a residual that is too large."""
        assert self.of(size, name)
        wrong = too_large(self.of(size, name))
        assert not wrong, "\n".join(wrong[:20])


def in_background(action: Callable[[], object]) -> Callable[..., BaseException | None]:
    """Run `action` in a thread; return a function that waits for it and returns what it raised."""
    raised: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as failure:  # noqa: BLE001
            raised.append(failure)

    thread = threading.Thread(target=act)
    thread.start()

    def wait(seconds: float = 20) -> BaseException | None:
        thread.join(seconds)
        assert not thread.is_alive()
        return raised[0] if raised else None

    return wait
