"""Measure the memory that a relayout takes; run under mpiexec by test_distmatrix.py.

Prints one line of JSON: for each case and rank, the bytes of its two blocks, and the growth of its peak.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

from alchemist_ray.layouts.layout import Grid, Layout
from alchemist_ray.mpi_backend.matrices import exchange
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix

SHAPE = (5000, 5000)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(comm, source, target, transposed):
    """Return the bytes of the old and the new block, and by how much the peak exceeds the resident memory before."""
    before = resident()
    A = DistMatrix.empty(comm, SHAPE, float, source)
    A.local[...] = comm.rank
    B = A.transpose(target) if transposed else A.relayout(target)
    return A.local.nbytes + B.local.nbytes, peak() - before


def main():
    comm = MPI.COMM_WORLD
    grid = Grid.of_size(comm.size)
    warm = DistMatrix.from_global(comm, np.ones((60, 60)), Layout("MC_MR", grid, (1, 1)))
    warm.relayout("STAR_VR")  # MPI and NumPy allocate some memory once
    if len(sys.argv) > 1:
        exchange.CHUNK_BYTES = int(sys.argv[1])
    cases = {
        "packed on both ends": (Layout("MC_MR", grid, (1, 1)), Layout("STAR_VR", grid, (1, 1)), False),
        "transposed": (Layout.of("MC_MR", SHAPE, comm.size), Layout.of("MC_MR", SHAPE, comm.size), True),
    }
    said = {name: comm.allgather(measure(comm, *case)) for name, case in cases.items()}
    if comm.rank == 0:
        print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
