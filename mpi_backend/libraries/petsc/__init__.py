"""PETSc's Krylov methods and preconditioners for sparse systems of linear equations.

PETSc and petsc4py have no wheels: they are built on the machine, over its MPI, and this library is there where they are
(``pip install petsc petsc4py`` with a compiler and the MPI of mpi4py). A matrix is handed over in its own rows, so
nothing moves but what PETSc itself exchanges.

What PETSc computes with (real or complex, single or double) was decided when it was built. Matrices are converted to
that; complex ones are refused by a real PETSc. Factorising preconditioners (ilu, icc, lu, and bjacobi and asm, which
factorise blocks) want every diagonal entry to be stored, if only as a zero: a rank without one fails alone, and the
group is ended.
"""

from __future__ import annotations

from typing import Any

from alchemist_ray.errors import ArgumentValueError, ConvergenceError, LibraryLoadError
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated, require_finite

try:
    from alchemist_ray.mpi_backend.libraries.petsc import objects
except ImportError as missing:
    raise LibraryLoadError(
        "petsc",
        f"{missing}. Install it where the workers run, over the MPI of mpi4py (it is compiled): "
        "pip install petsc petsc4py",
    ) from None

__version__ = "1.0"


@task
def solve(
    ctx: TaskContext,
    A: SparseDistMatrix,
    b: DistMatrix,
    *,
    ksp: str = "gmres",
    pc: str | None = None,
    rtol: float = 1e-8,
    atol: float = 0.0,
    maxiter: int = 10_000,
    options: dict[str, Any] | None = None,
    partial: bool = False,
) -> tuple[DistMatrix, dict[str, Any]]:
    """Solve A x = b by a preconditioned Krylov method.

    Parameters
    ----------
    A : SparseDistMatrix, shape (n, n)
        The matrix.
    b : DistMatrix, shape (n, k)
        One or several right-hand sides, in any layout.
    ksp : str
        PETSc's name of the method: ``"gmres"``, ``"cg"``, ``"bcgs"``, ``"minres"``, ``"fgmres"``, ``"preonly"``, ...
    pc : str, optional
        PETSc's name of the preconditioner: ``"jacobi"``, ``"bjacobi"``, ``"asm"``, ``"gamg"``, ``"ilu"`` and ``"lu"``
        (on one rank, or with a package for more), ``"none"``, ...; by default what PETSc chooses.
    rtol, atol : float
        The iteration ends when the (preconditioned) residual is below ``max(rtol * ||b||, atol)``.
    maxiter : int
        Largest number of iterations.
    options : dict, optional
        Options of PETSc for the method and the preconditioner, without the dash: ``{"ksp_gmres_restart": 50,
        "sub_pc_type": "ilu"}``. Those that print or write files are refused.
    partial : bool
        Whether to return what there is where the iteration did not converge.

    Returns
    -------
    x : DistMatrix, shape (n, k)
        The solutions, in VC_STAR.
    info : dict
        For each right-hand side, a list each: ``converged``, ``reason`` (PETSc's), ``iterations`` and ``residual``,
        which is the true ``||b - A x|| / ||b||``.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If types or shapes do not fit, or PETSc knows no such method, preconditioner or option.
    NonFiniteError
        If `A` or `b` contains NaN or Inf.
    ConvergenceError
        If a right-hand side did not converge, and `partial` is False.

    Notes
    -----
    Memory beside the result: a copy of `A`, what the preconditioner needs, and for GMRES 30 vectors.
    """
    n = A.shape[0]
    if A.shape[1] != n or b.shape[0] != n or 0 in b.shape:
        raise ArgumentValueError(
            ctx.task, f"A must be n x n and b n x k, with n and k 1 or more, not {A.shape}, {b.shape}"
        )
    if maxiter < 1 or not 0 <= rtol < 1 or atol < 0:
        raise ArgumentValueError(ctx.task, f"rtol={rtol}, atol={atol} and maxiter={maxiter} do not make a criterion")
    dtype = objects.require_scalars(ctx, A=A, b=b)
    require_finite(ctx, A=A, b=b)
    columns = b.relayout("VC_STAR").local
    x = allocated(ctx, b.shape, dtype, "VC_STAR")
    with objects.matrix(ctx, A) as matrix, objects.solver(ctx, matrix, ksp, pc, options or {}) as solver:
        solver.setTolerances(rtol=rtol, atol=atol, max_it=maxiter)
        solved = [objects.solved(ctx, solver, columns, x.local, column) for column in range(b.shape[1])]
    info = {name: [each[name] for each in solved] for name in ("converged", "reason", "iterations", "residual")}
    if not partial and not all(info["converged"]):
        worst = info["converged"].index(False)
        raise ConvergenceError(
            ctx.task,
            f"column {worst} did not converge: {info['reason'][worst]} after {info['iterations'][worst]} iterations of "
            f"{ksp}, ||b - A x|| / ||b|| = {info['residual'][worst]:.1e}. Try another preconditioner, a larger "
            "maxiter, or partial=True",
        )
    return x, info
