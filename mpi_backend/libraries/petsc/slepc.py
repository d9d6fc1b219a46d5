"""SLEPc's Krylov-Schur method for some eigenvalues of sparse matrices, with SciPy's names and arguments.

SLEPc is built on PETSc, and this library loads only where slepc4py is installed. The remarks in
:mod:`alchemist_ray.mpi_backend.libraries.petsc` about PETSc apply here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError, ConvergenceError, LibraryLoadError
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated, require_finite, require_rank
from alchemist_ray.mpi_backend.libraries.petsc import objects

try:
    import slepc4py

    slepc4py.init([])
    from slepc4py import SLEPc
except ImportError as missing:
    raise LibraryLoadError(
        "slepc",
        f"{missing}. Install it where the workers run: pip install slepc slepc4py. This compiles SLEPc against the "
        "installed PETSc. Or run the workers in a Python that has it: --python /usr/bin/python3 --mpi site",
    ) from None

__version__ = "1.0"

_WHICH = {
    "LM": "LARGEST_MAGNITUDE",
    "SM": "SMALLEST_MAGNITUDE",
    "LA": "LARGEST_REAL",
    "SA": "SMALLEST_REAL",
    "LR": "LARGEST_REAL",
    "SR": "SMALLEST_REAL",
    "LI": "LARGEST_IMAGINARY",
    "SI": "SMALLEST_IMAGINARY",
}
_SAME = 1e-8
"""Eigenvalues that differ by less, relative to the largest one, are the same one."""
_ASYMMETRY = 1e-4  # rounding in single precision reaches this in sums over large matrices


@task
def eigsh(
    ctx: TaskContext,
    A: SparseDistMatrix,
    k: int = 6,
    sigma: float | None = None,
    which: str = "LM",
    maxiter: int | None = None,
    tol: float = 0.0,
) -> tuple[npt.NDArray[Any], DistMatrix]:
    """Return some eigenvalues and eigenvectors of a symmetric (Hermitian) matrix.

    Parameters
    ----------
    A : SparseDistMatrix, shape (n, n)
        The matrix.
    k : int
        Number of eigenvalues, ``1 <= k <= n``.
    sigma : float, optional
        Find the eigenvalues nearest to `sigma` by shift and invert. PETSc must be able to factorise `A`; on more than
        one rank this takes a package such as MUMPS.
    which : str
        ``"LM"`` (largest in magnitude), ``"SM"``, ``"LA"`` (largest) or ``"SA"``; ignored if `sigma` is given.
    maxiter : int, optional
        Largest number of restarts.
    tol : float
        Relative accuracy; 0 means 1e-12.

    Returns
    -------
    w : ndarray, shape (k,)
        Eigenvalues, ascending.
    V : DistMatrix, shape (n, k)
        Eigenvectors, of norm 1, in VC_STAR.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If types, shapes or arguments do not fit, or `A` is not symmetric.
    NonFiniteError
        If `A` contains NaN or Inf.
    ConvergenceError
        If fewer than k eigenvalues converged.

    Notes
    -----
    A Krylov method may miss copies of a multiple eigenvalue. So SLEPc then looks once more, orthogonally to the
    eigenvectors that it has found. This takes about as long as to find one eigenvalue.
    """
    _require(ctx, A, k, which, ("LM", "SM", "LA", "SA"))
    dtype = objects.require_scalars(ctx, A=A)
    with objects.matrix(ctx, A) as matrix:
        if not _is_symmetric(matrix):
            raise ArgumentValueError(ctx.task, "A is not symmetric (Hermitian): use eigs")
        values, vectors = _with_all_copies(ctx, matrix, k, sigma, which, maxiter, tol)
    order = np.argsort(values.real)
    V = allocated(ctx, (A.shape[0], k), dtype, "VC_STAR")
    if V.local.size:
        V.local[...] = vectors[:, order] if dtype.kind == "c" else vectors[:, order].real
    return values.real[order], V


@task
def eigs(
    ctx: TaskContext,
    A: SparseDistMatrix,
    k: int = 6,
    sigma: float | None = None,
    which: str = "LM",
    maxiter: int | None = None,
    tol: float = 0.0,
) -> tuple[npt.NDArray[Any], DistMatrix]:
    """Return some eigenvalues and eigenvectors, both complex128, of a square matrix.

    Parameters and errors are those of :func:`eigsh`, except that `which` is ``"LM"``, ``"SM"``, ``"LR"`` (largest real
    part), ``"SR"``, ``"LI"`` or ``"SI"``. The eigenvalues are sorted by `which`.
    """
    _require(ctx, A, k, which, ("LM", "SM", "LR", "SR", "LI", "SI"))
    objects.require_scalars(ctx, A=A)
    with objects.matrix(ctx, A) as matrix:
        values, vectors = _solve(ctx, matrix, SLEPc.EPS.ProblemType.NHEP, k, sigma, which, maxiter, tol)
    V = allocated(ctx, (A.shape[0], k), np.complex128, "VC_STAR")
    if V.local.size:
        V.local[...] = vectors
    return values, V


def _require(ctx: TaskContext, A: SparseDistMatrix, k: int, which: str, known: tuple[str, ...]) -> None:
    if A.shape[0] != A.shape[1]:
        raise ArgumentValueError(ctx.task, f"A must be square, not {A.shape[0]}x{A.shape[1]}")
    require_rank(ctx, "k", k, A.shape)
    if which not in known:
        raise ArgumentValueError(ctx.task, f"which must be one of {', '.join(known)}, not {which!r}")
    require_finite(ctx, A=A)


def _is_symmetric(matrix: Any) -> bool:
    """Whether A x and A^H x are the same for a random x. Collective over comm."""
    x, y = matrix.createVecs()
    z = y.duplicate()
    x.setRandom()
    matrix.mult(x, y)
    matrix.multHermitian(x, z)
    size = y.norm() + z.norm()
    z.axpy(-1, y)
    error = z.norm()
    for vector in (x, y, z):
        vector.destroy()
    return bool(error <= _ASYMMETRY * size)


def _with_all_copies(
    ctx: TaskContext, A: Any, k: int, sigma: float | None, which: str, maxiter: int | None, tol: float
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what :func:`_solve` returns for a Hermitian A, with all copies of multiple eigenvalues.

    Orthogonally to all eigenvectors that were found, look for an eigenvalue that is wanted more than the least wanted
    of those; if there is one, it replaces that one. Collective over comm.
    """
    kind = SLEPc.EPS.ProblemType.HEP
    values, vectors = _solve(ctx, A, kind, k, sigma, which, maxiter, tol)
    known = [_vector(A, vectors[:, i]) for i in range(k)]
    try:
        while len(known) < A.getSize()[0]:
            try:
                value, vector = _solve(ctx, A, kind, 1, sigma, which, maxiter, tol, known)
            except ConvergenceError:
                break
            last = int(np.argmax(_order(values, sigma, which)))
            gain = _order(values, sigma, which)[last] - _order(value, sigma, which)[0]
            if not ctx.comm.bcast(gain > _SAME * np.abs(values).max()):
                break
            known.append(_vector(A, vector[:, 0]))
            values[last], vectors[:, last] = value[0], vector[:, 0]
    finally:
        for each in known:
            each.destroy()
    return values, vectors


def _vector(A: Any, local: npt.NDArray[Any]) -> Any:
    """Return a vector in the rows of `A`. Collective over comm."""
    made = A.createVecRight()
    made.setArray(local if made.getArray().dtype.kind == "c" else local.real)
    return made


def _order(values: npt.NDArray[Any], sigma: float | None, which: str) -> npt.NDArray[Any]:
    """Return numbers that are the smaller the more an eigenvalue is wanted."""
    if sigma is not None:
        return np.asarray(np.abs(values.real - sigma))
    wanted = np.abs(values) if which[1] == "M" else values.real
    return np.asarray(wanted if which[0] == "S" else -wanted)


def _solve(
    ctx: TaskContext,
    A: Any,
    kind: Any,
    k: int,
    sigma: float | None,
    which: str,
    maxiter: int | None,
    tol: float,
    known: Sequence[Any] = (),
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return k eigenvalues, and this rank's rows of their eigenvectors, orthogonal to known ones. Collective over A."""
    solver = SLEPc.EPS().create(comm=ctx.comm)
    real, imaginary = A.createVecs()
    try:
        solver.setOperators(A)
        solver.setProblemType(kind)
        solver.setDimensions(nev=k)
        solver.setTolerances(tol=tol or 1e-12, **({"max_it": maxiter} if maxiter else {}))
        solver.setWhichEigenpairs(getattr(SLEPc.EPS.Which, _WHICH[which]))
        solver.setDeflationSpace(list(known))
        if sigma is not None:
            solver.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
            solver.setTarget(sigma)
            solver.getST().setType(SLEPc.ST.Type.SINVERT)
        with objects.refused(ctx, f"this eigenproblem (sigma={sigma})"):
            solver.solve()
        if solver.getConverged() < k:
            raise ConvergenceError(
                ctx.task,
                f"{solver.getConverged()} of {k} eigenvalues converged in {solver.getIterationNumber()} restarts: "
                "increase maxiter or tol, or give sigma",
            )
        values = np.empty(k, np.complex128)
        vectors = np.empty((real.getLocalSize(), k), np.complex128)
        for i in range(k):
            values[i] = solver.getEigenpair(i, real, imaginary)
            vectors[:, i] = real.getArray() + 1j * imaginary.getArray()
        return values, vectors
    finally:
        for each in (solver, real, imaginary):
            each.destroy()
