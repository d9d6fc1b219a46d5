"""Powers of two that keep squares of elements within the range of numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI


def safe_factor(comm: MPI.Comm, elements: npt.NDArray[Any]) -> float:
    """Return the power of two that brings the largest element near 1; 1 if squares are safe without. Collective.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the matrix.
    elements : ndarray
        The elements of this rank, finite.
    """
    flat, precision = elements.ravel(order="K"), np.finfo(elements.dtype)
    squares = comm.allreduce(float(abs(np.vdot(flat, flat))))
    if 2.0 ** (precision.minexp // 2) < squares < 2.0 ** (precision.maxexp // 2):
        return 1.0
    largest = comm.allreduce(_largest(flat), MPI.MAX)
    exponent = math.frexp(largest)[1]
    return math.ldexp(1.0, min(-exponent, int(precision.maxexp) - 2))


def _largest(flat: npt.NDArray[Any]) -> float:
    """Return the largest real or imaginary part by modulus: a modulus may overflow."""
    parts = flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat
    return float(np.abs(parts).max()) if parts.size else 0.0
