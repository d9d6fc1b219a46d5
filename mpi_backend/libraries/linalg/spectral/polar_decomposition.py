"""The polar decomposition.

If the singular value decomposition is cheap (see :mod:`.full_svd`), it gives the factors: with A = W diag(s) V^H they
are W V^H and V diag(s) V^H. Otherwise all ranks use the QR-based dynamically weighted Halley iteration (QDWH). A
rational function drives all singular values to 1; its weights follow from a lower bound on them. The iteration takes at
most six or seven rounds. Each round consists of products and a QR factorisation or, once the condition number is small,
a Cholesky factorisation, so it scales as these do. A matrix that is singular to working precision is made regular by a
random change as small as rounding errors; the factors are then those of this nearby matrix.

Sources: Y. Nakatsukasa, Z. Bai, F. Gygi, *Optimizing Halley's iteration for computing the matrix polar decomposition*,
SIAM J. Matrix Anal. Appl. 31 (2010), 2700; Y. Nakatsukasa, N. Higham, SIAM J. Sci. Comput. 35 (2013), A1325.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError, ConvergenceError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, one_rank, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.factorizations import condition, orthogonal
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.systems import solve
from alchemist_ray.mpi_backend.libraries.linalg.matrices import products, reductions
from alchemist_ray.mpi_backend.libraries.linalg.matrices.factors import Form
from alchemist_ray.mpi_backend.libraries.linalg.scaling import (
    linearly_scaled,
    safe_factor,
    scale_linearly,
    shift_exponents,
)
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.libraries.linalg.spectral import full_svd
from alchemist_ray.mpi_backend.libraries.linalg.spectral.lanczos import normal

Array = npt.NDArray[Any]

_ADJOINT_LEFT = Form(transpose_a=True, conjugate_a=True)
_ADJOINT_RIGHT = Form(transpose_b=True, conjugate_b=True)

_ROUNDS = 30
_CHOLESKY = 100.0
"""Largest weight c for which a round may use a Cholesky factorisation, which loses log10(c) digits."""


@task
def polar(ctx: TaskContext, A: DistMatrix, side: Literal["right", "left"] = "right") -> tuple[DistMatrix, DistMatrix]:
    """Return the polar decomposition A = U P, or A = P U.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix; float32, float64, complex64 or complex128.
    side : {"right", "left"}
        The side of P: "right" for A = U P, "left" for A = P U.

    Returns
    -------
    U : DistMatrix, shape (m, n)
        With orthonormal columns if m >= n, else with orthonormal rows. Unique if A has full rank.
    P : DistMatrix, shape (n, n) for "right", (m, m) for "left"
        Hermitian and positive semidefinite, up to rounding.

    Raises
    ------
    ArgumentError
        If A has another dtype.
    ArgumentValueError
        If `side` is not valid.
    NonFiniteError
        If A contains NaN or Inf.
    ConvergenceError
        If a singular value, or the iteration, does not converge.

    Notes
    -----
    Collective over comm. If :func:`svd` uses TSQR or LAPACK: its cost and memory, and two products. Otherwise QDWH
    (Nakatsukasa, Bai, Gygi, SIAM J. Matrix Anal. Appl. 31 (2010), 2700). Let n be the smaller side: at most about 50
    n^3 operations, after a QR factorisation if A is not square; eight distributed n x n matrices. ‖A − U P‖ and the
    orthogonality of U are of the order n eps.
    """
    checks.require_floating(ctx, A=A)
    if side not in ("right", "left"):
        raise ArgumentValueError(ctx.task, f"side must be 'right' or 'left', but is {side!r}")
    if small_problems.suits("polar", A.shape):
        found: tuple[DistMatrix, DistMatrix] = small_problems.solved(ctx, lambda A: _of_whole(A, side), A=A)
        return found
    checks.require_finite(ctx, A=A)
    A, exponent = linearly_scaled(A)
    by_one = full_svd.slender(A) or one_rank.preferred(ctx, A.shape, A.dtype)
    U, P = by_svd(ctx, A, side) if by_one else by_iteration(ctx, A, side)
    if exponent:
        shift_exponents(P.local, -exponent)
    return U, P


def _of_whole(A: Array, side: str) -> tuple[Whole, Whole]:
    """Return the results of :func:`polar` for a whole matrix. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    exponent = scale_linearly(MPI.COMM_SELF, A)
    W, s, Vh = scipy.linalg.svd(A, full_matrices=False, overwrite_a=True, check_finite=False)
    P = (Vh.conj().T * s) @ Vh if side == "right" else (W * s) @ W.conj().T
    if exponent:
        shift_exponents(P, -exponent)
    return Whole(W @ Vh), Whole(P)


def by_svd(ctx: TaskContext, A: DistMatrix, side: str) -> tuple[DistMatrix, DistMatrix]:
    """Return the factors from the singular value decomposition. Collective over comm."""
    W, s, Vt = full_svd.factors(ctx, A)
    U = products.product(ctx, W, Vt, Form())
    if side == "right":
        scaled = checks.new_like(Vt)
        np.multiply(Vt.local, s[Vt.rows.indices()][:, np.newaxis], out=scaled.local)
        return U, products.product(ctx, Vt, scaled, _ADJOINT_LEFT)
    scaled = checks.new_like(W)
    np.multiply(W.local, s[W.cols.indices()], out=scaled.local)
    return U, products.product(ctx, scaled, W, _ADJOINT_RIGHT)


def by_iteration(ctx: TaskContext, A: DistMatrix, side: str) -> tuple[DistMatrix, DistMatrix]:
    """Return the factors by QDWH. Collective over comm."""
    m, n = A.shape
    if m < n:
        Uh, P = by_iteration(ctx, _adjoint(A), "left" if side == "right" else "right")
        return _adjoint(Uh), P
    if m > n:
        Q, R = orthogonal.qr(ctx, A)
        U = products.product(ctx, Q, unitary_factor(ctx, R), Form())
    else:
        U = unitary_factor(ctx, A)
    P = products.product(ctx, *((U, A, _ADJOINT_LEFT) if side == "right" else (A, U, _ADJOINT_RIGHT)))
    Ph = _adjoint(P, P.layout)
    P.local[...] = (P.local + Ph.local) / 2
    return U, P


def unitary_factor(ctx: TaskContext, A: DistMatrix) -> DistMatrix:
    """Return the unitary factor of a square matrix, or if it is singular, of a nearby one. Collective over comm."""
    eps = float(np.finfo(A.dtype).eps)
    X, bound = _start(ctx, A, eps)
    for count in range(_ROUNDS):
        ctx.check_cancelled()
        ctx.progress(count, 8, "QDWH")
        weights = Weights.of(bound)
        step = _by_qr if weights.c > _CHOLESKY else _by_cholesky
        Y = step(ctx, X, weights)
        moved = reductions.norm(ctx, _plus(Y, X, -1.0), "fro")
        X, bound = Y, weights.next_bound
        if moved <= (5 * eps) ** (1 / 3) and abs(1 - bound) < 10 * eps:
            return X
    raise ConvergenceError(ctx.task, f"QDWH did not converge in {_ROUNDS} rounds")


@dataclass(frozen=True)
class Weights:
    """The weights of one round: singular values x become x (a + b x^2) / (1 + c x^2).

    Attributes
    ----------
    a, b, c : float
        The best weights for singular values between the bound and 1.
    next_bound : float
        The lower bound after this round.
    """

    a: float
    b: float
    c: float
    next_bound: float

    @classmethod
    def of(cls, bound: float) -> Weights:
        """Return the weights for singular values that are at least `bound`."""
        squared = bound * bound
        d = (4 * (1 - squared) / (squared * squared)) ** (1 / 3)
        root = math.sqrt(1 + d)
        a = root + math.sqrt(8 - 4 * d + 8 * (2 - squared) / (squared * root)) / 2
        b = (a - 1) ** 2 / 4
        c = a + b - 1
        return cls(a, b, c, min(1.0, bound * (a + b * squared) / (1 + c * squared)))


def _start(ctx: TaskContext, A: DistMatrix, eps: float) -> tuple[DistMatrix, float]:
    """Return A scaled to a norm of at most 1, on a grid, and a lower bound on its singular values. Collective."""
    n = A.shape[0]
    X = A.relayout("MC_MR")
    X = _scaled(X, safe_factor(ctx.comm, X.local))
    norm = math.sqrt(reductions.norm(ctx, X, 1) * reductions.norm(ctx, X, np.inf)) or 1.0
    X = _scaled(X, 1 / norm)
    number = condition.condest(ctx, X)  # infinite if a pivot is zero
    if number * math.sqrt(n) * n * eps < 1:
        return X, reductions.norm(ctx, X, 1) / (3 * number * math.sqrt(n))
    noise = normal(np.random.default_rng([0, ctx.comm.rank]), X.local.shape, X.dtype)
    X.local[...] += noise * X.local.real.dtype.type(eps / math.sqrt(n))
    return _scaled(X, 1 / (1 + 4 * eps)), eps / (100 * n)


def _by_qr(ctx: TaskContext, X: DistMatrix, weights: Weights) -> DistMatrix:
    """Return the next iterate by the QR factorisation of X stacked on a unit matrix. Collective over comm.

    Uses column pivoting, because the rows of the two differ in size by many orders of magnitude.
    """
    a, b, c = weights.a, weights.b, weights.c
    n = X.shape[0]
    columns = X.relayout("STAR_VC")
    stack = checks.new_like(X, (2 * n, n), "STAR_VC")
    stack.local[:n] = columns.local * X.local.real.dtype.type(math.sqrt(c))
    stack.local[n:] = np.arange(n)[:, np.newaxis] == stack.cols.indices()
    Q, _, _ = orthogonal.qr(ctx, stack, pivoting=True)
    whole = Q.relayout(stack.layout)
    Q1, Q2 = checks.new_like(columns), checks.new_like(columns)
    Q1.local[...], Q2.local[...] = whole.local[:n], whole.local[n:]
    Y = products.product(ctx, Q1, Q2, _ADJOINT_RIGHT).relayout(X.layout)
    return _plus(_scaled(Y, (a - b / c) / math.sqrt(c)), X, b / c)


def _by_cholesky(ctx: TaskContext, X: DistMatrix, weights: Weights) -> DistMatrix:
    """Return the next iterate by the Cholesky factorisation of I + c X^H X. Collective over comm."""
    a, b, c = weights.a, weights.b, weights.c
    Z = _scaled(products.product(ctx, X, X, _ADJOINT_LEFT).relayout(X.layout), c)
    held = np.intersect1d(Z.rows.indices(), Z.cols.indices())
    Z.local[Z.rows.to_local(held), Z.cols.to_local(held)] += 1
    Y = _adjoint(solve(ctx, Z, _adjoint(X), assume_a="pos"), X.layout)
    return _plus(_scaled(Y, a - b / c), X, b / c)


def _adjoint(A: DistMatrix, layout: Layout | str = "MC_MR") -> DistMatrix:
    """Return A^H. Collective over comm."""
    Ah = A.transpose(layout)
    if Ah.dtype.kind == "c":
        np.conjugate(Ah.local, out=Ah.local)
    return Ah


def _scaled(A: DistMatrix, factor: float) -> DistMatrix:
    """Return ``factor * A``. Collective over comm."""
    B = checks.new_like(A)
    np.multiply(A.local, A.local.real.dtype.type(factor), out=B.local)
    return B


def _plus(A: DistMatrix, B: DistMatrix, factor: float) -> DistMatrix:
    """Return ``A + factor * B`` for matrices with the same layout. Collective over comm."""
    C = _scaled(B, factor)
    C.local[...] += A.local
    return C
