"""PETSc matrices and solvers, made from our matrices and destroyed when the task ends.

PETSc starts without options from the command line, the environment or ``~/.petscrc``, and without its signal handlers,
which would hide those of the worker.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import petsc4py

from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext

os.environ.pop("PETSC_OPTIONS", None)
petsc4py.init(["alchemist", "-skip_petscrc", "-no_signal_handler"])

from petsc4py import PETSc  # noqa: E402 - the import starts PETSc with the options of init

Array = npt.NDArray[Any]

_OPTION = re.compile(
    r"(sub_|mg_(levels|coarse)_)?(ksp_(type|max_it|rtol|gmres_\w+|richardson_\w+|chebyshev_\w+)|pc_\w+)"
)
_PRINTING = re.compile(r"view|monitor|_dump|file|print")
_numbers = itertools.count()


def require_scalars(ctx: TaskContext, **matrices: DistMatrix | SparseDistMatrix) -> np.dtype[Any]:
    """Return the element type of results that are computed from these matrices. Local.

    Raises
    ------
    ArgumentError
        If one of them is complex and PETSc was built for real numbers.
    """
    for name, A in matrices.items():
        if A.dtype.kind == "c" and np.dtype(PETSc.ScalarType).kind != "c":
            raise ArgumentError(
                ctx.task, f"matrix {name} has dtype {A.dtype}, and the PETSc of this server was built for real numbers"
            )
    dtype = np.result_type(*(A.dtype for A in matrices.values()))
    return dtype if dtype.kind in "fc" else np.dtype(np.float64)


@contextlib.contextmanager
def matrix(ctx: TaskContext, A: SparseDistMatrix) -> Iterator[Any]:
    """Yield `A` as a PETSc matrix with the same rows on each rank; destroy it at the end. Collective over comm."""
    arrays = A.without_duplicates().arrays
    height, (m, n) = A.rows.size, A.shape
    width = height if m == n else PETSc.DECIDE
    made = PETSc.Mat().createAIJ(
        size=((height, m), (width, n)),
        csr=(
            arrays.indptr.astype(PETSc.IntType),
            arrays.indices.astype(PETSc.IntType),
            arrays.values.astype(PETSc.ScalarType),
        ),
        comm=ctx.comm,
    )
    try:
        made.assemble()
        yield made
    finally:
        made.destroy()


@contextlib.contextmanager
def solver(ctx: TaskContext, A: Any, ksp: str, pc: str | None, options: dict[str, Any]) -> Iterator[Any]:
    """Yield a solver for `A`; destroy it at the end. Collective over comm.

    Raises
    ------
    ArgumentValueError
        If PETSc does not know the method, the preconditioner or an option.
    """
    made = PETSc.KSP().create(comm=ctx.comm)
    try:
        made.setOperators(A)
        with refused(ctx, f"ksp={ksp!r}, pc={pc!r} and options {options!r}"):
            made.setType(ksp)
            if pc is not None:
                made.getPC().setType(pc)
            _set_options(ctx, made, options)
        yield made
    finally:
        made.destroy()


@contextlib.contextmanager
def refused(ctx: TaskContext, what: str) -> Iterator[None]:
    """Turn a PETSc error about arguments into ours. Local: PETSc checks arguments that all ranks share.

    Raises
    ------
    ArgumentValueError
        If PETSc raises.
    """
    try:
        yield
    except PETSc.Error as failure:
        reason = " ".join(str(failure).split())
        raise ArgumentValueError(ctx.task, f"PETSc refuses {what}: {reason}") from None


def solved(ctx: TaskContext, solver: Any, columns: Array, target: Array, column: int) -> dict[str, Any]:
    """Solve for one column, write the solution to `target`, and return how the solver ended. Collective over comm."""
    A, _ = solver.getOperators()
    x, b = A.createVecs()
    residual = b.duplicate()
    try:
        if columns.size:
            b.getArray()[...] = columns[:, column]
        with refused(ctx, "this solver for this matrix"):
            solver.solve(b, x)
        if target.size:
            found = x.getArray()
            target[:, column] = found if target.dtype.kind == "c" else found.real
        A.mult(x, residual)
        residual.aypx(-1, b)
        size, reason = b.norm(), solver.getConvergedReason()
        return {
            "converged": reason > 0,
            "reason": _reasons().get(reason, str(reason)),
            "iterations": int(solver.getIterationNumber()),
            "residual": float(residual.norm() / size) if size else float(residual.norm()),
        }
    finally:
        for vector in (x, b, residual):
            vector.destroy()


def _set_options(ctx: TaskContext, solver: Any, options: dict[str, Any]) -> None:
    """Set options for this solver only, by a prefix that no other solver has."""
    for name, value in options.items():
        if not _OPTION.fullmatch(name) or _PRINTING.search(name) or not re.fullmatch(r"[\w.,+-]*", str(value)):
            raise ArgumentValueError(
                ctx.task,
                f"option {name!r} = {value!r} is not allowed: only options of methods and preconditioners are, without "
                "those that print or write files",
            )
    prefix = f"alchemist_{next(_numbers)}_"
    known = PETSc.Options(prefix)
    solver.setOptionsPrefix(prefix)
    for name, value in options.items():
        known[name] = value
    try:
        solver.setFromOptions()
        solver.setUp()
        used = getattr(known, "used", None)  # missing before release 3.20
        unused = [name for name in options if used is not None and not used(name)]
    finally:
        for name in options:
            known.delValue(name)
    if unused:
        raise ArgumentValueError(ctx.task, f"this method and preconditioner have no option {', '.join(unused)}")


def _reasons() -> dict[int, str]:
    """Return PETSc's names of its reasons to stop, by number."""
    reasons = PETSc.KSP.ConvergedReason
    return {value: name for name, value in vars(reasons).items() if isinstance(value, int) and name.isupper()}
