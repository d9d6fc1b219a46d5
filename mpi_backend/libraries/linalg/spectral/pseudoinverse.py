"""The Moore-Penrose pseudoinverse, from the singular value decomposition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import leading_columns, leading_rows
from alchemist_ray.mpi_backend.libraries.linalg.matrices import products
from alchemist_ray.mpi_backend.libraries.linalg.matrices.factors import Form
from alchemist_ray.mpi_backend.libraries.linalg.scaling import linearly_scaled, scale_linearly, shift_exponents
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.libraries.linalg.spectral import full_svd

Array = npt.NDArray[Any]


@task
def pinv(
    ctx: TaskContext, A: DistMatrix, atol: float | None = None, rtol: float | None = None, return_rank: bool = False
) -> DistMatrix | tuple[DistMatrix, int]:
    """Return the Moore-Penrose pseudoinverse.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix; float32, float64, complex64 or complex128.
    atol, rtol : float, optional
        Singular values up to ``atol + rtol * s[0]`` count as zero. Defaults: `atol` 0; `rtol` max(m, n) times the
        machine precision.
    return_rank : bool
        Whether to also return the number of the other singular values.

    Returns
    -------
    B : DistMatrix, shape (n, m)
        The pseudoinverse.
    rank : int
        Only with `return_rank`: the effective rank.

    Raises
    ------
    ArgumentError
        If A has another dtype.
    ArgumentValueError
        If `atol` or `rtol` is negative.
    NonFiniteError
        If A contains NaN or Inf.
    ConvergenceError
        If a singular value does not converge.

    Notes
    -----
    Collective over comm. The cost and memory of :func:`svd`, and a product of 2mn rank operations. ‖A B A − A‖ is of
    the order eps cond(A) ‖A‖, with the condition number after truncation.
    """
    checks.require_floating(ctx, A=A)
    for name, tolerance in (("atol", atol), ("rtol", rtol)):
        if tolerance is not None and not tolerance >= 0:
            raise ArgumentValueError(ctx.task, f"{name} must not be negative, but is {tolerance}")
    absolute = atol or 0.0
    relative = rtol if rtol is not None else max(A.shape) * float(np.finfo(A.dtype).eps)
    if small_problems.suits("pinv", A.shape):
        work = lambda A: _of_whole(A, absolute, relative)  # noqa: E731 - one expression
        found: tuple[DistMatrix, int] = small_problems.solved(ctx, work, A=A)
        return found if return_rank else found[0]
    checks.require_finite(ctx, A=A)
    A, exponent = linearly_scaled(A)
    U, s, Vt = full_svd.factors(ctx, A)
    rank = _rank(s, absolute, relative, exponent)
    if rank == 0:
        B = checks.allocated(ctx, A.shape[::-1], A.dtype, "MC_MR")
        B.local[...] = 0
        return (B, rank) if return_rank else B
    left, right = leading_columns(U, rank), leading_rows(Vt, rank)
    left.local[...] /= s[left.cols.indices()]
    B = products.product(ctx, right, left, Form(True, True, True, True))
    if exponent:
        shift_exponents(B.local, exponent)
    return (B, rank) if return_rank else B


def _rank(s: Array, absolute: float, relative: float, exponent: int) -> int:
    """Return the rank of a matrix from the singular values of the matrix times 2**exponent. Local."""
    if s.size == 0:
        return 0
    return int(np.count_nonzero(s > math.ldexp(absolute, exponent) + relative * float(s[0])))


def _of_whole(A: Array, absolute: float, relative: float) -> tuple[Whole, int]:
    """Return the pseudoinverse of a whole matrix, and its rank. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    exponent = scale_linearly(MPI.COMM_SELF, A)
    U, s, Vh = scipy.linalg.svd(A, full_matrices=False, overwrite_a=True, check_finite=False)
    rank = _rank(s, absolute, relative, exponent)
    B = ((U[:, :rank] / s[:rank]) @ Vh[:rank]).conj().T
    if exponent:
        shift_exponents(B, exponent)
    return Whole(B), rank
