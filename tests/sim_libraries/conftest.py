"""Run the programs of the simulations, each once for all tests that use its results."""

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
    """Return a function ``cases_of(program, size, *cases)`` that runs cases and returns their results (see cases.py).

    A program runs only once with the same arguments.
    """

    @functools.cache
    def run(program: str, size: int, *cases: str) -> dict[str, Any]:
        return dict(json.loads(line) for line in run_program(size, PROGRAMS / program, *cases).splitlines())

    return run
