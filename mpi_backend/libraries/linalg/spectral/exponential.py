"""The exponential of a matrix by scaling and squaring.

A is divided by 2^s, a diagonal Padé approximant of degree m = 3, 5, 7, 9 or 13 is computed, and the result is squared s
times. We choose the cheapest m and s that keep the backward error below the unit roundoff. The choice uses norms of
powers, ‖A^p‖^(1/p). For a matrix far from normal these are much smaller than ‖A‖, so it is not scaled too much. Norms
of powers that are computed anyway are exact; the others are estimated by products with a few vectors.

All work is in products of distributed matrices, and in one linear system with n right-hand sides.

Source: A. Al-Mohy, N. Higham, *A new scaling and squaring algorithm for the matrix exponential*, SIAM J. Matrix Anal.
Appl. 31 (2009), 970, algorithm 5.1.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.factorizations import condition, systems
from alchemist_ray.mpi_backend.libraries.linalg.matrices import products, reductions
from alchemist_ray.mpi_backend.libraries.linalg.matrices.factors import Form
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safe_factor
from alchemist_ray.mpi_backend.libraries.linalg.shapes import require_square
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole

Array = npt.NDArray[Any]

_THETA = {3: 1.495585217958292e-2, 5: 2.539398330063230e-1, 7: 9.504178996162932e-1, 9: 2.097847961257068, 13: 4.25}
"""For each degree the largest ‖A^p‖^(1/p) for which its approximant is accurate in double precision."""

_LARGE_NORM = 1e3


@task
def expm(ctx: TaskContext, A: DistMatrix) -> DistMatrix:
    """Return the exponential of a square matrix.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix; float32, float64, complex64 or complex128.

    Returns
    -------
    E : DistMatrix, shape (n, n)
        The exponential, in MC_MR. If elements overflow their type, it contains Inf and NaN. If that happens before the
        last squaring, no element is finite.

    Raises
    ------
    ArgumentError
        If A has another dtype.
    ArgumentValueError
        If A is not square.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    Collective over comm. Scaling and squaring with Padé approximants: 2 to 6 matrix products, s more for the squaring
    (about log2 of the norm), and a linear system. Each product takes 2n^3 operations, and the system 8/3 n^3. Memory
    for nine copies of A. The backward error is of the order n eps ‖A‖; its effect on E depends on the conditioning of
    the exponential. Source: Al-Mohy and Higham, SIAM J. Matrix Anal. Appl. 31 (2009), 970, algorithm 5.1.
    """
    checks.require_floating(ctx, A=A)
    require_square(ctx, A=A)
    if small_problems.suits("expm", A.shape):
        return cast("DistMatrix", small_problems.solved(ctx, _of_whole, A=A))
    checks.require_finite(ctx, A=A)
    return _by_squaring(ctx, A)


def _of_whole(A: Array) -> Whole:
    """Return the exponential of a whole matrix by SciPy, or by ours if powers would overflow in SciPy. Local."""
    import scipy.linalg  # imported late: it takes longer than a worker takes to start

    with np.errstate(over="ignore", invalid="ignore"):
        if A.size == 0 or np.abs(A).sum(axis=0).max() < _LARGE_NORM:
            return Whole(scipy.linalg.expm(A).astype(A.dtype, copy=False))
    alone = TaskContext(MPI.COMM_SELF, "expm")
    return Whole(_by_squaring(alone, alone.from_replicated(np.ascontiguousarray(A), "MC_MR")).local)


def _by_squaring(ctx: TaskContext, A: DistMatrix) -> DistMatrix:
    """Return the exponential of a finite matrix. Collective over comm."""
    powers = Powers(ctx, A)
    m, s = powers.degree()
    E = powers.approximant(m, s)
    for count in range(s + powers.scaled_before):
        ctx.check_cancelled()
        ctx.progress(count, s + powers.scaled_before, "squaring")
        if not _finite(E):
            E.local[np.isfinite(E.local)] = np.nan  # finite elements are wrong: squarings are missing
            break
        with np.errstate(over="ignore", invalid="ignore"):
            E = _times(ctx, E, E)
    return E


def _finite(A: DistMatrix) -> bool:
    """Whether `A` has neither NaN nor Inf. Collective over comm."""
    return bool(A.comm.allreduce(checks.is_finite(A.local), MPI.LAND))


class Powers:
    """The even powers of a matrix, computed when needed, and norms of powers. Creating one is collective over comm.

    Parameters
    ----------
    ctx : TaskContext
        Context of the task.
    A : DistMatrix, n x n
        The matrix, which is not changed.

    Attributes
    ----------
    scaled_before : int
        The matrix is first divided by 2 to this power, so that its tenth power does not overflow.
    """

    def __init__(self, ctx: TaskContext, A: DistMatrix) -> None:
        self._ctx, self._n = ctx, A.shape[0]
        A = A.relayout("MC_MR")
        factor = safe_factor(ctx.comm, A.local)  # the norm itself may overflow
        norm = reductions.norm(ctx, A if factor == 1 else _multiplied(A, factor), 1)
        spare = float(np.finfo(A.dtype).maxexp) / 11
        self.scaled_before = max(0, math.ceil(math.log2(norm) - math.log2(factor) - spare)) if norm > 0 else 0
        if self.scaled_before:
            A = _multiplied(A, math.ldexp(1.0, -self.scaled_before))
        self._norm = norm / factor if self.scaled_before == 0 else norm * (2.0**-self.scaled_before / factor)
        self._known = {1: A}
        self._diagonal = _held_diagonal(A)

    def degree(self) -> tuple[int, int]:
        """Return the degree of the approximant and the number of squarings. Collective over comm."""
        if self._norm == 0:
            return 3, 0
        for m, roots in ((3, (4, 6)), (5, (4, 6)), (7, (6, 8)), (9, (6, 8))):
            if m >= 5:
                self.power(4)
            if m >= 7:
                self.power(6)
            if max(map(self.root, roots)) <= _THETA[m] and self._excess(m, 0) == 0:
                return m, 0
        eta = min(max(self.root(6), self.root(8)), max(self.root(8), self.root(10)))
        s = max(0, math.ceil(math.log2(eta / _THETA[13]))) if eta > 0 else 0
        return 13, s + self._excess(13, s)

    def power(self, p: int) -> DistMatrix:
        """Return A^p for p = 1 or an even p, and compute it if necessary. Collective over comm."""
        if p not in self._known:
            self._ctx.progress(p / 10, 2, f"power {p}")
            half = 2 * (p // 4) if p > 2 else 1
            self._known[p] = _times(self._ctx, self.power(half), self.power(p - half))
        return self._known[p]

    def root(self, p: int) -> float:
        """Return ‖A^p‖^(1/p) in the 1-norm, estimated if A^p was not computed. Collective over comm."""
        if p in self._known:
            return float(reductions.norm(self._ctx, self._known[p], 1) ** (1 / p))
        parts = {4: (2, 2), 6: (2, 2, 2), 8: (4, 4), 10: (4, 6)}[p]
        factors = [self.power(part) for part in parts]

        def apply(X: Array) -> Array:
            for factor in reversed(factors):
                X = _applied(factor, X)
            return X

        def adjoint(X: Array) -> Array:
            for factor in factors:
                X = _adjoint_applied(factor, X)
            return X

        return float(condition.one_norm(self._n, factors[0].dtype, apply, adjoint) ** (1 / p))

    def _excess(self, m: int, s: int) -> int:
        """Return the additional squarings that rounding in the approximant of A / 2^s requires. Collective over comm.

        Uses the norm of a power of |A|, which products with a vector give exactly, because no element is negative.
        """
        magnitudes = np.abs(self._known[1].local)
        rows, cols = self._known[1].rows.indices(), self._known[1].cols.indices()
        x = np.full(self._n, 1.0)
        log_norm = 0.0
        for _ in range(2 * m + 1):
            y = np.zeros(self._n)
            y[cols] = magnitudes.T @ x[rows].astype(magnitudes.dtype)
            self._ctx.comm.Allreduce(MPI.IN_PLACE, y)
            largest = float(y.max())
            if largest == 0:
                return 0
            x, log_norm = y / largest, log_norm + math.log2(largest)
        reciprocal = math.log2(math.comb(2 * m, m)) + math.log2(math.factorial(2 * m + 1))
        roundoff = math.log2(float(np.finfo(magnitudes.dtype).eps) / 2)
        excess = log_norm - math.log2(self._norm) - 2 * m * s - reciprocal - roundoff
        return int(self._ctx.comm.bcast(max(0, math.ceil(excess / (2 * m)))))

    def approximant(self, m: int, s: int) -> DistMatrix:
        """Return the diagonal Padé approximant of degree `m` to the exponential of A / 2^s. Collective over comm."""
        b = _coefficients(m)
        for p in range(2, 7 if m == 13 else m, 2):
            self.power(p)
        self._divide(s)
        if m == 13:
            odd = self._sixth_times(0.0, b[9], b[11], b[13])
            even = self._sixth_times(0.0, b[8], b[10], b[12])
            odd.local[...] += self._sum(*b[1:8:2])
            even.local[...] += self._sum(*b[0:8:2])
        else:
            A = self._known[1]
            odd, even = _like(A, self._sum(*b[1::2])), _like(A, self._sum(*b[0::2]))
        U = _times(self._ctx, self._known[1], odd).local
        denominator = _like(even, even.local - U)
        even.local[...] += U
        return systems.solve(self._ctx, denominator, even)

    def _divide(self, s: int) -> None:
        """Divide the matrix by 2^s. Local."""
        if s == 0:
            return
        A = self._known[1]
        self._known[1] = _multiplied(A, math.ldexp(1.0, -s))
        for p in self._known.keys() - {1}:
            self._known[p].local[...] *= A.local.real.dtype.type(math.ldexp(1.0, -s * p))

    def _sum(self, *coefficients: float) -> Array:
        """Return this rank's block of the sum of ``coefficients[k] A^(2k)``. Local."""
        total = np.zeros_like(self._known[1].local)
        total[self._diagonal] = coefficients[0]
        for k, coefficient in enumerate(coefficients[1:], 1):
            total += self._known[2 * k].local * total.real.dtype.type(coefficient)
        return total

    def _sixth_times(self, *coefficients: float) -> DistMatrix:
        """Return A^6 times the sum of ``coefficients[k] A^(2k)``. Collective over comm."""
        A = self._known[1]
        return _times(self._ctx, self._known[6], _like(A, self._sum(*coefficients)))


def _coefficients(m: int) -> list[float]:
    """Return the numerator's coefficients, with 1 for the highest power; the denominator's alternate in sign."""
    return [float(math.comb(m, j) * math.factorial(2 * m - j) // math.factorial(m)) for j in range(m + 1)]


def _times(ctx: TaskContext, A: DistMatrix, B: DistMatrix) -> DistMatrix:
    """Return A B in the layout of A. Collective over comm."""
    return products.product(ctx, A, B, Form()).relayout(A.layout)


def _like(A: DistMatrix, local: Array) -> DistMatrix:
    """Return a matrix with the shape and layout of `A` and this block. Local."""
    return DistMatrix(A.comm, A.shape, A.layout, local, A.allocate)


def _multiplied(A: DistMatrix, factor: float) -> DistMatrix:
    """Return ``factor * A``. Local."""
    return _like(A, A.local * A.local.real.dtype.type(factor))


def _held_diagonal(A: DistMatrix) -> tuple[Array, Array]:
    """Return the local indices of this rank's diagonal elements. Local."""
    held = np.intersect1d(A.rows.indices(), A.cols.indices())
    return A.rows.to_local(held), A.cols.to_local(held)


def _applied(A: DistMatrix, X: Array) -> Array:
    """Return A X; every rank passes the same X. Collective over comm."""
    Y = np.zeros(X.shape, np.result_type(A.dtype, X.dtype))
    Y[A.rows.indices()] = A.local @ X[A.cols.indices()]
    A.comm.Allreduce(MPI.IN_PLACE, Y)
    return Y


def _adjoint_applied(A: DistMatrix, X: Array) -> Array:
    """Return A^H X; every rank passes the same X. Collective over comm."""
    Y = np.zeros(X.shape, np.result_type(A.dtype, X.dtype))
    Y[A.cols.indices()] = (A.local.T @ X[A.rows.indices()].conj()).conj()
    A.comm.Allreduce(MPI.IN_PLACE, Y)
    return Y
