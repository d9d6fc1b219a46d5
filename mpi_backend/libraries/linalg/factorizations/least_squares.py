"""Linear least squares with distributed matrices of any shape and rank.

The default method uses singular values, as in SciPy. For a long matrix they are those of the triangle of its TSQR, or
of the TSQR of its transpose; otherwise those of the whole matrix.

The other method is a complete orthogonal factorisation, which is several times faster for a matrix that is about
square. Pivoted QR gives A[:, p] = Q [R; 0] with as many rows in R as the rank, and R^H = Z [L^H; 0]; the solution of
minimum norm is Z L^-1 Q^H b. This method computes no singular values, and takes the rank from the diagonal of R.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, one_rank, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.elimination import diagonal
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.householder import Householder, row_layout
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.orthogonal import reflectors, triangle
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.panels import blocked, permute_rows
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.systems import require_rows, right_hand_sides
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.triangular import Form as TriangularForm
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.triangular import solve_triangular
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.tsqr import TSQR
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import leading_rows, on_grid
from alchemist_ray.mpi_backend.libraries.linalg.matrices import products
from alchemist_ray.mpi_backend.libraries.linalg.matrices.factors import Form
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safe_factor, safely_scaled, shift_exponents
from alchemist_ray.mpi_backend.libraries.linalg.slabs import slab_of
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.libraries.linalg.spectral import full_svd

Array = npt.NDArray[Any]

_WIDEST_TREE = 2000
"""Largest short side of a long matrix that is reduced to a triangle for one rank."""


@task
def lstsq(
    ctx: TaskContext,
    A: DistMatrix,
    b: DistMatrix,
    cond: float | None = None,
    lapack_driver: Literal["gelsd", "gelsy"] = "gelsd",
) -> tuple[DistMatrix, npt.NDArray[Any], int, npt.NDArray[Any] | None]:
    """Return the x of minimum norm that minimises ‖A x - b‖, for each column of b.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, of any shape and rank.
    b : DistMatrix, shape (m, nrhs)
        Right-hand sides. If the dtypes differ, NumPy's result type is used.
    cond : float, optional
        Singular values below `cond` times the largest count as zero; by default the precision of the dtype.
    lapack_driver : {"gelsd", "gelsy"}
        As in SciPy: "gelsd" uses singular values. "gelsy" uses a complete orthogonal factorisation; it returns no
        singular values, but is faster unless one side of A is much longer than the other.

    Returns
    -------
    x : DistMatrix, shape (n, nrhs)
        The solutions, in MC_MR.
    residues : ndarray, shape (nrhs,) or (0,)
        ‖A x - b‖^2 for each column if m > n and A has rank n; otherwise, and with "gelsy", empty, as in SciPy.
    rank : int
        The effective rank of A.
    s : ndarray, shape (min(m, n),), or None
        The singular values of A, descending; None with "gelsy".

    Raises
    ------
    ArgumentError
        If a matrix is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If b and A differ in their number of rows, `cond` is negative, or the driver is unknown.
    NonFiniteError
        If A or b contains NaN or Inf.
    ConvergenceError
        If the singular values do not converge.

    Notes
    -----
    Let m be the longer side and n the shorter. "gelsd": if n is at most 2,000 and each rank can have n rows, 2mn^2
    operations (TSQR) and an SVD of order n on one rank; two copies of A. Otherwise the full SVD, see :func:`svd`.
    "gelsy": 2.5 n^2 (m - n/3) operations, twice that if A is rank-deficient; one copy of A, or two. The rank is the
    number of diagonal elements of R above `cond` times the first. For matrices constructed for the purpose (Kahan's) it
    can be too large by about one. Source: G. H. Golub, C. F. Van Loan, *Matrix Computations* (2013), section 5.5.
    """
    dtype = checks.require_floating(ctx, A=A, b=b)
    require_rows(ctx, A.shape[0], b)
    _check(ctx, cond, lapack_driver)
    threshold = float(np.finfo(dtype).eps) if cond is None else cond
    if small_problems.suits("lstsq", A.shape, b.shape):
        work = lambda A, b: _of_whole(np.asarray(A, dtype), np.asarray(b, dtype), threshold, lapack_driver)  # noqa: E731
        solution: tuple[DistMatrix, Array, int, Array | None] = small_problems.solved(ctx, work, A=A, b=b)
        return solution
    checks.require_finite(ctx, A=A, b=b)
    A, factor = safely_scaled(checks.converted(A, dtype))
    b, factor_b = safely_scaled(checks.converted(b, dtype))
    p, q = sorted(A.shape)
    s: Array | None = None
    if lapack_driver == "gelsy":
        x, rank = _by_pivoting(ctx, A, b, threshold)
    elif p <= max(32, min(q // ctx.comm.size, _WIDEST_TREE)):
        x, rank, s = _by_tree(ctx, A, b, threshold)
    else:
        x, rank, s = _by_svd(ctx, A, b, threshold)
    m, n = A.shape
    residues = np.empty(0, b.local.real.dtype)
    if s is not None and m > n == rank:
        residues = _residues(ctx, A, x, b)
    residues, s = _unscaled(x.local, residues, s, factor, factor_b)
    return x, residues, rank, s


def _unscaled(x: Array, residues: Array, s: Array | None, factor: float, factor_b: float) -> tuple[Array, Array | None]:
    """Undo the scaling of A and b: correct `x` in place; return squared residuals and singular values. Local."""
    shift_exponents(x, math.frexp(factor)[1] - math.frexp(factor_b)[1])
    with np.errstate(over="ignore"):  # squares may overflow even if the residuals do not
        return residues / factor_b / factor_b, None if s is None else s / factor


def _of_whole(A: Array, b: Array, threshold: float, driver: str) -> tuple[Whole, Array, int, Array | None]:
    """Return the results of :func:`lstsq` for whole matrices. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    m, n, nrhs = *A.shape, b.shape[1]
    # LAPACK needs at least one column, and the rank must be computed anyway.
    columns = b if nrhs else np.zeros((m, 1), b.dtype)
    factors = [safe_factor(MPI.COMM_SELF, X) for X in (A, columns)]
    for X, factor in zip((A, columns), factors, strict=True):
        if factor != 1:
            X *= X.real.dtype.type(factor)
    x, residues, rank, s = scipy.linalg.lstsq(
        A, columns, threshold, overwrite_a=True, overwrite_b=True, check_finite=False, lapack_driver=driver
    )
    x, residues = x[:, :nrhs], np.asarray(residues)[:nrhs] if m > n == rank else np.empty(0, columns.real.dtype)
    residues, s = _unscaled(x, residues if driver == "gelsd" else residues[:0], s, *factors)
    return Whole(x), residues, int(rank), s if driver == "gelsd" else None


def _check(ctx: TaskContext, cond: float | None, driver: str) -> None:
    if cond is not None and not cond >= 0:
        raise ArgumentValueError(ctx.task, f"cond must not be negative, but is {cond}")
    if driver not in ("gelsd", "gelsy"):
        raise ArgumentValueError(ctx.task, f"lapack_driver must be 'gelsd' or 'gelsy', but is {driver!r}")


# --- by singular values -----------------------------------------------------------------------------------------------


def _by_tree(ctx: TaskContext, A: DistMatrix, b: DistMatrix, threshold: float) -> tuple[DistMatrix, int, Array]:
    """Solve with the SVD of the TSQR triangle of a long matrix, or of a wide one's transpose. Collective over comm."""
    slab = slab_of(A)
    tree = TSQR.of(ctx, slab.local, slab.shape[0])
    P, s, Wh = full_svd.triangle_svd(ctx, tree.R) or (None, None, None)
    P, s, Wh = (ctx.comm.bcast(part, one_rank.ROOT) for part in (P, s, Wh))
    rank = _rank(s, threshold)
    P, inverse, Wh = P[:, :rank], (1 / s[:rank])[:, np.newaxis], Wh[:rank]
    if not slab.flipped:  # A = Q R
        projected = tree.apply_adjoint(b.relayout(_beside(slab.layout, b.shape[1])).local)
        return checks.replicated(ctx, Wh.conj().T @ (inverse * (P.conj().T @ projected)), "MC_MR"), rank, s
    # A^T = Q R with R = P diag(s) Wh, so the pseudoinverse of A is conj(Q P) diag(1/s) conj(Wh)
    x = checks.allocated(ctx, (A.shape[1], b.shape[1]), A.dtype, _beside(slab.layout, b.shape[1]))
    x.local[...] = tree.apply(P @ (inverse * (Wh @ b.to_global().conj()))).conj()
    return x.relayout("MC_MR"), rank, s


def _beside(layout: Layout, k: int) -> Layout:
    """Return the layout of `k` columns whose rows are distributed as in `layout`. Local."""
    return dataclasses.replace(layout, block=(layout.block[0], max(k, 1)))


def _by_svd(ctx: TaskContext, A: DistMatrix, b: DistMatrix, threshold: float) -> tuple[DistMatrix, int, Array]:
    """Solve with the singular value decomposition of the whole matrix. Collective over comm."""
    shape = A.shape[1], b.shape[1]
    if one_rank.preferred(ctx, A.shape, A.dtype):
        whole, sides = one_rank.gathered(A), one_rank.gathered(b)
        count = full_svd.operations(A.shape, vectors=True)
        found = one_rank.run(ctx, count, A.dtype, lambda: _by_lapack(whole, sides, threshold))
        x, rank, s = found or (None, None, None)
        rank, s = ctx.comm.bcast((rank, s), one_rank.ROOT)
        return one_rank.dealt(ctx, x, shape, A.dtype), int(rank), s
    U, s, Vt = full_svd.factors(ctx, A)
    rank = _rank(s, threshold)
    inverse = np.zeros_like(s)
    inverse[:rank] = 1 / s[:rank]
    adjoint = Form(transpose_a=True, conjugate_a=True)
    Y = products.product(ctx, U, b, adjoint)
    Y.local[...] *= inverse[Y.rows.indices()][:, np.newaxis]
    return products.product(ctx, Vt, Y, adjoint).relayout("MC_MR"), rank, s


def _by_lapack(A: Array | None, b: Array | None, threshold: float) -> tuple[Array, int, Array]:
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    x, _, rank, s = scipy.linalg.lstsq(A, b, threshold, overwrite_a=True, overwrite_b=True, check_finite=False)
    return x, rank, s


def _rank(s: Array, threshold: float) -> int:
    return int(np.count_nonzero(s > threshold * s[0]))


# --- by pivoting ------------------------------------------------------------------------------------------------------


def _by_pivoting(ctx: TaskContext, A: DistMatrix, b: DistMatrix, threshold: float) -> tuple[DistMatrix, int]:
    """Solve with a complete orthogonal factorisation. Collective over comm."""
    factors = reflectors(ctx, A, pivoting=True)
    magnitudes = np.abs(diagonal(factors.work))
    rank = int(np.argmin(np.append(magnitudes, -1) > threshold * magnitudes[0]))
    C = b.relayout(row_layout(b.shape, ctx.comm.size))
    if C is b:
        C = checks.allocated(ctx, b.shape, b.dtype, b.layout)
        C.local[...] = b.local
    factors.apply_adjoint(C.local)
    n = A.shape[1]
    x = checks.allocated(ctx, (n, b.shape[1]), A.dtype, row_layout((n, b.shape[1]), ctx.comm.size))
    x.local[...] = 0
    if rank:
        _least_norm(ctx, leading_rows(triangle(factors), rank), leading_rows(C, rank), x)
    X = x.relayout("MC_MR")
    with blocked(X) as (rows,):
        permute_rows(rows, np.argsort(factors.jpvt))
    return X, rank


def _least_norm(ctx: TaskContext, R: DistMatrix, c: DistMatrix, x: DistMatrix) -> None:
    """Overwrite `x`, which is zero, with the solution of minimum norm of R x = c; R has full rank. Collective."""
    rank, n = R.shape
    if rank == n:
        x.local[...] = _solved(R, c, "N").relayout(x.layout).local
        return
    work = R.transpose(row_layout((n, rank), ctx.comm.size))
    np.conjugate(work.local, out=work.local)
    factors = Householder.of(ctx, work, pivoting=False)  # R^H = Z [T; 0]
    y = _solved(triangle(factors), c, "C").relayout(c.layout)
    x.local[: y.rows.size] = y.local
    factors.apply(x.local)


def _solved(T: DistMatrix, c: DistMatrix, form: TriangularForm) -> DistMatrix:
    """Return the solution of op(T) y = c for an upper triangular T. Collective over comm."""
    T = on_grid(T)
    X = right_hand_sides(c, T)
    with blocked(T, X) as (upper, y):
        solve_triangular(upper, y, form, lower=False)
    return X


def _residues(ctx: TaskContext, A: DistMatrix, x: DistMatrix, b: DistMatrix) -> Array:
    """Return the sum of squares of each column of A x - b. Collective over comm."""
    product = products.product(ctx, A, x, Form()).relayout("VC_STAR")
    difference = product.local - b.relayout(product.layout).local
    squares: Array = (difference.real**2 + difference.imag**2).sum(axis=0)
    squares = np.zeros(b.shape[1], squares.dtype) + squares
    ctx.comm.Allreduce(MPI.IN_PLACE, squares)
    return squares
