"""Files read and written by all ranks, under real mpiexec: round trips, files of other programs, refused input."""

import json
import math
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.layouts.layout import PAIRS
from alchemist_ray.layouts.spec import DTYPES
from alchemist_ray.mpi_backend.matrices import slab_schedules
from alchemist_ray.mpi_backend.matrices.slab_schedules import RowSchedule, even_bounds, schedule_for

PROGRAMS = Path(__file__).parents[1] / "programs"
MPIEXEC = Path(sys.executable).with_name("mpiexec")
FORMATS = ("npy", "hdf5", "zarr", "parquet")


def command(program, size, folder):
    return [str(MPIEXEC), "-n", str(size), sys.executable, "-m", "mpi4py", str(PROGRAMS / program), str(folder)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a program on a number of ranks, at most once; return its report."""

    @cache
    def ran(program, size):
        folder = tmp_path_factory.mktemp("files")
        done = subprocess.run(command(program, size, folder), capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    return ran


# --- reading and writing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_matrices_of_all_types_and_layouts_come_back_from_all_formats(size, run):
    said = run("files_roundtrips.py", size)
    assert said["wrong"] == []
    assert said["left"] == []
    for name in FORMATS:
        dtypes = [dtype for dtype in DTYPES if name != "parquet" or not dtype.startswith("complex")]
        assert said["checked"][name] == sorted([*PAIRS, *dtypes])
    assert said["texts"] == ["reading", "writing"]
    assert said["ends"] == 2 * (28 + 3 * 14)


@pytest.mark.parametrize("size", [1, 3])
def test_files_of_other_programs_are_read(size, run):
    said = run("files_foreign.py", size)
    assert said["wrong"] == []
    assert {name: sum(label.startswith(name) for label in said["labels"]) for name in FORMATS} == {
        "npy": 14,
        "hdf5": 24,
        "zarr": 10,
        "parquet": 7,
    }
    described = said["described"]
    assert {name: what["format"] for name, what in described.items()} == {
        "fortran.npy": "npy",
        "x.h5": "hdf5",
        "group.zarr": "zarr",
        "parts": "parquet",
        "block.h5": "hdf5",
    }
    datasets = {row["name"]: row for row in described["x.h5"]["datasets"]}
    assert datasets["chunked"] == {"name": "chunked", "shape": [37, 11], "dtype": "float64", "chunks": [4, 3]}
    assert datasets["half"]["dtype"] == "float16"
    assert datasets["vector"]["shape"] == [37]
    assert [row["dtype"] for row in described["parts"]["datasets"]] == ["int16", "bool", "float32", "int32", "bool"]
    assert [row["name"] for row in described["group.zarr"]["datasets"]] == ["inner/sparse", "vector"]


def test_the_library_describes_the_tasks_that_clients_call(run):
    tasks = run("files_foreign.py", 1)["library"]
    assert sorted(tasks) == ["describe"] + [f"{way}_{name}" for way in ("read", "write") for name in sorted(FORMATS)]
    assert tasks["read_hdf5"] == ["path", "dataset", "layout", "dtype"]
    assert tasks["write_zarr"] == ["A", "path", "array", "chunks", "compression", "overwrite"]


def test_memory_beside_the_matrix_is_bounded(run):
    risen = run("files_memory.py", 2)
    assert len(risen) == 13
    assert {name: mib for name, mib in risen.items() if mib > 32} == {}


# --- refused input ----------------------------------------------------------------------------------------------------

OUTSIDE = ("FileRefusedError", "alchemist serve --data-dir")
REFUSED = {
    "npy outside '../outside/secret.npy'": OUTSIDE,
    "npy outside 'link.npy'": OUTSIDE,
    "npy outside 'folder/secret.npy'": OUTSIDE,
    "npy outside '/etc/passwd'": OUTSIDE,
    "npy outside ''": ("FileRefusedError", "not a valid path"),
    r"npy outside 'good\x00.npy'": ("FileRefusedError", "not a valid path"),
    "npy missing none": ("FileMissingError", "none"),
    "npy missing good.npy/below": ("FileMissingError", "good.npy/below"),
    "npy cut": ("FileContentError", "ends early: 8 bytes"),
    "npy stub": ("FileContentError", "not a .npy file"),
    "npy garbage": ("FileContentError", "not a .npy file"),
    "npy cube": ("FileContentError", "3 dimensions"),
    "npy scalar": ("FileContentError", "0 dimensions"),
    "npy half": ("FileContentError", "float16, but matrices have one of float64"),
    "npy text": ("FileContentError", "not numeric"),
    "npy pairs": ("FileContentError", "not numeric"),
    "npy pickle": ("FileContentError", "object, which is not numeric"),
    "npy pipe": ("FileContentError", "neither a file nor a directory"),
    "npy folder": ("FileContentError", "a directory"),
    "npy int overflow": ("FileContentError", "do not fit into int32"),
    "npy to int": ("ArgumentValueError", "float64"),
    "npy to nonsense": ("ArgumentValueError", "'float16'"),
    "npy layout": ("LayoutError", "MC_MC"),
    "npy grid": ("LayoutError", "7x7"),
    "hdf5 none": ("DatasetMissingError", "it has A, broken, cube, group/B"),
    "hdf5 group": ("DatasetMissingError", "group"),
    "hdf5 group/none": ("DatasetMissingError", "group/none"),
    "hdf5 A/below": ("DatasetMissingError", "A/below"),
    "hdf5 names": ("FileContentError", "not numeric"),
    "hdf5 cube": ("FileContentError", "3 dimensions"),
    "hdf5 scalar": ("FileContentError", "0 dimensions"),
    "hdf5 nothing": ("FileContentError", "no elements"),
    "hdf5 circle": ("FileRefusedError", "link"),
    "hdf5 outward": OUTSIDE,
    "hdf5 dangling": ("FileMissingError", "nowhere.h5"),
    "hdf5 raw": OUTSIDE,
    "hdf5 raw_cut": ("FileContentError", "ends early"),
    "hdf5 broken": ("FileContentError", "x.h5:broken"),
    "hdf5 virtual_out": OUTSIDE,
    "hdf5 virtual_deep": ("FileRefusedError", "second.h5"),
    "hdf5 virtual_around": ("FileRefusedError", "link"),
    "hdf5 virtual_pattern": ("FileRefusedError", "pattern"),
    "hdf5 virtual_gone": ("FileMissingError", "nowhere.h5"),
    "hdf5 cut": ("FileContentError", "truncated"),
    "hdf5 garbage": ("FileContentError", "signature"),
    "zarr 'none'": ("DatasetMissingError", "it has A, broken, cube, linked"),
    "zarr ''": ("DatasetMissingError", "it has A, broken, cube, linked"),
    "zarr 'broken'": ("FileContentError", "chunk"),
    "zarr 'linked'": ("FileRefusedError", "link"),
    "zarr 'cube'": ("FileContentError", "3 dimensions"),
    "zarr '../x'": ("DatasetMissingError", "../x"),
    "zarr '../../outside/A'": OUTSIDE,
    "zarr 'away'": OUTSIDE,
    "zarr pickle.zarr": ("FileRefusedError", "'pickle'"),
    "zarr masked.zarr": ("FileRefusedError", "'pickle'"),
    "zarr bad.zarr": ("FileContentError", "zarr.json"),
    "zarr other": ("FileContentError", "not a Zarr store"),
    "zarr good.npy": ("FileContentError", "not a Zarr store"),
    "parquet cut.parquet": ("FileContentError", "cut.parquet"),
    "parquet garbage.h5": ("FileContentError", "garbage.h5"),
    "parquet other": ("FileContentError", "no files *.parquet"),
    "parquet linked": ("FileRefusedError", "part.parquet"),
    "parquet columns string": ("FileContentError", "'s' has type string"),
    "parquet columns int null": ("FileContentError", "dtype='float64'"),
    "parquet columns none": ("DatasetMissingError", "it has x, k, s"),
    "parquet columns twice": ("FileContentError", "2 columns with the name 'x'"),
    "parquet columns mixed": ("DatasetMissingError", "'x'"),
    "parquet columns broken": ("FileContentError", "broken.parquet"),
    "no directories": OUTSIDE,
    "h5py is not installed on the last rank": ("LibraryLoadError", "pip install 'alchemist-ray[files]'"),
    "the first rank has no memory": ("MatrixMemoryError", "2 bytes"),
    "the last rank may not read": ("FileRefusedError", "may not read"),
    "the last rank sees another file": ("FileContentError", "a different file"),
    "describe garbage": ("FileContentError", "not an HDF5, .npy or Parquet file"),
    "write npy ../outside/new.npy": OUTSIDE,
    "write npy folder/new.npy": OUTSIDE,
    "write npy link.npy": OUTSIDE,
    "write npy .": ("FileRefusedError", "one of the directories for files"),
    "write npy there": ("FileWriteError", "overwrite=True"),
    "write npy over folder": ("FileWriteError", "directory"),
    "write npy nowhere": ("FileWriteError", "its directory does not exist"),
    "write npy below file": ("FileWriteError", "its directory does not exist"),
    "write npy name": ("FileWriteError", "too long"),
    "write hdf5 there": ("FileWriteError", "overwrite=True"),
    "write hdf5 over group": ("FileWriteError", "group in it is a link or not a dataset"),
    "write hdf5 below dataset": ("FileWriteError", "A in it is a link or not a group"),
    "write hdf5 through link": ("FileWriteError", "outward in it is a link or not a dataset"),
    "write hdf5 over garbage": ("FileWriteError", "not an HDF5 file"),
    "write hdf5 no name": ("ArgumentValueError", "'/'"),
    "write zarr there": ("FileWriteError", "overwrite=True"),
    "write zarr over group": ("FileWriteError", "not a Zarr array"),
    "write zarr over file": ("FileWriteError", "not a Zarr array"),
    "write zarr below array": ("FileWriteError", "not a Zarr group"),
    "write zarr over link": ("FileWriteError", "not a Zarr array"),
    "write zarr up": ("FileWriteError", "'../new'"),
    "write zarr beside other things": ("FileWriteError", "not a Zarr group"),
    "write zarr into all": ("FileWriteError", "not a Zarr array"),
    "write zarr consolidated": ("FileWriteError", "consolidated"),
    "write zarr chunks": ("ArgumentValueError", "[0, 4]"),
    "write zarr compression": ("ArgumentValueError", "'pickle'"),
    "write parquet there": ("FileWriteError", "overwrite=True"),
    "write parquet over other things": ("FileWriteError", "notes.txt"),
    "write parquet into all": ("FileWriteError", "not replaced"),
    "write parquet complex": ("ArgumentValueError", "complex128"),
    "write parquet columns": ("ArgumentValueError", "5 names"),
    "write parquet compression": ("ArgumentValueError", "'nonsense'"),
    "no room for npy": ("FileWriteError", "File too large"),
    "no room for hdf5": ("FileWriteError", "File too large"),
    "no room for zarr": ("FileWriteError", "File too large"),
    "no room for parquet": ("FileWriteError", "File too large"),
    "disk full while writing npy": ("FileWriteError", "No space left"),
    "disk full while writing hdf5": ("FileWriteError", "No space left"),
}


@pytest.mark.parametrize("size", [2, 3])
def test_invalid_input_fails_on_every_rank_and_changes_nothing(size, run):
    said = run("files_refusals.py", size)
    assert set(said) == set(REFUSED)
    wrong = {}
    for name, (kind, fragment) in REFUSED.items():
        kinds = set(said[name]["kinds"])
        fine = kind in kinds and kinds <= {kind, "PeerFailedError"} and fragment in said[name]["text"]
        if not fine or said[name]["changed"]:
            wrong[name] = said[name]
    assert wrong == {}


def test_the_other_ranks_learn_of_a_failure_on_one_rank(run):
    said = run("files_refusals.py", 2)
    alone = ["hdf5 broken", "zarr 'broken'", "parquet columns broken", "the last rank may not read"]
    for name in [*alone, "the last rank sees another file", "disk full while writing npy"]:
        assert said[name]["kinds"] == ["PeerFailedError", REFUSED[name][0]], name


def test_a_full_disk_leaves_the_old_files(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    mount = f"mount -t tmpfs -o size=2m none '{tmp_path}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let us mount a file system")
    arguments = " ".join(f"'{word}'" for word in command("files_full_disk.py", 2, tmp_path))
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && exec {arguments}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout)
    assert set(said) == set(FORMATS)
    for name, what in said.items():
        assert "FileWriteError" in what["kinds"], name
        assert set(what["kinds"]) <= {"FileWriteError", "PeerFailedError"}, name
        assert "No space left" in what["text"] or "errno = 28" in what["text"], name
        assert what["old_stands"], name
        assert what["left"] == [], name


# --- schedules --------------------------------------------------------------------------------------------------------

extents = st.integers(1, 60)


@given(
    shape=st.tuples(extents, extents),
    chunk=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    itemsize=st.sampled_from([1, 4, 8, 16]),
    size=st.integers(1, 6),
    slab_bytes=st.sampled_from([16, 100, 1000, 10**6]),
)
@settings(deadline=None, max_examples=300)
def test_a_schedule_covers_the_matrix_once_and_gives_no_chunk_to_two_ranks(shape, chunk, itemsize, size, slab_bytes):
    before, slab_schedules.SLAB_BYTES = slab_schedules.SLAB_BYTES, slab_bytes
    try:
        schedule = schedule_for(shape, chunk, itemsize, size)
    finally:
        slab_schedules.SLAB_BYTES = before
    covered, owner, visits = np.zeros(shape, int), {}, {}
    for rank in range(size):
        for window in range(schedule.windows + 2):
            slab = schedule.slab(rank, window)
            assert slab.area <= schedule.largest
            assert slab.area * itemsize <= slab_bytes
            assert window < schedule.windows or not slab.area
            slab.of(covered)[...] += 1
            if slab.area:
                for place in np.ndindex(*(math.ceil(extent / step) for extent, step in zip(shape, chunk, strict=True))):
                    rows, cols = ((k * step, (k + 1) * step) for k, step in zip(place, chunk, strict=True))
                    if slab.i0 < rows[1] and rows[0] < slab.i1 and slab.j0 < cols[1] and cols[0] < slab.j1:
                        assert owner.setdefault(place, rank) == rank
                        visits.setdefault(place, []).append(window)
    assert (covered == 1).all()
    whole = min(chunk[0], shape[0]) * min(chunk[1], shape[1]) * itemsize <= slab_bytes
    for windows in visits.values():
        # a chunk that takes several windows stays in memory between them, so they must follow each other
        assert windows == list(range(windows[0], windows[0] + len(windows))) or not whole
        assert len(windows) == 1 or not whole


@given(m=st.integers(1, 10**12), size=st.integers(1, 100_000))
@settings(deadline=None)
def test_rows_are_dealt_as_the_default_block_of_vc_star_deals_them(m, size):
    bounds = even_bounds(m, size)
    share = -(-m // size)
    assert len(bounds) == size + 1
    assert (bounds[0], bounds[1], bounds[-1]) == (0, min(share, m), m)
    assert max(stop - start for start, stop in pairwise(bounds)) == share


def test_slabs_of_runs_of_rows_end_with_the_run():
    schedule = RowSchedule((0, 5, 5, 7), n=3, height=4)
    assert schedule.windows == 2
    assert schedule.largest == 12
    slabs = [[(slab.i0, slab.i1) for slab in (schedule.slab(rank, w) for w in range(2))] for rank in range(3)]
    assert slabs == [[(0, 4), (4, 5)], [(5, 5), (5, 5)], [(5, 7), (7, 7)]]
