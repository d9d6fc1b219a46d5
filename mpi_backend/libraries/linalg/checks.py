"""Checks of arguments, with the same result on every rank.

If one rank raises alone, the others wait in MPI forever. So a check either uses only data that all ranks have
(shapes, types, scalar arguments), or ends with a reduction that gives every rank the same result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentError, ArgumentValueError, NonFiniteError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

_FLOATING = ("float32", "float64", "complex64", "complex128")


def require_floating(ctx: TaskContext, **matrices: DistMatrix | SparseDistMatrix) -> np.dtype[Any]:
    """Return the common element type of the named matrices. Local.

    Raises
    ------
    ArgumentError
        If one of them is not float32, float64, complex64 or complex128.
    """
    for name, A in matrices.items():
        if A.dtype.name not in _FLOATING:
            raise ArgumentError(
                ctx.task,
                f"matrix {name} has dtype {A.dtype}; convert it to {', '.join(_FLOATING[:-1])} or {_FLOATING[-1]}, "
                "e.g. with astype",
            )
    return np.result_type(*(A.dtype for A in matrices.values()))


def require_numeric(ctx: TaskContext, **matrices: DistMatrix | SparseDistMatrix) -> np.dtype[Any]:
    """Return the common element type of the named matrices. Local.

    Raises
    ------
    ArgumentError
        If one of them is bool.
    """
    for name, A in matrices.items():
        if A.dtype == np.bool_:
            raise ArgumentError(
                ctx.task,
                f"matrix {name} has dtype bool, which has no product; convert it with astype: int64 counts, float64 is "
                "fast",
            )
    return np.result_type(*(A.dtype for A in matrices.values()))


def require_finite(ctx: TaskContext, **matrices: DistMatrix | SparseDistMatrix) -> None:
    """Check that no named matrix contains NaN or Inf. Collective over comm.

    Raises
    ------
    NonFiniteError
        On every rank, if a matrix contains NaN or Inf on any rank.
    """
    finite = np.array(
        [is_finite(A.arrays.values if isinstance(A, SparseDistMatrix) else A.local) for A in matrices.values()], np.int8
    )
    ctx.comm.Allreduce(MPI.IN_PLACE, finite, MPI.MIN)
    for name, fine in zip(matrices, finite, strict=True):
        if not fine:
            raise NonFiniteError(ctx.task, name)


def is_finite(local: npt.NDArray[Any]) -> bool:
    """Whether the contiguous array `local` has neither NaN nor Inf. Local.

    If the sum of squares is finite, all elements are; it costs one pass at the speed of memory. It also overflows if
    elements are very large, so only then each element is checked.
    """
    flat = local.ravel(order="K")
    return math.isfinite(abs(np.vdot(flat, flat))) or bool(np.isfinite(flat).all())


def require_rank(ctx: TaskContext, name: str, k: int, shape: tuple[int, int]) -> None:
    """Check that a matrix of `shape` has `k` singular triplets. Local.

    Raises
    ------
    ArgumentValueError
        If ``k`` is not in ``1 .. min(m, n)``.
    """
    m, n = shape
    if not 1 <= k <= min(m, n):
        raise ArgumentValueError(
            ctx.task, f"{name} must lie in 1..{min(m, n)}, the smaller side of a {m}x{n} matrix, but is {k}"
        )


def allocated(ctx: TaskContext, shape: tuple[int, int], dtype: npt.DTypeLike, layout: Layout | str) -> DistMatrix:
    """Return an uninitialised matrix. Collective over comm.

    Raises
    ------
    MatrixMemoryError
        If a rank has not enough memory for its part; the other ranks raise PeerFailedError.
    """
    with Agreement(ctx.comm):
        return ctx.empty(shape, dtype, layout)


def replicated(ctx: TaskContext, A: npt.NDArray[Any], layout: Layout | str) -> DistMatrix:
    """Return `A`, which every rank passes whole, as a distributed matrix. Collective over comm.

    Raises
    ------
    MatrixMemoryError
        If a rank has not enough memory for its part; the other ranks raise PeerFailedError.
    """
    with Agreement(ctx.comm):
        return ctx.from_replicated(A, layout)


def new_like(
    A: DistMatrix,
    shape: tuple[int, int] | None = None,
    layout: Layout | str | None = None,
    dtype: npt.DTypeLike | None = None,
) -> DistMatrix:
    """Return an uninitialised matrix on the ranks of `A`; omitted arguments are those of `A`. Collective over comm.

    Raises
    ------
    MatrixMemoryError
        If a rank has not enough memory for its part; the other ranks raise PeerFailedError.
    """
    with Agreement(A.comm):
        return A.new(A.shape if shape is None else shape, A.layout if layout is None else layout, dtype)


def converted(A: DistMatrix, dtype: np.dtype[Any]) -> DistMatrix:
    """Return `A` with elements of `dtype`; `A` itself if it has that type. Collective over comm.

    Raises
    ------
    MatrixMemoryError
        If a rank has not enough memory for its part; the other ranks raise PeerFailedError.
    """
    if A.dtype == dtype:
        return A
    B = new_like(A, dtype=dtype)
    B.local[...] = A.local
    return B
