"""ScaLAPACK for distributed matrices, called through ctypes, on the MPI of mpi4py.

:mod:`.loader` loads the libraries into this process, :mod:`.grids` makes BLACS grids and descriptors of distributed
matrices, and :mod:`.routines` and :mod:`.spectral` call the routines.
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
