"""Distributed Fourier transforms under real MPI against NumPy's, and through a session."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).parent / "programs" / "fft_cases.py"
LIMIT = 30
"""What a scaled residual may reach."""


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_transforms_are_those_of_numpy(size):
    done = subprocess.run(
        [Path(sys.executable).with_name("mpiexec"), "-n", str(size), sys.executable, "-m", "mpi4py", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert len(found) == 160
    wrong = [f"{name}: {what}" for name, what in found if isinstance(what, str) or not what <= LIMIT]
    assert not wrong, "\n".join(wrong[:20])


def test_a_session_has_them(session, rng):
    A = rng.standard_normal((40, 24)) + 1j * rng.standard_normal((40, 24))
    library = session.load_library("fft")
    F = library.fft2(session.send_matrix(A))
    np.testing.assert_allclose(np.asarray(F), np.fft.fft2(A), atol=1e-11)
    np.testing.assert_allclose(np.asarray(library.ifft2(F)), A, atol=1e-13)
