"""A library whose tasks take one of everything.

It says "quotes", and \\backslashes\\ too.
"""

from typing import Annotated, Any, Literal

import numpy as np

from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task

__version__ = "2.5"


@task
def everything(
    ctx: TaskContext,
    A: Annotated[DistMatrix, "STAR_VR"],
    S: DistMatrix | SparseDistMatrix | None = None,
    k: int = 3,
    tol: float = float("inf"),
    z: complex = 1j,
    flag: bool = False,
    name: str = 'it\'s "quoted"',
    blob: bytes = b"\0",
    values: np.ndarray | None = None,
    members: list = [1, 2.5],  # noqa: B006 - never written to
    table: dict | None = None,
    mode: Literal["fast", "exact"] | None = None,
    *,
    only: Any = None,
) -> dict:
    """Take one argument of each kind; return the arguments.

    It says \"\"\"so\"\"\".
    """
    return {"layout": A.layout.pair, "k": k, "mode": mode, "tol": tol, "name": name}


@task
def sums(ctx: TaskContext, A: DistMatrix | float, S: SparseDistMatrix | None = None) -> tuple[str, list]:
    """Return the element type and the column sums of a matrix; or the type name of a number, and the number."""
    if isinstance(A, float):
        return "number", [A]
    return str(A.dtype), A.to_global().sum(axis=0).tolist()


@task
def twice(ctx: TaskContext, A: Annotated[DistMatrix, "VC_STAR"]) -> DistMatrix:
    """Return 2 A."""
    B = A.new(A.shape, A.layout)
    np.multiply(A.local, 2, out=B.local)
    return B


@task
def wait(ctx: TaskContext, seconds: float) -> str:
    """Wait, and check from time to time whether the caller has cancelled the task."""
    import time

    end = ctx.comm.bcast(time.monotonic() + seconds)
    while ctx.comm.bcast(time.monotonic()) < end:
        time.sleep(0.02)
        ctx.check_cancelled()
    return "waited"


@task
def options(ctx: TaskContext) -> str:
    """Have the same name as an attribute that every library has."""
    return "mine"
