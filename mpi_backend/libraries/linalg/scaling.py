"""Scaling by powers of two, so that squares of elements neither overflow nor underflow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import DistMatrix
from alchemist_ray.mpi_backend.libraries.linalg import checks


def safe_factor(comm: MPI.Comm, elements: npt.NDArray[Any]) -> float:
    """Return a power of two that brings the largest element near 1; 1 if squares are safe already. Collective.

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


def scale_safely(work: DistMatrix) -> float:
    """Multiply `work` in place by its :func:`safe_factor` and return the factor. Collective over comm."""
    factor = safe_factor(work.comm, work.local)
    if factor != 1:
        work.local[...] *= work.local.real.dtype.type(factor)
    return factor


def safely_scaled(A: DistMatrix) -> tuple[DistMatrix, float]:
    """Return `A` times its :func:`safe_factor` (`A` itself if that is 1), and the factor. Collective over comm."""
    factor = safe_factor(A.comm, A.local)
    if factor == 1:
        return A, factor
    B = checks.new_like(A)
    np.multiply(A.local, A.local.real.dtype.type(factor), out=B.local)
    return B, factor


def shift_exponents(X: npt.NDArray[Any], exponents: int | npt.NDArray[np.int64]) -> None:
    """Multiply `X` in place by 2**exponents, one exponent for all or one per column, rounding once. Local."""
    with np.errstate(over="ignore"):
        for part in (X.real, X.imag) if X.dtype.kind == "c" else (X,):
            np.ldexp(part, np.asarray(exponents, np.int32), out=part)


def _largest(flat: npt.NDArray[Any]) -> float:
    """Return the largest absolute value of a real or imaginary part: unlike it, a complex modulus may overflow."""
    parts = flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat
    return float(np.abs(parts).max()) if parts.size else 0.0
