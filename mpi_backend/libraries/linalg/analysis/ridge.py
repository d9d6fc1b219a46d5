"""Ridge regression by conjugate gradients, on the matrix itself or on random features of its rows.

This is the speech recognition case of the KDD 2018 paper. The samples of a matrix are mapped to random Fourier features
Z. Then

    min |Z W - Y|^2 / n + lambda |W|^2,   i.e.   (Z^T Z + n lambda I) W = Z^T Y

is solved for all columns of Y at once (:mod:`.conjugate_gradients`). If the workers have enough memory, the features
are stored; otherwise they are computed again in every iteration, some samples at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from alchemist_ray.errors import ArgumentValueError, MatrixMemoryError, PeerFailedError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.analysis.conjugate_gradients import (
    NormalEquations,
    Panels,
    ReportIteration,
    WholePanel,
    conjugate_gradients,
)
from alchemist_ray.mpi_backend.libraries.linalg.analysis.fourier_features import RandomFeatures, features_of, stored
from alchemist_ray.mpi_backend.libraries.linalg.analysis.samples import Samples, dealt_like, require_real, samples_of
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safe_factor, safely_scaled, shift_exponents


@task
def ridge_cg(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    B: DistMatrix,
    reg_param: float = 1e-5,
    tol: float = 1e-6,
    max_iterations: int = 500,
) -> dict[str, Any]:
    """Return the solution of ``min |A X - B|^2 / n + reg_param |X|^2``, by conjugate gradients.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (n, d)
        The matrix.
    B : DistMatrix, shape (n, c)
        Right-hand sides. If the dtypes differ, the wider one is used.
    reg_param : float
        lambda in ``(A^H A + n lambda I) X = A^H B``; scikit-learn's alpha of Ridge is ``n * reg_param``. 0 is allowed.
    tol : float
        Bound for the residual of each column of these equations, relative to the column of A^H B.
    max_iterations : int
        Largest number of iterations. The number needed grows at most like the root of the condition number of
        A^H A + n lambda I.

    Returns
    -------
    dict
        - ``coef``: DistMatrix, shape (d, c), in VC_STAR: X.
        - ``residuals``: ndarray, shape (n_iter + 1, c): the relative residuals of the columns, before the first
          iteration and after each one; the last ones are true residuals.
        - ``n_iter``: int, number of iterations.
        - ``converged``: bool, whether all last residuals are within tol. If not, no error is raised.

    Raises
    ------
    ArgumentError
        If a matrix is not of a floating-point type.
    ArgumentValueError
        If B has a different number of rows than A, a matrix is empty, or a number is out of range.
    NonFiniteError
        If a matrix contains NaN or Inf.

    Notes
    -----
    4ndc operations per iteration. Memory: four distributed d x c matrices and two on each rank; also copies of A and B
    if they are not in VC_STAR with one run of rows per rank, or if their squares would overflow or underflow. Sources:
    see :mod:`.conjugate_gradients`.
    """
    dtype = checks.require_floating(ctx, A=A, B=B)
    _check(ctx, A, B, reg_param, tol, max_iterations)
    checks.require_finite(ctx, A=A, B=B)
    samples = samples_of(checks.converted(A, dtype) if isinstance(A, DistMatrix) else A)
    if samples.dtype != dtype:
        samples = Samples(samples.comm, samples.shape, samples.layout, samples.local.astype(dtype))
    factor = _safe_factor(samples, reg_param)
    Z, targets = WholePanel(samples.scaled(factor)), checks.converted(B, dtype)
    return _solved(ctx, samples, Z, targets, reg_param, tol, max_iterations, factor)


@task
def rf_ridge(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    B: DistMatrix,
    n_features: int,
    sigma: float = 1.0,
    reg_param: float = 1e-5,
    tol: float = 1e-6,
    max_iterations: int = 500,
    seed: int = 0,
    store: bool | None = None,
) -> dict[str, Any]:
    """Return ridge regression on random Fourier features: an approximation of kernel ridge regression.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (n, d)
        The samples in rows, float32 or float64.
    B : DistMatrix, shape (n, c)
        Targets to predict for each sample; for a classification, 1 in the column of its class and 0 or -1 elsewhere.
        Converted to the precision of A.
    n_features : int
        Number of features; the error of the kernel decreases with the square root of their number.
    sigma : float
        Width of the Gaussian kernel; see :func:`random_features`.
    reg_param, tol : float
        Regularisation, and the residual at which the iteration ends; see :func:`ridge_cg`.
    max_iterations : int
        Largest number of iterations.
    seed : int
        Seed of the features; see :func:`random_features`.
    store : bool, optional
        Whether to store the features, n x n_features numbers, instead of computing them again in every iteration. By
        default they are stored if the workers have enough memory.

    Returns
    -------
    dict
        The result of :func:`ridge_cg`, with ``coef`` of shape (n_features, c). :func:`rf_predict` applies it to
        samples.

    Raises
    ------
    ArgumentError
        If a matrix is not float32 or float64.
    ArgumentValueError
        If B has a different number of rows than A, a matrix is empty, or a number is out of range.
    NonFiniteError
        If a matrix contains NaN or Inf.
    MatrixMemoryError
        If `store` is true and a worker has not enough memory for the features; the other ranks raise PeerFailedError.

    Notes
    -----
    With D features: 4nDc operations per iteration. Computing the features takes 2ndD operations and nD cosines, once
    or, if they are not stored, in each iteration. Memory: that of :func:`ridge_cg` for the features, and d x D numbers
    on each rank. Sources: A. Rahimi, B. Recht, NIPS 2007; A. Gittens et al., KDD 2018, 293.
    """
    require_real(ctx, A=A, B=B)
    _check(ctx, A, B, reg_param, tol, max_iterations)
    features = features_of(ctx, A, n_features, sigma, seed)
    checks.require_finite(ctx, B=B)
    targets = checks.converted(B, features.dtype)
    return _solved(ctx, features.samples, _kept(ctx, features, store), targets, reg_param, tol, max_iterations)


@task
def rf_predict(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, coef: DistMatrix, sigma: float = 1.0, seed: int = 0
) -> DistMatrix:
    """Return the predictions of a ridge regression on random features.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (n, d)
        The samples in rows, float32 or float64.
    coef : DistMatrix, shape (n_features, c)
        Coefficients from :func:`rf_ridge`.
    sigma : float
        The sigma that was passed to :func:`rf_ridge`.
    seed : int
        The seed that was passed to :func:`rf_ridge`.

    Returns
    -------
    Y : DistMatrix, shape (n, c)
        The predictions, in VC_STAR.

    Raises
    ------
    ArgumentError
        If a matrix is not float32 or float64.
    ArgumentValueError
        If a matrix is empty, or sigma is not positive.
    NonFiniteError
        If a matrix contains NaN or Inf.

    Notes
    -----
    2nd n_features operations and n n_features cosines. The features are not stored. Memory: A in VC_STAR, and on each
    rank coef and d x n_features numbers.
    """
    require_real(ctx, A=A, coef=coef)
    checks.require_finite(ctx, coef=coef)
    features = features_of(ctx, A, coef.shape[0], sigma, seed)
    W = coef.to_global().astype(features.dtype, copy=False)
    layout = Layout("VC_STAR", features.samples.layout.grid, (features.samples.layout.block[0], max(1, W.shape[1])))
    Y = checks.allocated(ctx, (A.shape[0], W.shape[1]), features.dtype, layout)
    for rows, panel in features.panels():
        np.matmul(panel, W, out=Y.local[rows])
        ctx.progress(rows.stop, features.samples.height, "prediction")
    return Y


def _check(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    B: DistMatrix,
    reg_param: float,
    tol: float,
    max_iterations: int,
) -> None:
    """Check the arguments of a regression. Local."""
    if A.shape[0] != B.shape[0] or 0 in (*A.shape, *B.shape):
        raise ArgumentValueError(
            ctx.task,
            f"A is {A.shape[0]}x{A.shape[1]}, B is {B.shape[0]}x{B.shape[1]}: both must have the same number of rows "
            "and must not be empty",
        )
    if not 0 <= reg_param < math.inf or not tol > 0 or max_iterations < 1:
        raise ArgumentValueError(
            ctx.task,
            "reg_param must be finite and not negative, tol positive, max_iterations at least 1, but they are "
            f"{reg_param}, {tol} and {max_iterations}",
        )


def _kept(ctx: TaskContext, features: RandomFeatures, store: bool | None) -> Panels:
    """Return the stored features, or `features` if `store` is False or memory is short. Collective over comm."""
    if store is False:
        return features
    try:
        return WholePanel(stored(ctx, features))
    except (MatrixMemoryError, PeerFailedError):
        if store:
            raise
        return features


def _safe_factor(samples: Samples, reg_param: float) -> float:
    """Return a power of two for which squares of the samples, and the scaled shift, do not overflow. Collective."""
    factor, shift = safe_factor(samples.comm, samples.elements), reg_param * samples.shape[0]
    if factor > 1 and shift > 0:
        factor = max(1.0, min(factor, math.ldexp(1.0, -(math.frexp(shift)[1] // 2))))
    return factor


def _solved(
    ctx: TaskContext,
    samples: Samples,
    Z: Panels,
    B: DistMatrix,
    reg_param: float,
    tol: float,
    max_iterations: int,
    factor: float = 1.0,
) -> dict[str, Any]:
    """Return the solution for Z / factor; the rows of Z are distributed as in `samples`. Collective over comm."""
    shape = (Z.shape[1], B.shape[1])
    layout = Layout.of("VC_STAR", shape, ctx.comm.size)
    equations = NormalEquations(ctx.comm, Z, reg_param * samples.shape[0] * factor * factor, layout)
    scaled, factor_b = safely_scaled(dealt_like(B, samples))
    targets = equations.right_hand_side(scaled.local)
    found = conjugate_gradients(equations, targets, tol, max_iterations, _progress(ctx, tol))
    coef = checks.allocated(ctx, shape, Z.dtype, layout)
    coef.local[...] = found.X
    shift_exponents(coef.local, math.frexp(factor)[1] - math.frexp(factor_b)[1])
    ctx.progress(1, 1, "done")
    return {
        "coef": coef,
        "residuals": found.residuals,
        "n_iter": len(found.residuals) - 1,
        "converged": found.converged,
    }


def _progress(ctx: TaskContext, tol: float) -> ReportIteration:
    """Return a function that reports the progress of the iteration, measured by its correct digits."""

    def progress(count: int, residual: float) -> None:
        done = math.log(max(residual, tol)) / math.log(min(tol, 0.5))
        ctx.check_cancelled()
        ctx.progress(min(max(0.0, done), 0.99), 1, f"conjugate gradients, iteration {count}, residual {residual:.1e}")

    return progress
