"""The Alchemist-Library Interface: what a library author imports.

A numerical library in Python is a module whose tasks are marked::

    from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task

    @task
    def scale(ctx: TaskContext, A: DistMatrix, factor: float = 2.0) -> DistMatrix:
        \"\"\"Return factor * A.\"\"\"
        B = A.new(A.shape, A.layout)
        B.local[...] = factor * A.local
        return B

Every task is collective over ``ctx.comm``: it runs on every rank of the group at once, with equal arguments.
"""

from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.library import Library, describe, task
from alchemist_ray.mpi_backend.distmatrix import DistMatrix

__all__ = ["DistMatrix", "Library", "TaskContext", "describe", "task"]
