"""Distributed matrices under real mpiexec: relayout between all pairs of layouts, and invalid calls."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[1] / "programs"
MPIEXEC = Path(sys.executable).with_name("mpiexec")
SIZES = [1, 2, 3, 4, 6]
CHECKS = [
    "check_default_layouts",
    "check_plans",
    "check_load",
    "check_refusals",
    "check_memory",
    "check_no_room_on_one_rank",
    "check_messages",
]


def run(size, program):
    """Run a program on `size` ranks; return its output."""
    command = [str(MPIEXEC), "-n", str(size), sys.executable, str(PROGRAMS / program)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


@cache
def report(size):
    return run(size, "distmatrix_relayout.py")


@pytest.mark.parametrize("size", SIZES)
def test_relayouts_give_the_same_matrix_or_its_transpose(size):
    said = report(size)
    assert said["size"] == size
    assert said["complaints"] == []


@pytest.mark.parametrize("sizes", [(2, 4), (3, 6)])
def test_all_14_by_14_pairs_of_layouts_are_tried(sizes):
    assert sum(report(size)["relayouts"] for size in sizes) == 14 * 14


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("size", SIZES)
def test_every_rank_finds_nothing_wrong(size, check):
    assert report(size)["wrong"][check] == [[]] * size


def test_every_check_of_the_program_is_reported_here():
    assert sorted(report(1)["wrong"]) == sorted(CHECKS)


def test_a_relayout_takes_the_memory_of_both_matrices_and_little_more():
    for case, ranks in run(2, "distmatrix_memory.py").items():
        for blocks, grown in ranks:
            assert blocks * 0.9 < grown < blocks + 64 * 2**20, case
