"""The inverse of a distributed matrix."""

from __future__ import annotations

from typing import cast

import numpy as np

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems, whole_factorizations
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.systems import LU, require_square, right_hand_layout
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole


@task
def inv(ctx: TaskContext, A: DistMatrix) -> DistMatrix:
    """Return the inverse of a square matrix.

    To solve A x = b, use :func:`solve` instead: it takes a third of the time and is more accurate.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix.

    Returns
    -------
    C : DistMatrix, shape (n, n)
        The inverse, in MC_MR.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If A is not square.
    NonFiniteError
        If A contains NaN or Inf.
    SingularMatrixError
        If a pivot of the LU factorisation is exactly zero. A matrix that only rounding keeps from being singular gives
        no error; check it with :func:`condest`.

    Notes
    -----
    LU, then a solution for each column of the identity: 8/3 n^3 operations (four times that in complex numbers), at the
    speed of BLAS, and one copy of A beside the result. Each column has a small residual A c - e, which p?getri does not
    guarantee. Source: N. J. Higham, *Accuracy and Stability of Numerical Algorithms* (2002), section 14.3, method A.
    """
    checks.require_floating(ctx, A=A)
    require_square(ctx, A=A)
    if small_problems.suits("inv", A.shape):
        work = lambda A: Whole(whole_factorizations.regular(ctx.task, A).inverse())  # noqa: E731 - one expression
        return cast("DistMatrix", small_problems.solved(ctx, work, A=A))
    checks.require_finite(ctx, A=A)
    factors = LU.of(ctx, A)
    X = checks.allocated(ctx, A.shape, A.dtype, right_hand_layout(factors.factors, A.shape[1]))
    X.local[...] = np.equal.outer(X.rows.indices(), X.cols.indices())
    factors.overwrite(X, "N")
    return X
