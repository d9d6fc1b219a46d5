"""Measure the memory that reading and writing take beside the matrix; run under mpiexec by test_files.py.

The first rank prints one line of JSON: for each case the MiB beside the matrix at the peak of the task, on the rank
that took most.
"""

import ctypes
import json
import math
import mmap
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mpi4py import MPI

from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import files

SHAPE = (24000, 250)
LAYOUT = {"pair": "MC_MR"}


def memory(field):
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def fresh_pages(shape, dtype):
    """Allocate a matrix in fresh pages; reused pages would not count as new memory."""
    return np.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def rise(comm, act):
    """Return the largest growth in bytes of a rank's memory during `act`, without the matrix that it made."""
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    comm.Barrier()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    result = act()
    peak = memory("VmHWM")
    made = result.local.nbytes if isinstance(result, DistMatrix) else 0
    return comm.allreduce(peak - before - made, MPI.MAX)


def make_files(folder):
    A = np.random.default_rng(0).normal(size=SHAPE)
    np.save(folder / "fortran.npy", np.asfortranarray(A))
    with h5py.File(folder / "chunks.h5", "w") as file:
        file.create_dataset("A", data=A, chunks=(500, 250))
        file.create_dataset("columns", data=A, chunks=(12000, 5))
    pq.write_table(pa.table({f"c{j}": A[:, j] for j in range(100)}), folder / "table.parquet", row_group_size=6000)


def main():
    comm, folder = MPI.COMM_WORLD, Path(sys.argv[1])
    ctx = TaskContext(comm, directories=(folder,), allocate=fresh_pages)
    if comm.rank == 0:
        make_files(folder)
    comm.Barrier()
    small = DistMatrix.from_global(comm, np.ones((900, 3)), Layout.of("MC_MR", (900, 3), comm.size))
    for write, path in (
        (files.write_hdf5, ("s.h5", "A")),
        (files.write_zarr, ("s.zarr",)),
        (files.write_parquet, ("s",)),
    ):
        write(ctx, small, *path)  # imports take memory too, so they come first
    files.read_hdf5(ctx, "s.h5", "A", layout={"pair": "STAR_MR"})
    B = DistMatrix.empty(comm, SHAPE, float, Layout.of("MC_MR", SHAPE, comm.size))
    B.local[...] = 1.5
    cases = {
        "write npy": lambda: files.write_npy(ctx, B, "a.npy"),
        "read npy": lambda: files.read_npy(ctx, "a.npy", layout=LAYOUT),
        "read npy converted": lambda: files.read_npy(ctx, "a.npy", layout=LAYOUT, dtype="float32"),
        "read npy redundant": lambda: files.read_npy(ctx, "a.npy", layout={"pair": "STAR_MR", "block": [1, 1]}),
        "read fortran": lambda: files.read_npy(ctx, "fortran.npy", layout=LAYOUT),
        "write hdf5": lambda: files.write_hdf5(ctx, B, "a.h5", "A"),
        "add hdf5": lambda: files.write_hdf5(ctx, B, "a.h5", "B"),
        "read hdf5": lambda: files.read_hdf5(ctx, "chunks.h5", "A", layout=LAYOUT),
        "read hdf5 columns": lambda: files.read_hdf5(ctx, "chunks.h5", "columns", layout=LAYOUT),
        "write zarr": lambda: files.write_zarr(ctx, B, "a.zarr"),
        "read zarr": lambda: files.read_zarr(ctx, "a.zarr", layout=LAYOUT),
        "write parquet": lambda: files.write_parquet(ctx, B, "a"),
        "read parquet": lambda: files.read_parquet(ctx, "table.parquet", layout=LAYOUT),
    }
    risen = {name: rise(comm, act) / 2**20 for name, act in cases.items()}
    if comm.rank == 0:
        print(json.dumps(risen))


main()
