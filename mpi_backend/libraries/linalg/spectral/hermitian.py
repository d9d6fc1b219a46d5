"""Eigenvalues and eigenvectors of symmetric and Hermitian matrices.

One rank (see :mod:`..one_rank`) calls LAPACK's ?syevr or ?heevr through SciPy: reduction to tridiagonal form, then
multiple relatively robust representations. All ranks together call ScaLAPACK: p?syevd (divide and conquer) for
eigenvectors, always all of them, and p?syevr for eigenvalues only, because its vectors for tight clusters are not
orthogonal. p?syevr sometimes fails; then p?syevd computes the eigenvalues as well.

Only one triangle is read. The row-major storage of a Hermitian A is the column-major storage of its conjugate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentError, ArgumentValueError, ConvergenceError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks, one_rank, small_problems
from alchemist_ray.mpi_backend.libraries.linalg.grid_matrices import grid_copy
from alchemist_ray.mpi_backend.libraries.linalg.shapes import require_square
from alchemist_ray.mpi_backend.libraries.linalg.small_problems import Whole
from alchemist_ray.mpi_backend.scalapack import spectral
from alchemist_ray.mpi_backend.scalapack.spectral import Wanted

Array = npt.NDArray[Any]


@task
def eigh(
    ctx: TaskContext,
    A: DistMatrix,
    lower: bool = True,
    eigvals_only: bool = False,
    subset_by_index: list[int] | None = None,
    subset_by_value: list[float] | None = None,
) -> tuple[npt.NDArray[Any], DistMatrix] | npt.NDArray[Any]:
    """Return eigenvalues and eigenvectors of a symmetric or Hermitian matrix, A V = V diag(w).

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix; float32, float64, complex64 or complex128. Only one triangle is read.
    lower : bool
        Whether to read the lower triangle.
    eigvals_only : bool
        Whether to compute eigenvalues only.
    subset_by_index : [int, int], optional
        First and last index of the wanted eigenvalues, counted from 0 in ascending order.
    subset_by_value : [float, float], optional
        Half-open interval ``(low, high]`` of the wanted eigenvalues; its ends may be infinite.

    Returns
    -------
    w : ndarray, shape (k,)
        Eigenvalues, ascending; real. Empty if none lies in the interval.
    V : DistMatrix, shape (n, k)
        Orthonormal eigenvectors, in MC_MR. With `eigvals_only` only `w` is returned.

    Raises
    ------
    ArgumentError
        If A has another dtype, or both subsets are given.
    ArgumentValueError
        If A is not square, or a subset is out of range.
    NonFiniteError
        If A contains NaN or Inf, in either triangle.
    ConvergenceError
        If an eigenvalue does not converge.

    Notes
    -----
    Collective over comm. If all ranks share a host and eight copies of A fit in half its memory, or if n is at most
    1,000: LAPACK's ?syevr / ?heevr on rank 0, with the threads of all ranks. Otherwise p?syevd / p?heevd, or for
    eigenvalues only p?syevr / p?heevr: three distributed copies of A, and a subset costs as much as all. The
    eigenvalues take 4/3 n^3 operations, and k eigenvectors 2n^2 k to 4n^3 more. Residuals and orthogonality are of the
    order n eps.

    Sources: I. Dhillon, B. Parlett, C. Vömel, ACM TOMS 32 (2006), 533 (?syevr); F. Tisseur, J. Dongarra, SIAM J. Sci.
    Comput. 20 (1999), 2223 (p?syevd).
    """
    wanted = _checked(ctx, A, subset_by_index, subset_by_value)
    if small_problems.suits("eigh", A.shape):
        found: Any = small_problems.solved(ctx, lambda A: _of_whole(A, lower, wanted, not eigvals_only), A=A)
        return found  # type: ignore[no-any-return]  # as the signature says
    checks.require_finite(ctx, A=A)
    w, V = _decomposition(ctx, A, lower, wanted, vectors=not eigvals_only)
    return w if V is None else (w, V)


@task
def eigvalsh(
    ctx: TaskContext,
    A: DistMatrix,
    lower: bool = True,
    subset_by_index: list[int] | None = None,
    subset_by_value: list[float] | None = None,
) -> npt.NDArray[Any]:
    """Return eigenvalues of a symmetric or Hermitian matrix.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix; float32, float64, complex64 or complex128. Only one triangle is read.
    lower : bool
        Whether to read the lower triangle.
    subset_by_index : [int, int], optional
        First and last index of the wanted eigenvalues, counted from 0 in ascending order.
    subset_by_value : [float, float], optional
        Half-open interval ``(low, high]`` of the wanted eigenvalues; its ends may be infinite.

    Returns
    -------
    w : ndarray, shape (k,)
        Eigenvalues, ascending; real.

    Raises
    ------
    ArgumentError, ArgumentValueError, NonFiniteError, ConvergenceError
        As in :func:`eigh`.

    Notes
    -----
    Collective over comm. Like :func:`eigh` without the vectors: 4/3 n^3 operations.
    """
    wanted = _checked(ctx, A, subset_by_index, subset_by_value)
    if small_problems.suits("eigh", A.shape):
        values: Array = small_problems.solved(ctx, lambda A: _of_whole(A, lower, wanted, vectors=False), A=A)
        return values
    checks.require_finite(ctx, A=A)
    return _decomposition(ctx, A, lower, wanted, vectors=False)[0]


def _checked(ctx: TaskContext, A: DistMatrix, by_index: list[int] | None, by_value: list[float] | None) -> Wanted:
    """Check the arguments; return which eigenvalues are wanted. Local."""
    checks.require_floating(ctx, A=A)
    require_square(ctx, A=A)
    return _wanted(ctx, A.shape[0], by_index, by_value)


def _wanted(ctx: TaskContext, n: int, by_index: list[int] | None, by_value: list[float] | None) -> Wanted:
    """Check the two subset arguments and return the selection."""
    if by_index is not None and by_value is not None:
        raise ArgumentError(ctx.task, "subset_by_index and subset_by_value exclude each other: give one of them")
    if by_index is not None:
        if len(by_index) != 2 or not 0 <= by_index[0] <= by_index[1] < n:
            raise ArgumentValueError(
                ctx.task, f"subset_by_index must be two numbers with 0 <= first <= last < {n}, but is {by_index}"
            )
        return Wanted(indices=(int(by_index[0]), int(by_index[1])))
    if by_value is not None:
        if len(by_value) != 2 or not by_value[0] < by_value[1]:
            raise ArgumentValueError(ctx.task, f"subset_by_value must be two numbers, low < high, but is {by_value}")
        return Wanted(interval=(float(by_value[0]), float(by_value[1])))
    return Wanted()


def _decomposition(
    ctx: TaskContext, A: DistMatrix, lower: bool, wanted: Wanted, vectors: bool
) -> tuple[Array, DistMatrix | None]:
    where = on_one_rank if one_rank.preferred(ctx, A.shape, A.dtype) else on_all_ranks
    return where(ctx, A, lower, wanted, vectors)


def on_one_rank(
    ctx: TaskContext, A: DistMatrix, lower: bool, wanted: Wanted, vectors: bool
) -> tuple[Array, DistMatrix | None]:
    """Return eigenvalues, and eigenvectors if wanted, by LAPACK on one rank. Collective over comm."""
    ctx.progress(0, 1, "eigenvalues (LAPACK)")
    count = (16 / 3 if vectors else 4 / 3) * A.shape[0] ** 3
    w, V = one_rank.run_on(ctx, A, count, lambda whole: _by_lapack(whole, lower, wanted, vectors)) or (None, None)
    w = ctx.comm.bcast(w, one_rank.ROOT)
    return w, one_rank.dealt(ctx, V, (A.shape[0], len(w)), A.dtype) if vectors else None


def _by_lapack(A: Array, lower: bool, wanted: Wanted, vectors: bool) -> tuple[Array, Array | None]:
    """Return eigenvalues and eigenvectors of C-ordered `A`, which is destroyed. Local."""
    w, V = _by_columns(A.T, not lower, wanted, vectors)
    return w, np.conjugate(V, out=V) if V is not None and V.dtype.kind == "c" else V


def _of_whole(A: Array, lower: bool, wanted: Wanted, vectors: bool) -> Any:
    """Return the results of the tasks for a whole matrix. Local."""
    w, V = _by_columns(A, lower, wanted, vectors)
    return w if V is None else (w, Whole(V))


def _by_columns(A: Array, lower: bool, wanted: Wanted, vectors: bool) -> tuple[Array, Array | None]:
    """Return eigenvalues, and eigenvectors if wanted, of Fortran-ordered `A`, which is destroyed. Local."""
    import scipy.linalg  # takes longer than a worker takes to start

    found = scipy.linalg.eigh(
        A,
        lower=lower,
        eigvals_only=not vectors,
        overwrite_a=True,
        check_finite=False,
        subset_by_index=wanted.indices,
        subset_by_value=wanted.interval,
        driver="evr",
    )
    return found if vectors else (found, None)


def on_all_ranks(
    ctx: TaskContext, A: DistMatrix, lower: bool, wanted: Wanted, vectors: bool
) -> tuple[Array, DistMatrix | None]:
    """Return eigenvalues, and eigenvectors if wanted, by ScaLAPACK. Collective over comm."""
    ctx.progress(0, 1, "eigenvalues (ScaLAPACK)")
    if not vectors:
        values, info = spectral.heevr(grid_copy(A), lower, wanted.indices)
        if _agreed(ctx, info) == 0:
            values = ctx.comm.bcast(values)
            return (values[slice(*_within(values, wanted.interval))] if wanted.interval else values), None
    w, Vh, info = spectral.heevd(grid_copy(A), lower)
    if _agreed(ctx, info):
        raise ConvergenceError(ctx.task, f"p?syevd found no eigenvalues of the {A.shape[0]}x{A.shape[1]} matrix")
    w = ctx.comm.bcast(w)
    first, last = _selected(w, wanted)
    return w[first:last], _eigenvectors(ctx, Vh, first, last) if vectors else None


def _agreed(ctx: TaskContext, info: int) -> int:
    """Return the worst info of all ranks."""
    worst: int = ctx.comm.allreduce(abs(info), MPI.MAX)
    return worst


def _selected(w: Array, wanted: Wanted) -> tuple[int, int]:
    """Return the index range of the wanted eigenvalues, which are ascending."""
    if wanted.indices is not None:
        return wanted.indices[0], wanted.indices[1] + 1
    return (0, len(w)) if wanted.interval is None else _within(w, wanted.interval)


def _within(w: Array, interval: tuple[float, float]) -> tuple[int, int]:
    """Return the index range of the eigenvalues in ``(low, high]``; `w` is ascending."""
    low, high = np.searchsorted(w, interval, side="right")
    return int(low), int(high)


def _eigenvectors(ctx: TaskContext, Vh: DistMatrix, first: int, last: int) -> DistMatrix:
    """Return rows ``first .. last-1`` of V^H as columns of V in MC_MR. Collective over comm."""
    if first == last:
        return checks.allocated(ctx, (Vh.shape[1], 0), Vh.dtype, "MC_MR")
    columns = Vh.relayout("STAR_VC")
    chosen = checks.new_like(columns, (last - first, Vh.shape[1]))
    chosen.local[...] = columns.local[first:last]
    V = chosen.transpose("MC_MR")
    if V.dtype.kind == "c":
        np.conjugate(V.local, out=V.local)
    return V
