"""Write matrices to files and read them back, in all formats; run under mpiexec by test_files.py.

One process reads each written file with NumPy, h5py, Zarr or PyArrow and compares it bit by bit. Then the tasks read it
in another layout, and every rank compares its block with fancy indexing. Slabs are tiny, so that small matrices take
many windows. The first rank prints one line of JSON: the number of checks and the list of faults.
"""

import itertools
import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import zarr
from mpi4py import MPI

from alchemist_ray.layouts.layout import PAIRS, Grid, Layout
from alchemist_ray.layouts.spec import DTYPES
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import files
from alchemist_ray.mpi_backend.libraries.files import linux, parquet, zarr_stores
from alchemist_ray.mpi_backend.matrices import slab_schedules

SLAB_BYTES = 320
SHAPES = ((23, 7), (5, 90), (1, 1), (64, 3), (1, 130), (40, 1))
BLOCKS = ((1, 1), (2, 3), (50, 50), None)
ROWS = {"pair": "VC_STAR", "grid": (1, MPI.COMM_WORLD.size), "block": None, "align": (0, 0)}


def matrix(shape, dtype):
    m, n = shape
    values = np.arange(m * n).reshape(m, n) - m * n // 2
    if dtype == "bool":
        return values % 3 == 0
    A = (values * (1 - 2j) if dtype.startswith("complex") else values).astype(dtype)
    if A.dtype.kind in "fc":
        A[0, 0], A[-1, -1] = -0.0, np.nan
    return A


def same(A, B):
    """Whether two arrays have the same bits, whatever their byte order."""
    if A.shape != B.shape or A.dtype != B.dtype.newbyteorder("="):
        return False
    return A.tobytes() == B.astype(A.dtype).tobytes()


def layouts(size):
    """Yield layouts in wire form without end: all mixtures of pairs, grids, blocks and alignments."""
    grids = [(r, size // r) for r in range(1, size + 1) if size % r == 0]
    places = itertools.cycle(itertools.product(grids, BLOCKS))
    for turn, pair in enumerate(itertools.cycle(PAIRS)):
        grid, block = next(places)
        align = ((turn // 14) % size, 0) if pair == "CIRC_CIRC" else (0, 0)
        yield {"pair": pair, "grid": list(grid), "block": block, "align": align}


def laid_out(comm, A, choice):
    grid = Grid(*choice["grid"])
    layout = Layout.of(choice["pair"], A.shape, comm.size, grid=grid, block=choice["block"], align=choice["align"])
    return DistMatrix.from_global(comm, A, layout)


def block_is_wrong(A, B, choice):
    """Return a text if this rank's block of B is not that of A in the chosen layout, else None."""
    if not isinstance(B, DistMatrix) or B.layout.pair != choice["pair"]:
        return "layout"
    rows, cols = B.layout.part(A.shape, B.comm.rank)
    return None if same(A[np.ix_(rows.indices(), cols.indices())], B.local) else "block"


class Formats:
    """Each method writes a matrix; it returns the array that one process reads, and a function that calls the task."""

    def __init__(self, ctx):
        self.ctx = ctx

    def npy(self, A, k):
        where = files.write_npy(self.ctx, A, f"{k}.npy")
        return np.load(where), lambda layout: files.read_npy(self.ctx, f"{k}.npy", layout=layout)

    def hdf5(self, A, k):
        where = files.write_hdf5(self.ctx, A, "all.h5", f"group/{k}")
        with h5py.File(where) as file:
            B = file["group"][str(k)][...]
        return B, lambda layout: files.read_hdf5(self.ctx, "all.h5", f"group/{k}", layout=layout)

    def zarr(self, A, k):
        chunks = (None, [4, 3], [2, 200], [100, 1], [50, 50])[k % 5]
        how = {"chunks": chunks, "compression": None if k % 2 else "zstd"}
        where = files.write_zarr(self.ctx, A, "all.zarr", f"g/{k}", **how)
        B = zarr.open_array(f"{where}/g/{k}", mode="r")[...]
        return B, lambda layout: files.read_zarr(self.ctx, "all.zarr", f"g/{k}", layout=layout)

    def parquet(self, A, k):
        where = files.write_parquet(self.ctx, A, f"{k}.parquet", compression=None if k % 2 else "snappy")
        table = pq.read_table(where)
        assert table.column_names == [f"c{j}" for j in range(A.shape[1])]
        B = np.stack([column.to_numpy() for column in table.columns], axis=1)
        return B, lambda layout: files.read_parquet(self.ctx, f"{k}.parquet", layout=layout)


def check_all(ctx):
    """Return the number of checks for each format and pair, and the faults."""
    comm, formats, wrong, checked, written = ctx.comm, Formats(ctx), [], {}, {}
    for name, write in (("npy", formats.npy), ("hdf5", formats.hdf5), ("zarr", formats.zarr), ("parquet", formats.parquet)):  # fmt: skip  # noqa: E501
        dtypes = [dtype for dtype in DTYPES if name != "parquet" or not dtype.startswith("complex")]
        choices, reads = layouts(comm.size), itertools.islice(layouts(comm.size), 5, None)
        for k, (dtype, shape) in enumerate(zip(itertools.cycle(dtypes), itertools.cycle(SHAPES), strict=False)):
            if k == (28 if name == "npy" else 14):
                break
            A, choice, read = matrix(shape, dtype), next(choices), next(reads)
            distributed = laid_out(comm, A, choice)
            before = distributed.local.copy()
            B, read_back = write(distributed, k)
            written[name, k] = A
            label = f"{name} {dtype} {shape} {choice}"
            if not same(A, B):
                wrong.append(f"written: {label}")
            if not same(before, distributed.local):
                wrong.append(f"source changed: {label}")
            if complaint := block_is_wrong(A, read_back(read), read):
                wrong.append(f"read: {complaint} of {label} as {read}")
            for used in (choice["pair"], dtype):
                checked.setdefault(name, set()).add(used)
            comm.Barrier()
    return {name: sorted(used) for name, used in checked.items()}, wrong + lost_neighbours(ctx.directories[0], written)


def lost_neighbours(folder, written):
    """Return the arrays that have changed in files with many arrays."""
    with h5py.File(folder / "all.h5") as file:
        wrong = [k for (name, k), A in written.items() if name == "hdf5" and not same(A, file["group"][str(k)][...])]
        count = len(file["group"])
    group = zarr.open_group(folder / "all.zarr", mode="r")["g"]
    wrong += [k for (name, k), A in written.items() if name == "zarr" and not same(A, group[str(k)][...])]
    return [f"lost {wrong}"] if wrong or count != 14 or len(list(group)) != 14 else []


def check_overwrites(ctx):
    """Return the faults of replaced matrices, with the system calls for replacing and without."""
    writers = {
        "npy": (files.write_npy, files.read_npy, ("o.npy",)),
        "hdf5": (files.write_hdf5, files.read_hdf5, ("o.h5", "A")),
        "hdf5 alone": (files.write_hdf5, files.read_hdf5, ("p.h5", "A")),
        "zarr": (files.write_zarr, files.read_zarr, ("o.zarr", "g/A")),
        "zarr root": (files.write_zarr, files.read_zarr, ("p.zarr",)),
        "parquet": (files.write_parquet, files.read_parquet, ("o.parquet",)),
    }
    wrong, folder, beside = [], ctx.directories[0], matrix((3, 3), "float64")
    files.write_hdf5(ctx, laid_out(ctx.comm, beside, ROWS), "o.h5", "beside/it")
    files.write_zarr(ctx, laid_out(ctx.comm, beside, ROWS), "o.zarr", "g/beside")
    for turn, (shape, calls) in enumerate((((20, 4), True), ((9, 5), True), ((31, 2), False))):
        if not calls:
            linux.exchange = linux.rename_new = lambda source, target: False
        A = matrix(shape, "float64")
        for name, (write, read, path) in writers.items():
            write(ctx, laid_out(ctx.comm, A, ROWS), *path, overwrite=turn > 0)
            if block_is_wrong(A, read(ctx, *path, layout=ROWS), ROWS):
                wrong.append(f"{name} replaced in turn {turn}")
            if turn == 0 and name == "npy" and ctx.comm.rank == 0:
                (folder / "o.npy").chmod(0o640)
    files.write_npy(ctx, laid_out(ctx.comm, beside, ROWS), "new.npy")
    for read, path in ((files.read_hdf5, ("o.h5", "beside/it")), (files.read_zarr, ("o.zarr", "g/beside"))):
        if block_is_wrong(beside, read(ctx, *path, layout=ROWS), ROWS):
            wrong.append(f"beside {path}")
    if (folder / "o.npy").stat().st_mode & 0o777 != 0o640:
        wrong.append("mode")
    return wrong


def main():
    comm = MPI.COMM_WORLD
    for module in (slab_schedules, zarr_stores, parquet):
        module.SLAB_BYTES = SLAB_BYTES
    reports = []
    folder = Path(sys.argv[1])
    ctx = TaskContext(comm, directories=(folder,), report=lambda done, total, text: reports.append((done, total, text)))
    checked, wrong = check_all(ctx)
    ends = sum(done == total for done, total, _ in reports)
    wrong += check_overwrites(ctx)
    wrong = list(itertools.chain.from_iterable(comm.allgather(wrong)))
    if comm.rank == 0:
        left = sorted(name for where, names, inner in os.walk(folder) for name in names + inner if "partial" in name)
        wrong += [f"progress {said}" for said in reports if not 0 < said[0] <= said[1]]
        texts = sorted({text.partition(" ")[0] for _, _, text in reports})
        print(json.dumps({"checked": checked, "wrong": wrong, "left": left, "texts": texts, "ends": ends}))


main()
