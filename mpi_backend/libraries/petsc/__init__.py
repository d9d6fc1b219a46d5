"""PETSc's Krylov methods and preconditioners for sparse systems of linear equations.

PETSc and petsc4py have no wheels; pip compiles them on the machine against its MPI (``pip install petsc petsc4py``,
which needs a compiler and the MPI of mpi4py). Linux distributions have them for their own Python and MPI, in which the
workers of a server can run (``--python /usr/bin/python3 --mpi site``). This library loads only where they are
installed. PETSc gets each rank's rows as they are, so only PETSc itself moves data between ranks.

The scalar type of PETSc (real or complex, single or double) was fixed when it was built. Matrices are converted to it;
a PETSc for real numbers refuses complex matrices. Preconditioners that factorise (ilu, icc, lu, and bjacobi and asm,
which factorise blocks) need every diagonal entry to be stored, even if it is zero. A rank that lacks one fails alone,
and then the group is ended.
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
        f"{missing}. Install it where the workers run: pip install petsc petsc4py. This compiles PETSc, which needs a "
        "compiler and the MPI of mpi4py. Or run the workers in a Python that has it, such as that of Debian with "
        "python3-petsc4py: --python /usr/bin/python3 --mpi site",
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
        (these two on one rank, or with a parallel package), ``"none"``, ...; by default PETSc chooses.
    rtol, atol : float
        The iteration ends when the (preconditioned) residual is below ``max(rtol * ||b||, atol)``.
    maxiter : int
        Largest number of iterations.
    options : dict, optional
        Options of PETSc for the method and the preconditioner, without the dash: ``{"ksp_gmres_restart": 50,
        "sub_pc_type": "ilu"}``. Options that print or write files are refused.
    partial : bool
        Whether to return the last iterate if the iteration did not converge.

    Returns
    -------
    x : DistMatrix, shape (n, k)
        The solutions, in VC_STAR.
    info : dict
        Lists with one entry per right-hand side: ``converged``, ``reason`` (PETSc's), ``iterations`` and ``residual``,
        the true ``||b - A x|| / ||b||``.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If types or shapes do not fit, or PETSc does not know the method, the preconditioner or an option.
    NonFiniteError
        If `A` or `b` contains NaN or Inf.
    ConvergenceError
        If a right-hand side did not converge, and `partial` is False.

    Notes
    -----
    Memory beside the result: a copy of `A`, the memory of the preconditioner, and for GMRES 30 vectors.
    """
    n = A.shape[0]
    if A.shape[1] != n or b.shape[0] != n or 0 in b.shape:
        raise ArgumentValueError(
            ctx.task, f"A must be n x n and b n x k, with n and k 1 or more, not {A.shape}, {b.shape}"
        )
    if maxiter < 1 or not 0 <= rtol < 1 or atol < 0:
        raise ArgumentValueError(
            ctx.task, f"maxiter must be 1 or more, 0 <= rtol < 1 and atol >= 0, not {maxiter=}, {rtol=}, {atol=}"
        )
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
