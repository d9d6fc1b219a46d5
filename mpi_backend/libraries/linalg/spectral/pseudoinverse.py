"""The Moore-Penrose pseudoinverse, from the singular value decomposition."""

from __future__ import annotations

import numpy as np

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import leading_columns, leading_rows
from alchemist_ray.mpi_backend.libraries.linalg.matrices import products
from alchemist_ray.mpi_backend.libraries.linalg.matrices.factors import Form
from alchemist_ray.mpi_backend.libraries.linalg.shapes import require_elements
from alchemist_ray.mpi_backend.libraries.linalg.spectral import full_svd


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
        If A is empty, or `atol` or `rtol` is negative.
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
    require_elements(ctx, A=A)
    for name, tolerance in (("atol", atol), ("rtol", rtol)):
        if tolerance is not None and not tolerance >= 0:
            raise ArgumentValueError(ctx.task, f"{name} must not be negative, but is {tolerance}")
    checks.require_finite(ctx, A=A)
    U, s, Vt = full_svd.factors(ctx, A)
    absolute = atol or 0.0
    relative = rtol if rtol is not None else max(A.shape) * float(np.finfo(A.dtype).eps)
    rank = int(np.count_nonzero(s > absolute + relative * float(s[0])))
    if rank == 0:
        B = checks.allocated(ctx, A.shape[::-1], A.dtype, "MC_MR")
        B.local[...] = 0
        return (B, rank) if return_rank else B
    left, right = leading_columns(U, rank), leading_rows(Vt, rank)
    left.local[...] /= s[left.cols.indices()]
    B = products.product(ctx, right, left, Form(True, True, True, True))
    return (B, rank) if return_rank else B
