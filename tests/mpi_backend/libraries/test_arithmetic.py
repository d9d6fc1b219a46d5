"""Arithmetic of distributed matrices under real mpiexec: every type and layout against NumPy, and refused input."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "programs" / "arithmetic_cases.py"
CASES = {
    "types": 7 * 7 * 4,
    "places": 13 * 13 * 2,
    "numbers": 7 * 4 * 9 * 2,
    "single_operands": 7 * 3 * 13,
    "rows_and_columns": 13 * 3 * 7,
    "conversions": 7 * 7 + 2,
    "sums": 7 * 13 * 3,
    "norms": 7 * 13 * 4,
    "extreme_norms": 8 * 13 + 2 * 4 * 5 + 6,
    "transposes": 7 * 13 * 3,
    "copies": 13 * 5 * 2 + 1,
    "products_of_types": 6 * 6 + 4,
    "conjugates": 2 * 3 * 16 * 2,
    "uneven_inner_products": 1,
    "refusals": 14,
    "no_room": 6,
}
DEALT = {"types", "places", "numbers", "single_operands", "rows_and_columns", "sums", "norms", "extreme_norms"}
DEALT |= {"transposes", "conjugates"}
"""Groups whose cases are divided among the runs on 2, 3 and 4 ranks."""


@cache
def report(size):
    """Run the program on `size` ranks, at most once; return the number of cases of each group, and the faults."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", str(size), sys.executable, "-m", "mpi4py", PROGRAM]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return {name: (count, wrong) for name, count, wrong in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("group", CASES)
def test_results_equal_those_of_numpy(size, group):
    count, wrong = report(size)[group]
    assert not wrong, "\n".join(wrong[:20])
    assert count == CASES[group] or (group in DEALT and 0 < count < CASES[group] / 2)


def test_the_runs_together_try_all_cases():
    tried = {group: sum(report(size)[group][0] for size in (2, 3, 4)) for group in DEALT}
    assert tried == {group: CASES[group] for group in DEALT}
