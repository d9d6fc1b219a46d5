"""Distributed matrices under real mpiexec: relayout between all pairs of layouts, and what is refused."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("programs") / "distmatrix_relayout.py"
MPIEXEC = Path(sys.executable).with_name("mpiexec")


@cache
def report(size):
    """Run the program on `size` ranks, once; return what it says."""
    command = [str(MPIEXEC), "-n", str(size), sys.executable, str(PROGRAM)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_all_14_by_14_relayouts_give_the_same_matrix(size):
    said = report(size)
    assert said["size"] == size
    assert said["relayouts"] == 14 * 14
    assert said["complaints"] == []


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_blocks_that_do_not_fit_are_refused_and_memory_is_inherited_on_every_rank(size):
    assert report(size)["wrong"] == [[]] * size
