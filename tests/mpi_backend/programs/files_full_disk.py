"""Write a matrix that is too large for the file system; run under mpiexec by test_files.py.

Each format first writes a small matrix, and then tries to replace it by one that does not fit on the disk. The first
rank prints one line of JSON: the classes of the errors by rank, whether the old file is intact, and which other files
are left.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import files

WRITERS = {
    "npy": (files.write_npy, ("a.npy",)),
    "hdf5": (files.write_hdf5, ("a.h5", "A")),
    "zarr": (files.write_zarr, ("a.zarr",)),
    "parquet": (files.write_parquet, ("a",)),
}
READERS = {"npy": files.read_npy, "hdf5": files.read_hdf5, "zarr": files.read_zarr, "parquet": files.read_parquet}


def names(folder):
    return sorted(str(Path(where, name)) for where, inner, found in os.walk(folder) for name in inner + found)


def main():
    comm = MPI.COMM_WORLD
    ctx = TaskContext(comm, directories=(Path(sys.argv[1]),))
    small, large = np.arange(60.0).reshape(20, 3), np.random.default_rng(0).normal(size=(20000, 25))
    report = {}
    for name, (write, path) in WRITERS.items():
        old = DistMatrix.from_global(comm, small, Layout.of("VC_STAR", small.shape, comm.size))
        new = DistMatrix.from_global(comm, large, Layout.of("VC_STAR", large.shape, comm.size))
        write(ctx, old, *path)
        before, said = names(sys.argv[1]), ("none", "")
        try:
            write(ctx, new, *path, overwrite=True)
        except Exception as error:  # noqa: BLE001 - the test asks which one
            said = type(error).__name__, str(error)
        stands = np.array_equal(READERS[name](ctx, *path, layout={"pair": "STAR_STAR"}).local, small)
        every = comm.allgather(said)
        report[name] = {
            "kinds": [kind for kind, _ in every],
            "text": next((text for kind, text in every if kind == "FileWriteError"), ""),
            "old_stands": stands,
            "left": sorted(set(names(sys.argv[1])) ^ set(before)),
        }
    if comm.rank == 0:
        print(json.dumps(report))


main()
