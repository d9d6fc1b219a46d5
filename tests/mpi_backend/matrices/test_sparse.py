"""Sparse matrices: slabs in one buffer, and computations under real mpiexec, compared with SciPy."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from alchemist_ray.errors import InvalidArrayError
from alchemist_ray.layouts.csr import CsrArrays, CsrShape, check, fill, place, slab_rows
from alchemist_ray.layouts.layout import Layout

PROGRAM = Path(__file__).parents[1] / "programs" / "sparse_cases.py"
CASES = {
    "dense_copies": 7 * 6 + 2,
    "arithmetic": 14 * 16 - 2 + 7 * 7,
    "multiple_singular_values": 7,
    "trust": 10,
    "refusals": 20,
    "no_room": 5,
}
DEALT = {
    "buffers": 7 * 5 * 5,
    "transposes": 7 * 5 * 3,
    "of_two": 7 * 7,
    "products": 3 * 4 * 4 * 2,
    "types_of_products": 6 * 6,
    "singular_values": 5 + 4 + 3 * (4 + 2),  # the last term on each of them
}
"""Number of cases that 2, 3 and 4 ranks together must try, of the cases that are shared among them."""


@cache
def report(size):
    """Run the program once on `size` ranks; return the number of cases of each group, and the failures."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", str(size), sys.executable, "-m", "mpi4py", PROGRAM]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=environment)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return {name: (count, wrong) for name, count, wrong in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("group", [*CASES, *DEALT])
def test_it_is_as_scipy_says(size, group):
    count, wrong = report(size)[group]
    assert not wrong, "\n".join(wrong[:20])
    assert count == CASES.get(group, count)


def test_all_cases_that_are_dealt_out_are_tried():
    assert {group: sum(report(size)[group][0] for size in (2, 3, 4)) for group in DEALT} == DEALT


# --- one buffer -------------------------------------------------------------------------------------------------------


def views(rows, cols, nnz, dtype="float64"):
    shape = CsrShape(rows, cols, nnz, np.dtype(dtype))
    return shape.views(np.zeros(shape.nbytes, np.uint8))


def matrix():
    A = sp.random_array((30, 20), density=0.2, format="csr", rng=np.random.default_rng(0))
    return CsrArrays(A.indptr, A.indices, A.data)


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "complex64", "int64", "int32", "bool"])
def test_the_arrays_lie_one_after_the_other_at_multiples_of_64(dtype):
    shape = CsrShape(10, 100, 7, np.dtype(dtype))
    buffer = np.zeros(shape.nbytes, np.uint8)
    arrays = shape.views(buffer)
    starts = [each.ctypes.data - buffer.ctypes.data for each in arrays]
    assert starts == [0, 64, 128]  # eleven pointers and seven indices of four bytes
    assert shape.nbytes == 128 + 64 * -(-7 * np.dtype(dtype).itemsize // 64)
    assert [each.size for each in arrays] == [11, 7, 7]
    assert [each.dtype for each in arrays] == [np.int32, np.int32, np.dtype(dtype)]
    for number, each in enumerate(arrays, 1):
        each[...] = number  # no array overwrites another
    assert [int(each.max().real) for each in arrays] == [1, 2, 1 if dtype == "bool" else 3]
    assert (arrays.indptr == 1).all()


@pytest.mark.parametrize(
    ("cols", "nnz", "index"),
    [(2**31 - 1, 5, np.int32), (2**31, 5, np.int64), (5, 2**31 - 1, np.int32), (5, 2**31, np.int64)],
)
def test_integers_are_as_wide_as_they_must_be(cols, nnz, index):
    shape = CsrShape(4, cols, nnz, np.dtype("bool"))
    assert shape.index_dtype == index
    assert shape.nbytes == 64 + -(-nnz * np.dtype(index).itemsize // 64) * 64 + -(-nnz // 64) * 64


def test_a_slab_without_rows_or_entries_has_a_pointer_all_the_same():
    arrays = views(0, 3, 0)
    assert (arrays.rows, arrays.nnz, arrays.indptr.tolist()) == (0, 0, [0])
    check(arrays, 3)


@pytest.mark.parametrize("field", ["rows", "cols", "nnz"])
def test_negative_sizes_are_refused(field):
    sizes = {"rows": 1, "cols": 1, "nnz": 1} | {field: -1}
    with pytest.raises(InvalidArrayError):
        CsrShape(**sizes, dtype=np.dtype(float))


def test_a_buffer_of_another_size_is_refused():
    shape = CsrShape(2, 3, 4, np.dtype(float))
    for nbytes in (0, shape.nbytes - 1, shape.nbytes + 64):
        with pytest.raises(InvalidArrayError, match=str(nbytes)):
            shape.views(np.zeros(nbytes, np.uint8))


@pytest.mark.parametrize(("m", "size"), [(1, 1), (1, 4), (7, 3), (8, 4), (9, 4), (5, 4), (100, 7)])
def test_rows_lie_where_those_of_a_dense_matrix_do(m, size):
    layout = Layout.of("VC_STAR", (m, 3), size)
    for rank in range(size):
        assert list(range(*slab_rows(m, size, rank))) == layout.part((m, 3), rank)[0].indices().tolist()


def test_slabs_are_cut_out_and_put_together_again():
    A = matrix()
    B = CsrArrays(np.full(31, -1, np.int64), np.empty_like(A.indices), np.empty_like(A.values))
    for start, stop in ((20, 30), (0, 7), (7, 7), (7, 20)):
        first, last = int(A.indptr[start]), int(A.indptr[stop])
        slab = views(stop - start, 20, last - first)
        fill(slab, A, start)
        check(slab, 20)
        assert slab.indptr[0] == 0
        place(slab, B, start, first)
    for mine, given in zip(B, A, strict=True):
        np.testing.assert_array_equal(mine, given)


def test_pointers_beyond_32_bits_are_those_of_the_whole():
    whole = CsrArrays(np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0))
    place(views(2, 5, 0), whole, 1, 2**33)
    assert whole.indptr.tolist() == [0, 2**33, 2**33, 2**33]


def test_rows_that_are_not_there_or_have_other_entries_are_refused():
    A = matrix()
    for start, rows, nnz in ((25, 10, 5), (0, 5, A.entries_of(0, 5) + 1)):
        with pytest.raises(InvalidArrayError, match="entries announced"):
            fill(views(rows, 20, nnz), A, start)


def spoilt(indptr=None, indices=None):
    slab = views(3, 4, 5)
    slab.indptr[...] = [0, 2, 2, 5] if indptr is None else indptr
    slab.indices[...] = [0, 3, 1, 1, 2] if indices is None else indices
    return slab


@pytest.mark.parametrize(
    ("slab", "what"),
    [
        (spoilt(indptr=[1, 2, 2, 5]), "from 1 to 5"),
        (spoilt(indptr=[0, 2, 2, 4]), "from 0 to 4"),
        (spoilt(indptr=[0, 2, 2, 6]), "from 0 to 6"),
        (spoilt(indptr=[0, 3, 2, 5]), "local row 1 go from 3 to 2"),
        (spoilt(indptr=[0, -1, 2, 5]), "local row 0 go from 0 to -1"),
        (spoilt(indptr=[0, 2**31 - 1, 2, 5]), "local row 1"),
        (spoilt(indices=[0, 4, 1, 1, 2]), "0..3, but go from 0 to 4"),
        (spoilt(indices=[0, 3, -1, 1, 2]), "go from -1 to 3"),
        (spoilt(indices=[0, 3, -(2**31), 1, 2]), "go from -2147483648"),
    ],
)
def test_what_would_lead_compiled_code_astray_is_refused(slab, what):
    with pytest.raises(InvalidArrayError, match=what):
        check(slab, 4)


def test_pointers_are_looked_at_from_end_to_end():
    slab = views(2**20 + 5, 4, 0)
    check(slab, 4)
    for row in (2**20 - 1, 2**20, 2**20 + 1):
        slab.indptr[row] = 7
        with pytest.raises(InvalidArrayError, match=f"local row {row} go from 7 to 0"):
            check(slab, 4)
        slab.indptr[row] = 0


def test_unsorted_and_repeated_entries_are_no_error():
    check(spoilt(indices=[3, 0, 1, 1, 1]), 4)
