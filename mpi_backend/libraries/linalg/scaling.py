"""Scaling by powers of two, so that elements, their squares and their reciprocals neither overflow nor underflow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import DistMatrix
from alchemist_ray.mpi_backend.libraries.linalg import checks

_SPARE = 1 / 4
"""The fraction of the range of exponents, at either end, that the elements of a matrix must stay out of."""

_SPARE_TWICE = 5 / 8


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


def linear_exponent(comm: MPI.Comm, elements: npt.NDArray[Any], twice: bool = False) -> int:
    """Return the exponent of the power of two by which to multiply a matrix before elimination or solving.

    It is 0 unless the largest element is so small that reciprocals of pivots overflow, or so large that sums of
    elements do. A small matrix is scaled to about 1. A large one is made a little smaller, as far as its smallest
    element stays exact. Collective over comm.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the matrix.
    elements : ndarray
        The elements of this rank, finite.
    twice : bool
        Whether to solve with the matrix twice, so its square must also stay away from the limits of the range.
    """
    return _exponent_of(comm, [elements], elements.dtype, twice) if _extreme(comm, elements) else 0


def _extreme(comm: MPI.Comm, elements: npt.NDArray[Any]) -> bool:
    """Whether elements may be near the limits of the range of numbers. Collective over comm."""
    flat, precision = elements.ravel(order="K"), np.finfo(elements.dtype)
    squares = comm.allreduce(float(abs(np.vdot(flat, flat))))
    return not 2.0 ** (precision.minexp // 2) < squares < 2.0 ** (precision.maxexp // 2)


def _exponent_of(comm: MPI.Comm, parts: Iterable[npt.NDArray[Any]], dtype: np.dtype[Any], twice: bool) -> int:
    """Return the :func:`linear_exponent` of elements in several arrays. Collective over comm."""
    sizes = [(_largest(part.ravel()), _smallest(part.ravel())) for part in parts]
    largest = comm.allreduce(max((size for size, _ in sizes), default=0.0), MPI.MAX)
    smallest = comm.allreduce(min((size for _, size in sizes), default=math.inf), MPI.MIN)
    if largest == 0:
        return 0
    precision, exponent = np.finfo(dtype), math.frexp(largest)[1]
    margin = int(precision.maxexp * (_SPARE_TWICE if twice else _SPARE))
    if exponent < precision.minexp + margin:
        return -exponent
    exact = int(precision.minexp) + 1 - math.frexp(smallest)[1]
    return min(0, max(exact, int(precision.maxexp) - margin - exponent))


def scale_linearly(comm: MPI.Comm, X: npt.NDArray[Any], *, even: bool = False, twice: bool = False) -> int:
    """Multiply this rank's elements in place by two to their :func:`linear_exponent`; return the exponent. Collective.

    With `even` the exponent is made even, so that the root of the power is a power of two as well.
    """
    exponent = linear_exponent(comm, X, twice)
    exponent -= exponent % 2 if even else 0
    if exponent:
        shift_exponents(X, exponent)
    return exponent


def linearly_scaled(A: DistMatrix) -> tuple[DistMatrix, int]:
    """Return `A` times two to its :func:`linear_exponent` (`A` itself if that is 0), and the exponent. Collective."""
    exponent = linear_exponent(A.comm, A.local)
    if exponent == 0:
        return A, 0
    B = checks.new_like(A)
    B.local[...] = A.local
    shift_exponents(B.local, exponent)
    return B, exponent


def triangle_exponent(T: DistMatrix, lower: bool, pivots: npt.NDArray[Any], twice: bool = False) -> int:
    """Return the :func:`linear_exponent` of a triangle of `T` with the diagonal `pivots`. Collective over comm.

    The rows of the triangle are read only if its diagonal is small, or elements of `T` are large.
    """
    if not (_extreme(MPI.COMM_SELF, pivots) or _extreme(T.comm, T.local)):
        return 0
    triangle = (
        T.local[iloc, : T.cols.local_range(0, i + 1)[1]] if lower else T.local[iloc, T.cols.local_range(0, i)[1] :]
        for iloc, i in enumerate(T.rows.indices().tolist())
    )
    return _exponent_of(T.comm, triangle, T.dtype, twice)


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
    parts = np.ascontiguousarray(flat).view(flat.real.dtype) if flat.dtype.kind == "c" else flat
    return max(float(parts.max()), -float(parts.min())) if parts.size else 0.0


def _smallest(flat: npt.NDArray[Any]) -> float:
    """Return the smallest absolute value of a real or imaginary part that is not zero; infinity if all are zero."""
    parts = np.abs(np.ascontiguousarray(flat).view(flat.real.dtype))
    return float(parts.min(where=parts > 0, initial=math.inf))
