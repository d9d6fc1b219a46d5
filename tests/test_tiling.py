"""Copies between a whole matrix and the block of one rank, against NumPy's own indexing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.layout import AxisPart, Grid, Layout
from alchemist_ray.tiling import gather, scatter, tiles

M, N = 23, 17

VIEWS = {
    "C": lambda A: A.copy(),
    "Fortran": np.asfortranarray,
    "every second row, every third column": lambda A: _within(A, np.s_[::2, ::3]),
    "rows reversed": lambda A: _within(A, np.s_[::-1, :]),
    "both reversed, strided": lambda A: _within(A, np.s_[::-2, ::-3]),
    "transpose": lambda A: A.T.copy().T,
    "columns of a wider matrix": lambda A: _within(A, np.s_[:, 5 : 5 + N], (M, N + 9)),
}
"""How a matrix may lie in memory: each makes a view equal to A."""


def _within(A, window, shape=None):
    """Return a view, equal to `A`, that is the `window` of a larger array."""
    around = np.full(shape or (3 * A.shape[0], 4 * A.shape[1]), -1, A.dtype)
    view = around[window][: A.shape[0], : A.shape[1]]
    view[...] = A
    return view


def matrix(dtype=float):
    return np.arange(M * N).reshape(M, N).astype(dtype)


PARTS = [
    pytest.param(AxisPart(M, 1, 3, 1), AxisPart(N, 1, 2, 0), id="block 1"),
    pytest.param(AxisPart(M, 4, 2, 1), AxisPart(N, 3, 2, 0), id="block 4x3"),
    pytest.param(AxisPart(M, 5, 3, 0), AxisPart(N, 5, 3, 2), id="block 5"),
    pytest.param(AxisPart(M, M, 1, 0), AxisPart(N, 2, 4, 3), id="whole rows"),
    pytest.param(AxisPart(M, 7, 4, 3), AxisPart(N, N, 1, 0), id="broken last block"),
    pytest.param(AxisPart(M, 100, 2, 0), AxisPart(N, 100, 1, 0), id="block larger than the matrix"),
    pytest.param(AxisPart(M, 100, 2, 1), AxisPart(N, 4, 1, 0), id="nothing"),
    pytest.param(AxisPart(M, 3, 1, 0), AxisPart(N, 4, 1, 0), id="everything, in blocks"),
]


def picked(rows, cols):
    return np.ix_(rows.indices(), cols.indices())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("rows", "cols"), PARTS)
def test_scatter_takes_what_fancy_indexing_takes(rows, cols, view):
    A = VIEWS[view](matrix())
    local = np.full((rows.size, cols.size), -7.0)
    scatter(A, local, rows, cols)
    np.testing.assert_array_equal(local, matrix()[picked(rows, cols)])
    np.testing.assert_array_equal(A, matrix())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("rows", "cols"), PARTS)
def test_gather_puts_where_fancy_indexing_puts_and_nowhere_else(rows, cols, view):
    local = 1000.0 + np.arange(rows.size * cols.size).reshape(rows.size, cols.size)
    A = VIEWS[view](matrix())
    gather(local, A, rows, cols)
    expected = matrix()
    expected[picked(rows, cols)] = local
    np.testing.assert_array_equal(A, expected)


@pytest.mark.parametrize(
    "view", ["every second row, every third column", "both reversed, strided", "columns of a wider matrix"]
)
def test_gather_writes_nothing_between_the_elements_of_a_view(view):
    A = VIEWS[view](matrix())
    around = A.base
    touched = np.count_nonzero(around == -1)
    rows, cols = AxisPart(M, 4, 2, 1), AxisPart(N, 3, 2, 0)
    gather(np.full((rows.size, cols.size), 1000.0), A, rows, cols)
    assert np.count_nonzero(around == -1) == touched
    assert np.count_nonzero(around == 1000.0) == rows.size * cols.size


@pytest.mark.parametrize(("rows", "cols"), PARTS)
def test_windows_of_a_block_are_scattered_and_gathered_by_their_origin(rows, cols):
    whole = matrix()[picked(rows, cols)]
    for i0 in range(0, rows.size, 3):
        for j0 in range(0, cols.size, 2):
            window = np.full((min(4, rows.size - i0), min(5, cols.size - j0)), -7.0)
            scatter(matrix(), window, rows, cols, (i0, j0))
            expected = whole[i0 : i0 + 4, j0 : j0 + 5]
            np.testing.assert_array_equal(window, expected)
            A = np.zeros((M, N))
            gather(window, A, rows, cols, (i0, j0))
            place = np.ix_(rows.indices()[i0 : i0 + 4], cols.indices()[j0 : j0 + 5])
            np.testing.assert_array_equal(A[place], expected)
            assert np.count_nonzero(A) == np.count_nonzero(expected)


def test_a_window_may_be_a_view_of_the_block():
    rows, cols = AxisPart(M, 4, 2, 1), AxisPart(N, 3, 2, 0)
    block = np.zeros((rows.size, cols.size))
    scatter(matrix(), block[2:7, 1:6], rows, cols, (2, 1))
    expected = np.zeros_like(block)
    expected[2:7, 1:6] = matrix()[picked(rows, cols)][2:7, 1:6]
    np.testing.assert_array_equal(block, expected)


def test_a_read_only_matrix_is_scattered():
    A = matrix()
    A.flags.writeable = False
    rows, cols = AxisPart(M, 4, 2, 1), AxisPart(N, 3, 2, 0)
    local = np.empty((rows.size, cols.size))
    scatter(A, local, rows, cols)
    np.testing.assert_array_equal(local, A[picked(rows, cols)])


def test_a_read_only_matrix_is_not_gathered_into():
    A = matrix()
    A.flags.writeable = False
    rows, cols = AxisPart(M, 4, 2, 1), AxisPart(N, 3, 2, 0)
    with pytest.raises(ValueError, match="read-only"):
        gather(np.zeros((rows.size, cols.size)), A, rows, cols)
    np.testing.assert_array_equal(A, matrix())


def test_a_memory_mapped_matrix_is_scattered_and_gathered(tmp_path):
    np.save(tmp_path / "A.npy", matrix())
    A = np.load(tmp_path / "A.npy", mmap_mode="r+")
    rows, cols = AxisPart(M, 4, 2, 1), AxisPart(N, 3, 2, 0)
    local = np.empty((rows.size, cols.size))
    scatter(A, local, rows, cols)
    np.testing.assert_array_equal(local, matrix()[picked(rows, cols)])
    gather(-local, A, rows, cols)
    np.testing.assert_array_equal(A[picked(rows, cols)], -local)


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "complex64", "int64", "int32", "bool", ">f8"])
def test_every_element_type_is_copied(dtype):
    A = matrix(dtype)
    rows, cols = AxisPart(M, 4, 2, 1), AxisPart(N, 1, 2, 0)
    local, back = np.zeros((rows.size, cols.size), dtype), np.zeros_like(A)
    scatter(A, local, rows, cols)
    np.testing.assert_array_equal(local, A[picked(rows, cols)])
    gather(local, back, rows, cols)
    np.testing.assert_array_equal(back[picked(rows, cols)], local)


@pytest.mark.parametrize(("rows", "cols"), PARTS)
def test_a_block_is_covered_by_at_most_nine_pairs_of_equally_shaped_views(rows, cols):
    local, A = np.zeros((rows.size, cols.size)), matrix()
    pairs = list(tiles(A, local, rows, cols))
    assert len(pairs) <= 9
    for of_matrix, of_local in pairs:
        assert of_matrix.shape == of_local.shape
        of_local += 1
    np.testing.assert_array_equal(local, 1)


@st.composite
def cases(draw):
    m, n = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    grid = Grid(draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    block = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return (m, n), Layout(draw(st.sampled_from(["MC_MR", "MR_MC", "VC_STAR", "STAR_VR", "MD_STAR"])), grid, block)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["C", "F"]))
def test_what_all_ranks_scatter_is_gathered_again(case, order):
    (m, n), layout = case
    A = np.asarray(np.arange(1.0, m * n + 1).reshape(m, n), order=order)
    back = np.zeros_like(A)
    for rank in range(layout.grid.size):
        rows, cols = layout.part((m, n), rank)
        local = np.empty((rows.size, cols.size))
        scatter(A, local, rows, cols)
        gather(local, back, rows, cols)
    np.testing.assert_array_equal(back, A)
