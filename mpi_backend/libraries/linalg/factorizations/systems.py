"""Linear systems with distributed matrices: the task solve, and the factors that it and similar tasks use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError, NotPositiveDefiniteError, SingularMatrixError
from alchemist_ray.layouts.layout import DEFAULT_BLOCK, Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, small_problems, whole_factorizations
from alchemist_ray.mpi_backend.libraries.linalg.factorizations import elimination, positive_definite
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.panels import blocked, permute_rows
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.triangular import Form, solve_triangular
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import grid_copy, on_grid
from alchemist_ray.mpi_backend.libraries.linalg.scaling import scale_linearly, shift_exponents, triangle_exponent
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

Array = npt.NDArray[Any]

_STRUCTURES = {
    "gen": "gen",
    "general": "gen",
    "sym": "sym",
    "symmetric": "sym",
    "her": "her",
    "hermitian": "her",
    "pos": "pos",
    "positive definite": "pos",
    "lower triangular": "lower",
    "upper triangular": "upper",
}


@task
def solve(
    ctx: TaskContext,
    A: DistMatrix,
    b: DistMatrix,
    lower: bool = False,
    *,
    transposed: bool = False,
    assume_a: Literal[
        "gen",
        "general",
        "sym",
        "symmetric",
        "her",
        "hermitian",
        "pos",
        "positive definite",
        "lower triangular",
        "upper triangular",
    ] = "gen",
) -> DistMatrix:
    """Return x such that A x = b, or A^T x = b.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix.
    b : DistMatrix, shape (n, nrhs)
        Right-hand sides. If the dtypes differ, NumPy's result type is used.
    lower : bool
        For "pos", "sym" and "her": whether to read the lower triangle of A instead of the upper one.
    transposed : bool
        Whether to solve with A^T (not conjugated).
    assume_a : str
        Known structure of A: "gen" (or "general"); "pos" ("positive definite"), solved by a Cholesky factorisation at
        half the cost; "sym" or "her" ("symmetric", "hermitian"), which reads one triangle but costs as much as "gen";
        "lower triangular" or "upper triangular", which reads only that triangle.

    Returns
    -------
    x : DistMatrix, shape (n, nrhs)
        In the layout of b.

    Raises
    ------
    ArgumentError
        If a matrix is not float32, float64, complex64 or complex128.
    ArgumentValueError
        If A is not square, b has a different number of rows, or `assume_a` is not valid.
    NonFiniteError
        If A or b contains NaN or Inf.
    SingularMatrixError
        If a pivot, or an element of the diagonal of a triangular matrix, is exactly zero. A matrix that only rounding
        keeps from being singular gives no error; check it with :func:`condest`.
    NotPositiveDefiniteError
        If `assume_a` is "pos" and A is not positive definite.

    Notes
    -----
    LU with partial pivoting: 2/3 n^3 + 2 n^2 nrhs operations (four times that in complex numbers); "pos" takes n^3/3 +
    2 n^2 nrhs. Memory: one copy of A (two for "sym" and "her") and two of b. See :mod:`.elimination`,
    :mod:`.positive_definite` and :mod:`.triangular`.
    """
    dtype = checks.require_floating(ctx, A=A, b=b)
    structure = _structure(ctx, assume_a)
    require_square(ctx, A=A)
    require_rows(ctx, A.shape[0], b)
    form: Form = "T" if transposed else "N"
    if small_problems.suits("solve", A.shape, b.shape):

        def work(A: Array, b: Array) -> Whole:
            A, b = np.asarray(A, dtype, "F"), np.asarray(b, dtype, "F")
            return Whole(_solved_whole(ctx.task, A, b, structure, lower, form), b_layout)

        b_layout = b.layout
        return cast("DistMatrix", small_problems.solved(ctx, work, A=A, b=b))
    checks.require_finite(ctx, A=A, b=b)
    A = checks.converted(A, dtype)
    if structure in ("sym", "her"):
        return LU.overwriting(ctx, _mirrored(A, lower, conjugate=structure == "her")).solve(ctx, b, form)
    if structure == "gen":
        return LU.of(ctx, A).solve(ctx, b, form)
    if structure == "pos":
        return Cholesky.of(ctx, A, lower).solve(b, transposed)
    T = on_grid(A)
    T, exponent = scaled_triangle(T, structure == "lower", require_regular(ctx, T))
    X = right_hand_sides(b, T)
    shift = exponent - scale_linearly(X.comm, X.local)
    with blocked(T, X) as (triangle, x):
        solve_triangular(triangle, x, form, lower=structure == "lower")
    if shift:
        shift_exponents(X.local, shift)
    return X.relayout(b.layout)


def _solved_whole(task: str, A: Array, b: Array, structure: str, lower: bool, form: Form) -> Array:
    """Solve with whole matrices, which are overwritten; return the solution. Local."""
    if structure in ("lower", "upper"):
        whole_factorizations.require_regular(task, A)
        return whole_factorizations.solve_triangular(A, b, form, lower=structure == "lower")
    if structure == "pos":
        factor, exponent = whole_factorizations.cholesky_factor(task, A, lower)
        transposed = form == "T"
        return whole_factorizations.solve_by_cholesky(factor, b, lower=lower, exponent=exponent, transposed=transposed)
    if structure in ("sym", "her"):
        A = whole_factorizations.mirrored(A, lower, conjugate=structure == "her")
    return whole_factorizations.regular(task, A).solve(b, form)


def scaled_triangle(T: DistMatrix, lower: bool, pivots: Array, twice: bool = False) -> tuple[DistMatrix, int]:
    """Return a triangle with the diagonal `pivots`, scaled if necessary, and the exponent. Collective over comm."""
    exponent = triangle_exponent(T, lower, pivots, twice)
    if exponent:
        T = grid_copy(T)
        with np.errstate(over="ignore"):
            shift_exponents(T.local, exponent)
    return T, exponent


@dataclass(frozen=True)
class LU:
    """The factors of a square matrix times a power of two, 2^exponent A = P L U.

    Attributes
    ----------
    factors : DistMatrix
        L without its unit diagonal, and U, in square blocks on a grid.
    piv : ndarray of int64
        Row i was exchanged with row ``piv[i]``, for each i in turn.
    exponent : int
        See :func:`~alchemist_ray.mpi_backend.libraries.linalg.scaling.linear_exponent`.
    """

    factors: DistMatrix
    piv: npt.NDArray[np.int64]
    exponent: int = 0

    @classmethod
    def of(cls, ctx: TaskContext, A: DistMatrix) -> LU:
        """Factor a copy of `A`. Collective over comm.

        Raises
        ------
        SingularMatrixError
            If a pivot is exactly zero.
        """
        return cls.overwriting(ctx, grid_copy(A))

    @classmethod
    def overwriting(cls, ctx: TaskContext, factors: DistMatrix) -> LU:
        """Factor a matrix in square blocks on a grid in place; raises like :meth:`of`. Collective over comm."""
        exponent = scale_linearly(ctx.comm, factors.local)
        piv = elimination.eliminate(ctx, factors)
        require_regular(ctx, factors)
        return cls(factors, piv, exponent)

    def solve(self, ctx: TaskContext, b: DistMatrix, form: Form) -> DistMatrix:
        """Return x such that op(A) x = b, in the layout of b. Collective over comm."""
        X = right_hand_sides(b, self.factors)
        self.overwrite(X, form)
        return X.relayout(b.layout)

    def overwrite(self, X: DistMatrix, form: Form) -> None:
        """Overwrite `X`, the result of :func:`right_hand_sides`, with the solution. Collective over comm."""
        order = elimination.permutation(self.piv, self.factors.shape[0])
        shift = self.exponent - scale_linearly(X.comm, X.local)
        with blocked(self.factors, X) as (T, x):
            if form == "N":
                permute_rows(x, order)
                solve_triangular(T, x, form, lower=True, unit=True)
                solve_triangular(T, x, form, lower=False)
            else:
                solve_triangular(T, x, form, lower=False)
                solve_triangular(T, x, form, lower=True, unit=True)
                permute_rows(x, np.argsort(order))
        if shift:
            shift_exponents(X.local, shift)


@dataclass(frozen=True)
class Cholesky:
    """The factor of a positive definite matrix times a power of four: 4^exponent A = L L^H or U^H U.

    Attributes
    ----------
    factor : DistMatrix
        The factor, in square blocks on a grid; the other triangle is ignored.
    lower : bool
        Whether it is L.
    exponent : int
        See :func:`~alchemist_ray.mpi_backend.libraries.linalg.scaling.linear_exponent`.
    """

    factor: DistMatrix
    lower: bool
    exponent: int = 0

    @classmethod
    def of(cls, ctx: TaskContext, A: DistMatrix, lower: bool) -> Cholesky:
        """Factor a copy of `A`. Collective over comm.

        Raises
        ------
        NotPositiveDefiniteError
            If `A` is not positive definite.
        """
        factor = grid_copy(A)
        exponent = scale_linearly(ctx.comm, factor.local, even=True) // 2
        order = positive_definite.decompose(ctx, factor, lower)
        if order:
            raise NotPositiveDefiniteError(ctx.task, "A", order)
        return cls(factor, lower, exponent)

    def solve(self, b: DistMatrix, transposed: bool = False) -> DistMatrix:
        """Return x such that A x = b or A^T x = b, in the layout of b. Collective over comm."""
        X = right_hand_sides(b, self.factor)
        shift = 2 * self.exponent - scale_linearly(X.comm, X.local)
        conjugate = transposed and X.dtype.kind == "c"  # A^T is the conjugate of A
        if conjugate:
            np.conjugate(X.local, out=X.local)
        first: Form = "N" if self.lower else "C"
        second: Form = "C" if self.lower else "N"
        with blocked(self.factor, X) as (T, x):
            solve_triangular(T, x, first, lower=self.lower)
            solve_triangular(T, x, second, lower=self.lower)
        if conjugate:
            np.conjugate(X.local, out=X.local)
        if shift:
            shift_exponents(X.local, shift)
        return X.relayout(b.layout)


def _mirrored(A: DistMatrix, lower: bool, *, conjugate: bool) -> DistMatrix:
    """Return the symmetric or Hermitian matrix with the given triangle of `A`, on a grid. Collective over comm."""
    S, conjugate = grid_copy(A), conjugate and A.dtype.kind == "c"
    T = S.transpose(S.layout)
    if conjugate:
        np.conjugate(T.local, out=T.local)
    for iloc, i in enumerate(S.rows.indices().tolist()):
        first, last = S.cols.local_range(0, i)[1], S.cols.local_range(0, i + 1)[1]
        other = slice(last, None) if lower else slice(first)
        S.local[iloc, other] = T.local[iloc, other]
        if conjugate:
            S.local[iloc, first:last].imag = 0
    return S


def right_hand_sides(b: DistMatrix, T: DistMatrix) -> DistMatrix:
    """Return a copy of `b` for systems with `T`: with the grid, blocks and type of `T`. Collective over comm.

    Raises
    ------
    MatrixMemoryError
        If a rank has not enough memory for its part; the other ranks raise PeerFailedError.
    """
    X = b.relayout(right_hand_layout(T, b.shape[1]))
    if X is not b and X.dtype == T.dtype:
        return X
    with Agreement(b.comm):
        copy = X.new(X.shape, X.layout, T.dtype)
    copy.local[...] = X.local
    return copy


def right_hand_layout(T: DistMatrix, nrhs: int) -> Layout:
    """Return the layout of `nrhs` right-hand sides for systems with `T`. Local."""
    grid = T.layout.grid
    return Layout("MC_MR", grid, (T.layout.block[0], max(1, min(DEFAULT_BLOCK, -(-nrhs // grid.npcol)))))


def require_square(ctx: TaskContext, **matrices: DistMatrix) -> None:
    """Check that the named matrices are square. Local.

    Raises
    ------
    ArgumentValueError
        If one is not.
    """
    for name, A in matrices.items():
        m, n = A.shape
        if m != n:
            raise ArgumentValueError(ctx.task, f"{name} must be square, but is {m}x{n}")


def require_rows(ctx: TaskContext, m: int, b: DistMatrix) -> None:
    """Check that `b` has `m` rows. Local.

    Raises
    ------
    ArgumentValueError
        If it has not.
    """
    if b.shape[0] != m:
        raise ArgumentValueError(
            ctx.task, f"A has {m} rows, so b must have {m} rows, but it is {b.shape[0]}x{b.shape[1]}"
        )


def require_regular(ctx: TaskContext, T: DistMatrix) -> Array:
    """Check that the diagonal of a triangular matrix has no zero, and return it. Collective over comm.

    Raises
    ------
    SingularMatrixError
        On every rank, if it has a zero.
    """
    pivots = elimination.diagonal(T)
    zeros = np.flatnonzero(pivots == 0)
    if zeros.size:
        raise SingularMatrixError(ctx.task, "A", int(zeros[0]) + 1)
    return pivots


def _structure(ctx: TaskContext, assume_a: str) -> str:
    try:
        return _STRUCTURES[assume_a]
    except KeyError:
        known = ", ".join(map(repr, _STRUCTURES))
        raise ArgumentValueError(ctx.task, f"assume_a must be one of {known}, but is {assume_a!r}") from None
