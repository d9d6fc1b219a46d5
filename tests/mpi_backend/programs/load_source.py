"""Load a library from its C source on every rank at once; rank 0 prints the outcome on each rank."""

import json
import sys

from mpi4py import MPI

from alchemist_ray.errors import LibraryLoadError
from alchemist_ray.mpi_backend.ali.library import load

comm = MPI.COMM_WORLD
comm.Barrier()
try:
    outcome = sorted(load("mine", sys.argv[1]).tasks)
except LibraryLoadError as failure:
    outcome = failure.reason
outcomes = comm.gather(outcome)
if comm.rank == 0:
    print(json.dumps(outcomes))
