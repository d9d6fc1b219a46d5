"""Reads and writes that must fail; run under mpiexec by test_files.py.

Each case must raise on every rank: its own error on at least one rank, PeerFailedError on ranks without a fault. The
first rank prints one line of JSON: for each case the classes of the errors by rank, the text of the first error that is
not PeerFailedError, and the paths that changed although nothing must change.
"""

import contextlib
import errno
import hashlib
import json
import os
import resource
import shutil
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

from alchemist_ray.errors import MatrixMemoryError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import files
from alchemist_ray.mpi_backend.libraries.files import hdf5, linux

A = np.arange(300.0).reshape(60, 5)
ROWS = {"pair": "VC_STAR"}
CASES = {}


def case(name):
    """Register a function that takes a context as the case `name`."""

    def note(function):
        CASES[name] = function
        return function

    return note


def reading(name, read, *arguments, **how):
    CASES[name] = lambda ctx: read(ctx, *arguments, **{"layout": ROWS, **how})


# --- files ------------------------------------------------------------------------------------------------------------


def make_npy(inside, outside):
    np.save(inside / "good.npy", A)
    np.save(outside / "secret.npy", A)
    (inside / "elsewhere").mkdir()
    np.save(inside / "elsewhere" / "good.npy", A[1:])
    (inside / "link.npy").symlink_to(outside / "secret.npy")
    (inside / "folder").symlink_to(outside)
    whole = (inside / "good.npy").read_bytes()
    (inside / "cut.npy").write_bytes(whole[:-8])
    (inside / "stub.npy").write_bytes(whole[:40])
    (inside / "garbage.npy").write_bytes(b"no header at all" * 10)
    odd = {
        "cube": np.zeros((2, 3, 4)),
        "scalar": np.float64(3),
        "half": A.astype("float16"),
        "long": np.full((60, 5), 2**40),
        "text": np.array([["a", "b"]]),
        "pairs": np.zeros((3, 3), [("x", "f8"), ("y", "i4")]),
    }
    for name, array in odd.items():
        np.save(inside / f"{name}.npy", array)
    np.save(inside / "pickle.npy", np.array([[print]]), allow_pickle=True)
    os.mkfifo(inside / "pipe.npy")


def _unlimited():
    space = h5py.h5s.create_simple((4, 5), (h5py.h5s.UNLIMITED, 5))
    space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (1, 5), (1, 5))
    return space


def make_hdf5(inside, outside):
    with h5py.File(outside / "secret.h5", "w") as file:
        file["A"] = A
    (outside / "secret.bin").write_bytes(A.tobytes())
    with h5py.File(inside / "second.h5", "w") as file:
        first = h5py.VirtualLayout(shape=A.shape, dtype="f8")
        first[...] = h5py.VirtualSource("x.h5", "A", shape=A.shape)
        file.create_virtual_dataset("virtual", first)
    with h5py.File(inside / "x.h5", "w") as file:
        file["A"] = A
        file["group/B"] = A
        file["names"] = [b"a", b"b"]
        file["cube"] = np.zeros((2, 3, 4))
        file["scalar"] = 1.0
        file["nothing"] = h5py.Empty("f8")
        file["circle"] = h5py.SoftLink("/circle")
        file["outward"] = h5py.ExternalLink("../outside/secret.h5", "/A")
        file["dangling"] = h5py.ExternalLink("nowhere.h5", "/A")
        file.create_dataset("raw", shape=A.shape, dtype="f8", external=[("../outside/secret.bin", 0, A.nbytes)])
        file.create_dataset("raw_cut", shape=A.shape, dtype="f8", external=[("good.npy", 2000, A.nbytes)])
        sources = (("out", "../outside/secret.h5", "A"), ("deep", "second.h5", "virtual"), ("around", ".", "outward"))
        for name, other, dataset in (*sources, ("gone", "nowhere.h5", "A")):
            virtual = h5py.VirtualLayout(shape=A.shape, dtype="f8")
            virtual[...] = h5py.VirtualSource(other, dataset, shape=A.shape)
            file.create_virtual_dataset(f"virtual_{name}", virtual)
        pattern = h5py.VirtualLayout(shape=(4, 5), maxshape=(None, 5), dtype="f8")
        source = h5py.VirtualSource("part-%b.h5", "A", shape=(1, 5))
        pattern.dcpl.set_virtual(_unlimited(), b"part-%b.h5", b"A", source.sel.id)
        file.create_virtual_dataset("virtual_pattern", pattern)
        broken = file.create_dataset("broken", data=A, chunks=(10, 5), compression="gzip")
        where = broken.id.get_chunk_info(5).byte_offset
    with (inside / "x.h5").open("r+b") as file:
        file.seek(where)
        file.write(bytes(40))
    (inside / "cut.h5").write_bytes((inside / "x.h5").read_bytes()[:-500])
    (inside / "garbage.h5").write_bytes(b"nothing of the kind" * 100)


def make_zarr(inside, outside):
    group = zarr.create_group(LocalStore(inside / "g.zarr"))
    for name in ("A", "broken", "linked"):
        group.create_array(name, shape=A.shape, chunks=(10, 5), dtype="f8")[...] = A
    group.create_array("cube", shape=(2, 3, 4), dtype="f8")[...] = 1
    cut = inside / "g.zarr" / "broken" / "c" / "5" / "0"
    cut.write_bytes(cut.read_bytes()[:20])
    (outside / "chunk").write_bytes(b"secret")
    chunk = inside / "g.zarr" / "linked" / "c" / "3" / "0"
    chunk.unlink()
    chunk.symlink_to(outside / "chunk")
    for name, codec in (("pickle", {"id": "pickle"}), ("masked", {"id": "pickle", "name": "zlib"})):
        zarr.create_array(
            LocalStore(inside / f"{name}.zarr"), shape=(4, 4), dtype="f8", zarr_format=2, compressors=numcodecs.Zlib()
        )[...] = 1
        metadata = json.loads((inside / f"{name}.zarr" / ".zarray").read_text())
        metadata["filters"] = [codec]
        (inside / f"{name}.zarr" / ".zarray").write_text(json.dumps(metadata))
    zarr.create_group(LocalStore(inside / "known.zarr")).create_array("A", shape=(3, 3), dtype="f8")[...] = 1
    zarr.consolidate_metadata(LocalStore(inside / "known.zarr"))
    (inside / "bad.zarr").mkdir()
    (inside / "bad.zarr" / "zarr.json").write_text("{")
    shutil.copytree(inside / "g.zarr" / "A", outside / "A")
    (inside / "g.zarr" / "away").symlink_to(outside / "A")


def make_parquet(inside, outside):
    table = pa.table({"x": A[:, 0], "k": pa.array([None, *range(59)]), "s": ["a"] * 60})
    pq.write_table(table, inside / "t.parquet", row_group_size=10)
    whole = (inside / "t.parquet").read_bytes()
    (inside / "cut.parquet").write_bytes(whole[:-20])
    broken = bytearray(whole)
    start = pq.ParquetFile(inside / "t.parquet").metadata.row_group(5).column(0).data_page_offset
    broken[start : start + 60] = bytes(60)
    (inside / "broken.parquet").write_bytes(broken)
    pq.write_table(pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], ["x", "x"]), inside / "twice.parquet")
    (inside / "linked").mkdir()
    pq.write_table(table, outside / "secret.parquet")
    (inside / "linked" / "part.parquet").symlink_to(outside / "secret.parquet")
    (inside / "other").mkdir()
    (inside / "other" / "notes.txt").write_text("keep me")
    (inside / "mixed").mkdir()
    pq.write_table(table, inside / "mixed" / "a.parquet")
    pq.write_table(pa.table({"y": A[:, 0]}), inside / "mixed" / "b.parquet")


# --- reading ----------------------------------------------------------------------------------------------------------

for path in ("../outside/secret.npy", "link.npy", "folder/secret.npy", "/etc/passwd", "", "good\0.npy"):
    reading(f"npy outside {path!r}", files.read_npy, path)
for name in ("none", "good.npy/below"):
    reading(f"npy missing {name}", files.read_npy, name)
for name in ("cut", "stub", "garbage", "cube", "scalar", "half", "text", "pairs", "pickle", "pipe"):
    reading(f"npy {name}", files.read_npy, f"{name}.npy")
reading("npy folder", files.read_npy, "other")
reading("npy int overflow", files.read_npy, "long.npy", dtype="int32")
reading("npy to int", files.read_npy, "good.npy", dtype="int64")
reading("npy to nonsense", files.read_npy, "good.npy", dtype="float16")
reading("npy layout", files.read_npy, "good.npy", layout={"pair": "MC_MC"})
reading("npy grid", files.read_npy, "good.npy", layout={"pair": "MC_MR", "grid": [7, 7]})
for name in ("none", "group", "group/none", "A/below", "names", "cube", "scalar", "nothing", "circle", "outward"):
    reading(f"hdf5 {name}", files.read_hdf5, "x.h5", name)
for name in ("dangling", "raw", "raw_cut", "broken", *(f"virtual_{k}" for k in ("out", "deep", "around", "pattern", "gone"))):  # fmt: skip  # noqa: E501
    reading(f"hdf5 {name}", files.read_hdf5, "x.h5", name)
reading("hdf5 cut", files.read_hdf5, "cut.h5", "A")
reading("hdf5 garbage", files.read_hdf5, "garbage.h5", "A")
for name in ("none", "", "broken", "linked", "cube", "../x", "../../outside/A", "away"):
    reading(f"zarr {name!r}", files.read_zarr, "g.zarr", name)
for name in ("pickle.zarr", "masked.zarr", "bad.zarr", "other", "good.npy"):
    reading(f"zarr {name}", files.read_zarr, name)
for name in ("cut.parquet", "garbage.h5", "other", "linked"):
    reading(f"parquet {name}", files.read_parquet, name)
for label, name, columns in (
    ("string", "t.parquet", None),
    ("int null", "t.parquet", ["k"]),
    ("none", "t.parquet", ["x", "z"]),
    ("twice", "twice.parquet", None),
    ("mixed", "mixed", ["x"]),
    ("broken", "broken.parquet", ["x"]),
):
    reading(f"parquet columns {label}", files.read_parquet, name, columns)


@case("no directories")
def _(ctx):
    files.read_npy(TaskContext(ctx.comm), "good.npy", layout=ROWS)


@case("h5py is not installed on the last rank")
def _(ctx):
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(hdf5.__name__)}
    del files.hdf5
    if ctx.comm.rank == ctx.comm.size - 1:
        kept["h5py"] = sys.modules["h5py"]
        sys.modules["h5py"] = None
    try:
        files.read_hdf5(ctx, "x.h5", "A", layout=ROWS)
    finally:
        sys.modules.update(kept)


@case("the first rank has no memory")
def _(ctx):
    def allocate(shape, dtype):
        if ctx.comm.rank == 0:
            raise MatrixMemoryError(needed=2, available=1, limit=1)
        return np.empty(shape, dtype)

    files.read_npy(TaskContext(ctx.comm, directories=ctx.directories, allocate=allocate), "good.npy", layout=ROWS)


@case("the last rank may not read")
def _(ctx):
    access = os.access
    os.access = (lambda *arguments: False) if ctx.comm.rank == ctx.comm.size - 1 else access
    try:
        files.read_npy(ctx, "good.npy", layout=ROWS)
    finally:
        os.access = access


@case("the last rank sees another file")
def _(ctx):
    inside = ctx.directories[0] / ("elsewhere" if ctx.comm.rank == ctx.comm.size - 1 else "")
    files.read_npy(TaskContext(ctx.comm, directories=(inside,)), "good.npy", layout=ROWS)


@case("describe garbage")
def _(ctx):
    files.describe(ctx, "garbage.npy")


# --- writing ----------------------------------------------------------------------------------------------------------


def matrix(ctx, array=A, pair="MC_MR"):
    return DistMatrix.from_global(ctx.comm, array, Layout.of(pair, array.shape, ctx.comm.size))


def writing(name, write, *arguments, array=A, **how):
    CASES[name] = lambda ctx: write(ctx, matrix(ctx, array), *arguments, **how)


for name in ("../outside/new.npy", "folder/new.npy", "link.npy", "."):
    writing(f"write npy {name}", files.write_npy, name, overwrite=True)
writing("write npy there", files.write_npy, "good.npy")
writing("write npy over folder", files.write_npy, "other", overwrite=True)
writing("write npy nowhere", files.write_npy, "none/new.npy")
writing("write npy below file", files.write_npy, "good.npy/new.npy")
writing("write npy name", files.write_npy, "x" * 300)
writing("write hdf5 there", files.write_hdf5, "x.h5", "A")
writing("write hdf5 over group", files.write_hdf5, "x.h5", "group", overwrite=True)
writing("write hdf5 below dataset", files.write_hdf5, "x.h5", "A/B", overwrite=True)
writing("write hdf5 through link", files.write_hdf5, "x.h5", "outward", overwrite=True)
writing("write hdf5 over garbage", files.write_hdf5, "garbage.h5", "A", overwrite=True)
writing("write hdf5 no name", files.write_hdf5, "x.h5", "/")
writing("write zarr there", files.write_zarr, "g.zarr", "A")
writing("write zarr over group", files.write_zarr, "g.zarr", overwrite=True)
writing("write zarr over file", files.write_zarr, "g.zarr", "zarr.json", overwrite=True)
writing("write zarr below array", files.write_zarr, "g.zarr", "A/B")
writing("write zarr over link", files.write_zarr, "g.zarr", "away", overwrite=True)
writing("write zarr up", files.write_zarr, "g.zarr", "../new")
writing("write zarr beside other things", files.write_zarr, "other", "A", overwrite=True)
writing("write zarr into all", files.write_zarr, ".", overwrite=True)
writing("write zarr consolidated", files.write_zarr, "known.zarr", "B")
writing("write zarr chunks", files.write_zarr, "new.zarr", chunks=[0, 4])
writing("write zarr compression", files.write_zarr, "new.zarr", compression="pickle")
writing("write parquet there", files.write_parquet, "t.parquet")
writing("write parquet over other things", files.write_parquet, "other", overwrite=True)
writing("write parquet into all", files.write_parquet, ".", overwrite=True)
writing("write parquet complex", files.write_parquet, "new", array=A * 1j)
writing("write parquet columns", files.write_parquet, "new", ["a", "b"])
writing("write parquet compression", files.write_parquet, "new", compression="nonsense")

LARGE = np.random.default_rng(0).normal(size=(3000, 40))
WRITERS = {
    "npy": (files.write_npy, ("good.npy",)),
    "hdf5": (files.write_hdf5, ("x.h5", "A")),
    "zarr": (files.write_zarr, ("g.zarr", "A")),
    "parquet": (files.write_parquet, ("t.parquet",)),
}


@contextlib.contextmanager
def smallest_files(nbytes):
    """Limit the size of files that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def no_room(write, arguments):
    def act(ctx):
        with smallest_files(2**15):
            write(ctx, matrix(ctx, LARGE), *arguments, overwrite=True)

    return act


def late_failure(write, arguments):
    """Let the disk of the last rank fill up while it writes, on a system that cannot reserve space."""

    def act(ctx):
        allocate, pwrite = linux.allocate, os.pwrite

        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        linux.allocate = lambda *arguments: None
        os.pwrite = full if ctx.comm.rank == ctx.comm.size - 1 else pwrite
        try:
            write(ctx, matrix(ctx, LARGE), *arguments, overwrite=True)
        finally:
            linux.allocate, os.pwrite = allocate, pwrite

    return act


for kind, (write, arguments) in WRITERS.items():
    CASES[f"no room for {kind}"] = no_room(write, arguments)
for kind in ("npy", "hdf5"):
    CASES[f"disk full while writing {kind}"] = late_failure(*WRITERS[kind])


# --- results ----------------------------------------------------------------------------------------------------------


def state(*folders):
    """Return a digest of every file under some folders."""
    found = {}
    for folder in folders:
        for where, _, names in os.walk(folder):
            found[where] = "folder"
            for each in (Path(where, name) for name in names):
                content = str(each.readlink()).encode() if each.is_symlink() else b""
                if each.is_file() and not each.is_symlink():
                    content = each.read_bytes()
                found[str(each)] = hashlib.sha256(content).hexdigest()
    return found


def outcome(ctx, act):
    """Return the class and the text of the error that a case raises."""
    try:
        act(ctx)
    except Exception as error:  # noqa: BLE001 - the test asks which one
        return type(error).__name__, str(error)
    return "none", ""


def main():
    comm = MPI.COMM_WORLD
    base = Path(sys.argv[1])
    inside, outside = base / "inside", base / "outside"
    if comm.rank == 0:
        for folder in (inside, outside):
            folder.mkdir()
        for make in (make_npy, make_hdf5, make_zarr, make_parquet):
            make(inside, outside)
    comm.Barrier()
    ctx = TaskContext(comm, directories=(inside,))
    report = {}
    for name, act in CASES.items():
        before = state(inside, outside) if comm.rank == 0 else None
        said = comm.allgather(outcome(ctx, act))
        if comm.rank == 0:
            after = state(inside, outside)
            changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
            text = next((text for kind, text in said if kind != "PeerFailedError"), "")
            report[name] = {"kinds": [kind for kind, _ in said], "text": text, "changed": changed}
    if comm.rank == 0:
        print(json.dumps(report))


main()
