"""Read files that NumPy, h5py, Zarr and PyArrow have written; run under mpiexec by test_files.py.

For each case the first rank writes a file and gives the expected array. All ranks read the file in three layouts and
compare their blocks; slabs are so small that most chunks take several. The first rank prints one line of JSON.
"""

import itertools
import json
import sys
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from mpi4py import MPI
from zarr.storage import LocalStore

from alchemist_ray.mpi_backend.ali import TaskContext
from alchemist_ray.mpi_backend.ali.library import load
from alchemist_ray.mpi_backend.libraries import files
from alchemist_ray.mpi_backend.libraries.files import parquet
from alchemist_ray.mpi_backend.matrices import slab_schedules

SLAB_BYTES = 320
LAYOUTS = (
    {"pair": "VC_STAR"},
    {"pair": "MC_MR", "block": [2, 3]},
    {"pair": "STAR_STAR"},
    {"pair": "CIRC_CIRC"},
    {"pair": "STAR_VR", "block": [1, 1]},
    {"pair": "MR_STAR", "block": [3, 1]},
)
RNG = np.random.default_rng(1)
A = RNG.normal(size=(37, 11))
INTEGERS = RNG.integers(0, 200, size=(37, 11))


def npy_files(folder):
    """Yield the name of each file, the expected array, and the other arguments of the task."""
    cases = {
        "fortran": np.asfortranarray(A),
        "fortran_wide": np.asfortranarray(RNG.normal(size=(3, 300))),
        "big_endian": A.astype(">f8"),
        "big_endian_complex": (A * 1j).astype(">c16"),
        "vector": A[:, 0],
        "long_row": RNG.normal(size=(1, 500)),
        "fortran_bool": np.asfortranarray(A > 0),
    }
    for name, array in cases.items():
        np.save(folder / f"{name}.npy", array)
        yield f"{name}.npy", array, {}
    converted = {"float16": "float32", "uint8": "int32", "int16": "float64", "longdouble": "float64", "int64": "int32"}
    for given, wanted in converted.items():
        array = (A if "float" in given or "double" in given else INTEGERS).astype(given)
        np.save(folder / f"as_{given}.npy", array)
        yield f"as_{given}.npy", array.astype(wanted), {"dtype": wanted}
    np.save(folder / "complex.npy", A)
    yield "complex.npy", A.astype("complex64"), {"dtype": "complex64"}
    truths = np.lib.format.open_memmap(folder / "truths.npy", "w+", bool, (4, 3))
    truths.view(np.uint8)[...] = np.arange(12).reshape(4, 3) % 5  # bytes that NumPy itself would not write
    truths.flush()
    yield "truths.npy", np.arange(12).reshape(4, 3) % 5 != 0, {}


def hdf5_files(folder):
    """Yield file and dataset of each case, the expected array, and the other arguments of the task."""
    with h5py.File(folder / "block.h5", "w", userblock_size=1024) as file:
        file["A"] = A
    yield ("block.h5", "A"), A, {}
    for dataset, array, how in datasets(folder):
        yield ("x.h5", dataset), array, how


def datasets(folder):
    """Yield each dataset of one file, the expected array, and the other arguments of the task."""
    with h5py.File(folder / "x.h5", "w") as file:
        cases = {
            "contiguous": (A, {}),
            "chunked": (A, {"chunks": (4, 3)}),
            "gzip": (A, {"chunks": (5, 11), "compression": "gzip", "shuffle": True, "fletcher32": True}),
            "columns": (A, {"chunks": (37, 1), "compression": "lzf"}),
            "one_chunk": (A, {"chunks": (37, 11), "compression": "gzip"}),
            "big_chunks": (A, {"chunks": (20, 8), "maxshape": (None, None)}),
            "big_endian": (A.astype(">f4"), {}),
            "big_endian_chunks": (INTEGERS.astype(">i4"), {"chunks": (7, 2)}),
            "bool": (A > 0, {}),
            "bool_chunks": (A > 0, {"chunks": (7, 2)}),
            "complex": (A * 1j, {"chunks": (7, 2)}),
            "vector": (A[:, 0], {}),
            "vector_chunks": (A[:, 0], {"chunks": (10,)}),
            "group/inner/deep": (A, {}),
        }
        for name, (array, how) in cases.items():
            file.create_dataset(name, data=array, **how)
            yield name, array, {}
        file.create_dataset("half", data=A.astype("float16"), chunks=(6, 6))
        yield "half", A.astype("float16").astype("float64"), {"dtype": "float64"}
        file.create_dataset("scaled", data=INTEGERS, chunks=(6, 6), scaleoffset=0)
        yield "scaled", INTEGERS, {}
        file.create_dataset("unwritten", shape=(20, 20), dtype="f8", fillvalue=7.0)
        yield "unwritten", np.full((20, 20), 7.0), {}
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(A.shape)
        h5py.Dataset(h5py.h5d.create(file.id, b"compact", h5py.h5t.NATIVE_DOUBLE, space, compact))[...] = A
        yield "compact", A, {}
        file["soft"] = h5py.SoftLink("/group/inner/deep")
        file["group/relative"] = h5py.SoftLink("inner/deep")
        file["outward"] = h5py.ExternalLink("other.h5", "/there")
        virtual = h5py.VirtualLayout(shape=(2, 37), dtype="f8")
        virtual[0] = h5py.VirtualSource("other.h5", "there", shape=A.shape)[:, 2]
        virtual[1] = h5py.VirtualSource(".", "contiguous", shape=A.shape)[:, 3]
        file.create_virtual_dataset("virtual", virtual)
        file.create_dataset("external", shape=A.shape, dtype="f8", external=[("raw.bin", 16, A.nbytes)])
    with h5py.File(folder / "other.h5", "w") as file:
        file.create_dataset("there", data=A, chunks=(9, 9))
    (folder / "raw.bin").write_bytes(bytes(16) + A.tobytes())
    yield from (("soft", A, {}), ("group/relative", A, {}), ("outward", A, {}), ("external", A, {}))
    yield "virtual", np.stack([A[:, 2], A[:, 3]]), {}


def zarr_stores(folder):
    """Yield store and array name of each case, the expected array, and the other arguments of the task."""
    how = {
        "whole": {"chunks": (37, 11)},
        "chunked": {"chunks": (4, 3)},
        "tall": {"chunks": (37, 1), "compressors": zarr.codecs.GzipCodec()},
        "blosc": {"chunks": (5, 11), "compressors": zarr.codecs.BloscCodec()},
        "plain": {"chunks": (7, 7), "compressors": None},
        "sharded": {"chunks": (4, 3), "shards": (12, 6)},
        "format2": {"chunks": (5, 5), "zarr_format": 2, "compressors": numcodecs.Blosc(), "order": "F"},
        "filtered2": {"chunks": (5, 5), "zarr_format": 2, "filters": [numcodecs.Shuffle(8)], "compressors": None},
    }
    for name, options in how.items():
        array = zarr.create_array(LocalStore(folder / f"{name}.zarr"), shape=A.shape, dtype=A.dtype, **options)
        array[...] = A
        yield (f"{name}.zarr", ""), A, {}
    group = zarr.create_group(LocalStore(folder / "group.zarr"))
    inner = group.create_group("inner").create_array("sparse", shape=(30, 9), chunks=(4, 4), dtype=">i4", fill_value=-3)
    inner[8:12, 4:8] = 5
    sparse = np.full((30, 9), -3, np.int32)
    sparse[8:12, 4:8] = 5
    yield ("group.zarr", "inner/sparse"), sparse, {}
    group.create_array("vector", shape=(37,), chunks=(6,), dtype="uint16")[...] = INTEGERS[:, 1]
    yield ("group.zarr", "vector"), INTEGERS[:, 1].astype("float32"), {"dtype": "float32"}


def parquet_files(folder):
    """Yield the path of each case, the expected array, and the other arguments of the task."""
    columns = {f"x{j}": A[:, j] for j in range(11)}
    pq.write_table(pa.table(columns), folder / "one.parquet", row_group_size=5)
    yield "one.parquet", A, {}
    yield "one.parquet", A[:, [7, 2]], {"columns": ["x7", "x2"]}
    pq.write_table(pa.table(columns), folder / "single.parquet")
    yield "single.parquet", A, {}
    mixed = {
        "i": pa.array(INTEGERS[:, 0].astype("int16")),
        "b": pa.array(A[:, 1] > 0),
        "f": pa.array([None if k % 4 == 0 else float(k) for k in range(37)], pa.float32()),
        "n": pa.array([None if k % 5 == 0 else k for k in range(37)], pa.int32()),
        "t": pa.array([None if k % 6 == 0 else k % 2 == 0 for k in range(37)]),
    }
    made = np.full((37, 5), np.nan)
    made[:, 0], made[:, 1] = INTEGERS[:, 0], A[:, 1] > 0
    for k in range(37):
        made[k, 2] = np.nan if k % 4 == 0 else k
        made[k, 3] = np.nan if k % 5 == 0 else k
        made[k, 4] = np.nan if k % 6 == 0 else k % 2 == 0
    parts = folder / "parts"
    parts.mkdir()
    table = pa.table(mixed)
    for k, (start, stop, group) in enumerate(((0, 9, 4), (9, 9, 4), (9, 10, 1), (10, 37, 20))):
        pq.write_table(table.slice(start, stop - start), parts / f"part-{k}.parquet", row_group_size=group)
    (parts / "_SUCCESS").touch()
    yield "parts", made, {}
    yield "parts", made[:, [1]] != 0, {"columns": ["b"]}
    yield "parts", made[:, [3, 0]].astype("complex64"), {"columns": ["n", "i"], "dtype": "complex64"}
    yield "parts", made[:, [0, 1]].astype("int32"), {"columns": ["i", "b"], "dtype": "int32"}


def reads(ctx):
    """Yield the label of each case, the expected array, and a function that reads it in a layout."""
    makers = (
        ("npy", npy_files, lambda what, **how: files.read_npy(ctx, what, **how)),
        ("hdf5", hdf5_files, lambda what, **how: files.read_hdf5(ctx, *what, **how)),
        ("zarr", zarr_stores, lambda what, **how: files.read_zarr(ctx, *what, **how)),
        ("parquet", parquet_files, lambda what, **how: files.read_parquet(ctx, what, **how)),
    )
    for kind, make, read in makers:
        made = ctx.comm.bcast(list(make(ctx.directories[0])) if ctx.comm.rank == 0 else None)
        for what, array, how in made:
            yield f"{kind} {what} {how}", array, lambda layout, w=what, h=how, read=read: read(w, layout=layout, **h)


def complaint(array, B):
    """Return a text if this rank's block of B is not that of `array`, else None."""
    array = array[:, np.newaxis] if array.ndim == 1 else array
    if B.shape != array.shape or B.dtype != array.dtype.newbyteorder("="):
        return f"{B!r} instead of {array.shape} {array.dtype}"
    rows, cols = B.layout.part(array.shape, B.comm.rank)
    expected = array[np.ix_(rows.indices(), cols.indices())]
    if expected.dtype == bool:  # compare bytes: NumPy would take a byte of 2 as equal to True
        return None if B.local.tobytes() == expected.tobytes() else "wrong bytes"
    return None if np.array_equal(B.local, expected, equal_nan=expected.dtype.kind in "fc") else "wrong elements"


def main():
    comm = MPI.COMM_WORLD
    slab_schedules.SLAB_BYTES = parquet.SLAB_BYTES = SLAB_BYTES
    ctx = TaskContext(comm, directories=(Path(sys.argv[1]),))
    wrong, labels = [], []
    layouts = itertools.cycle(LAYOUTS)
    for label, array, read in reads(ctx):
        labels.append(label)
        for layout in itertools.islice(layouts, 3):
            said = complaint(array, read(layout))
            wrong += [f"{label} as {layout}: {each}" for each in comm.allgather(said) if each]
        next(layouts)
    described = {name: files.describe(ctx, name) for name in ("fortran.npy", "x.h5", "group.zarr", "parts", "block.h5")}
    tasks = load("files", files.__name__).description.tasks
    library = {task.name: [parameter.name for parameter in task.parameters] for task in tasks}
    if comm.rank == 0:
        print(json.dumps({"labels": labels, "wrong": wrong, "described": described, "library": library}))


main()
