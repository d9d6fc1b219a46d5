"""ScaLAPACK for distributed matrices, through ctypes, on whatever MPI mpi4py runs.

Three concepts: the libraries of this process (:mod:`.loader`), BLACS grids and descriptors of distributed matrices
(:mod:`.grids`), and the routines (:mod:`.routines`).
"""

from alchemist_ray.mpi_backend.scalapack.grids import context, descriptor, places, release
from alchemist_ray.mpi_backend.scalapack.loader import Libraries, libraries
from alchemist_ray.mpi_backend.scalapack.routines import gesvd

__all__ = [
    "Libraries",
    "context",
    "descriptor",
    "gesvd",
    "libraries",
    "places",
    "release",
]
