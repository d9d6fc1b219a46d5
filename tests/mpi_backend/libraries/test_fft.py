"""Distributed Fourier transforms under real MPI against NumPy's, and through a session."""

import json
from functools import cache

import numpy as np
import pytest
from tests_support import LIMIT, PROGRAMS, mpirun

PROGRAM = "fft_cases.py"


@cache
def report(size):
    """Run the program on `size` ranks, at most once; return its findings."""
    return json.loads(mpirun(size, PROGRAMS / PROGRAM))


def test_the_runs_together_try_all_transforms():
    assert sum(len(report(size)) for size in (2, 3, 4)) == 118 + 3 * 42


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_transforms_equal_those_of_numpy(size):
    found = report(size)
    assert len(found) > 42
    wrong = [f"{name}: {what}" for name, what in found if isinstance(what, str) or not what <= LIMIT]
    assert not wrong, "\n".join(wrong[:20])


def test_transforms_through_a_session(session, rng):
    A = rng.standard_normal((40, 24)) + 1j * rng.standard_normal((40, 24))
    library = session.load_library("fft")
    F = library.fft2(session.send_matrix(A))
    np.testing.assert_allclose(np.asarray(F), np.fft.fft2(A), atol=1e-11)
    np.testing.assert_allclose(np.asarray(library.ifft2(F)), A, atol=1e-13)
