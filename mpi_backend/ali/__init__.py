"""The Alchemist-Library Interface: what a library author imports.

A numerical library in Python is a module whose tasks are marked::

    from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task

    @task
    def scale(ctx: TaskContext, A: DistMatrix, factor: float = 2.0) -> DistMatrix:
        \"\"\"Return factor * A.\"\"\"
        B = A.new(A.shape, A.layout)
        B.local[...] = factor * A.local
        return B

A matrix in compressed rows is a :class:`SparseDistMatrix`; a task that takes both says so, ``A: DistMatrix |
SparseDistMatrix``, and one that takes dense matrices only is never given another.

Every task is collective over ``ctx.comm``: it runs on every rank of the group at once, with equal arguments. What it
returns, apart from matrices, is the same on every rank, or comes from rank 0 and is None on the others.

A simulation is a subclass of :class:`Simulator`; a library in C, C++ or Fortran is a shared object written against
``alchemist_ali.h``, which lies in the folder ``include`` beside this file.
"""

from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.library import TaskLibrary, describe, task
from alchemist_ray.mpi_backend.ali.simulator import Box, Field, Simulator
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.matrices.sparse import SparseDistMatrix

__all__ = [
    "Box",
    "DistMatrix",
    "Field",
    "Simulator",
    "SparseDistMatrix",
    "TaskContext",
    "TaskLibrary",
    "describe",
    "task",
]
