"""Estimates of condition numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import SingularMatrixError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.systems import LU, require_square
from alchemist_ray.mpi_backend.libraries.linalg.matrices import reductions
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safely_scaled, scale_linearly
from alchemist_ray.mpi_backend.libraries.linalg.whole_factorizations import WholeLU

Array = npt.NDArray[Any]
Apply = Callable[[Array], Array]
"""Multiplies an operator by columns that every rank holds. Collective."""

_COLUMNS = 2
_STEPS = 5


@task
def condest(ctx: TaskContext, A: DistMatrix) -> float:
    """Return an estimate of the condition number of a square matrix in the 1-norm, ``norm(A, 1) * norm(inv(A), 1)``.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix.

    Returns
    -------
    float
        Except for rounding never more than the condition number, mostly equal to it, and very rarely less than a third
        of it. Infinite if a pivot of the LU factorisation is exactly zero, or the inverse overflows the type.

    Raises
    ------
    ArgumentError
        If A is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If A is not square.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    LU, and about five solutions each with A and its conjugate transpose; one copy of A, or two at extreme scales.
    Sources: A. Gittens et al., *Alchemist: An Apache Spark <-> MPI interface*, Concurrency Computat. Pract. Exper. 31
    (2019), section 3.3 (the task); N. J. Higham, F. Tisseur, *A block algorithm for matrix 1-norm estimation*, SIAM J.
    Matrix Anal. Appl. 21 (2000), algorithm 2.4, with two columns, as in SciPy's ``onenormest``.
    """
    checks.require_floating(ctx, A=A)
    require_square(ctx, A=A)
    n = A.shape[0]
    if n == 0:
        return 0.0
    if small_problems.suits("condest", A.shape):
        return float(small_problems.solved(ctx, _exact, A=A))
    checks.require_finite(ctx, A=A)
    A, _ = safely_scaled(A)  # does not change the condition number, and keeps the inverse from overflowing
    try:
        factors = LU.of(ctx, A)
    except SingularMatrixError:
        return math.inf

    def inverse(X: Array) -> Array:
        return factors.solve(ctx, checks.replicated(ctx, X, "MC_MR"), "N").to_global()

    def adjoint(X: Array) -> Array:
        return factors.solve(ctx, checks.replicated(ctx, X, "MC_MR"), "C").to_global()

    with np.errstate(over="ignore", invalid="ignore"):
        estimate = reductions.norm(ctx, A, 1) * one_norm(n, A.dtype, inverse, adjoint)
    return math.inf if math.isnan(estimate) else estimate


def _exact(A: Array) -> float:
    """Return the condition number of a whole matrix. Local."""
    scale_linearly(MPI.COMM_SELF, A)
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.abs(A).sum(axis=0, dtype=float).max()
        factors = WholeLU.of(A)
        if (np.diagonal(factors.factors) == 0).any():
            return math.inf
        number = float(size * np.abs(factors.inverse()).sum(axis=0, dtype=float).max())
    return math.inf if math.isnan(number) else number


def one_norm(n: int, dtype: np.dtype[Any], apply: Apply, adjoint: Apply) -> float:
    """Return a lower estimate of the 1-norm of an n x n operator, the same on all ranks. Collective.

    Parameters
    ----------
    n : int
        Order, at least 1.
    dtype : dtype
        Type of the columns that the operator takes.
    apply, adjoint : callable
        Multiply the operator, and its conjugate transpose, by a few columns, shape (n, t), which are bitwise equal on
        all ranks.
    """
    rng = np.random.default_rng(0)
    columns = min(_COLUMNS, n)
    X = _unlike(rng, np.ones((n, columns)), 1).astype(dtype) / n
    estimate, tried, signs = 0.0, np.zeros(n, bool), np.empty((n, 0), dtype)
    for step in range(_STEPS):
        Y = apply(X)
        reached = float(np.abs(Y).sum(axis=0, dtype=float).max())
        if step and reached <= estimate:
            break
        estimate = reached
        before, signs = signs, _signs(Y)
        if dtype.kind == "f":
            if step and (np.abs(before.T @ signs).max(axis=0) == n).all():
                break  # the next columns have been tried already
            signs = _unlike(rng, signs, 0)
        rows = np.abs(adjoint(signs)).max(axis=1)
        rows[tried] = -1
        best = np.argsort(-rows, kind="stable")[:columns]
        best = best[rows[best] >= 0]
        if best.size == 0:
            break
        tried[best] = True
        X = np.zeros((n, best.size), dtype)
        X[best, np.arange(best.size)] = 1
    return estimate


def _signs(Y: Array) -> Array:
    """Return each element divided by its magnitude; 1 for zero. Local."""
    magnitudes = np.abs(Y)
    return np.divide(Y, magnitudes, out=np.ones_like(Y), where=magnitudes != 0)


def _unlike(rng: np.random.Generator, S: Array, first: int) -> Array:
    """Return the sign columns S; columns from `first` on are drawn again while parallel to an earlier one. Local."""
    S = S.copy()
    n = len(S)
    for j in range(first, S.shape[1]):
        for _ in range(10):
            if j == 0 or np.abs(S[:, :j].T @ S[:, j]).max() < n:
                break
            S[:, j] = rng.choice((-1.0, 1.0), n)
    return S
