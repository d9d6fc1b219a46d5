"""Run the programs of the simulations: each once for all tests that look at what it has found."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mpi_jobs import run_program

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def cases_of() -> Callable[..., dict[str, Any]]:
    """Return a function that runs ``cases_of(program, size, *cases)`` and returns the results by case (see cases.py).

    A program that has been run with the same arguments is not run again.
    """

    @functools.cache
    def run(program: str, size: int, *cases: str) -> dict[str, Any]:
        return dict(json.loads(line) for line in run_program(size, PROGRAMS / program, *cases).splitlines())

    return run
