"""The Alchemist-Library Interface (ALI). The author of a library imports this module.

A numerical library in Python is a module that marks its tasks::

    from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task

    @task
    def scale(ctx: TaskContext, A: DistMatrix, factor: float = 2.0) -> DistMatrix:
        \"\"\"Return factor * A.\"\"\"
        B = A.new(A.shape, A.layout)
        B.local[...] = factor * A.local
        return B

A matrix in compressed rows is a :class:`SparseDistMatrix`. A task that takes both kinds is annotated with ``A:
DistMatrix | SparseDistMatrix``. A task that takes dense matrices only never gets a sparse one.

Every task is collective over ``ctx.comm``: it runs on every rank of the group at the same time, with equal arguments.
All ranks return the matrices. All other results must be the same on every rank, or come from rank 0 and be None on the
other ranks.

A simulation is a subclass of :class:`Simulator`. A library in C, C++ or Fortran is a shared object that uses
``alchemist_ali.h``, which is in the folder ``c/include`` beside this file.
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
