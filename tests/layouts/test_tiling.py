"""Copies between a whole matrix and the block of one rank, compared with NumPy's own indexing."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alchemist_ray.layouts import tiling
from alchemist_ray.layouts.layout import AxisPart, Grid, Layout
from alchemist_ray.layouts.tiling import copy, gather, scatter, tiles

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
"""Ways in which a matrix may lie in memory. Each function returns a view equal to A."""


def _within(A, window, shape=None):
    """Return a view equal to `A`: the `window` of a larger array."""
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


# --- rectangles of a matrix -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("rows", "cols"), PARTS)
def test_a_rectangle_of_the_matrix_is_enough_where_its_corner_is_given(rows, cols, order):
    low, high = (5, 3), (19, 14)
    rectangle = np.asarray(matrix()[5:19, 3:14], order=order)
    (i0, i1), (j0, j1) = (part.local_range(a, b) for part, a, b in zip((rows, cols), low, high, strict=True))
    expected = matrix()[picked(rows, cols)][i0:i1, j0:j1]
    block = np.full((i1 - i0, j1 - j0), -7.0)
    scatter(rectangle, block, rows, cols, (i0, j0), low)
    np.testing.assert_array_equal(block, expected)
    back = np.zeros_like(rectangle)
    gather(block, back, rows, cols, (i0, j0), low)
    whole = np.zeros((M, N))
    whole[picked(rows, cols)] = matrix()[picked(rows, cols)]
    np.testing.assert_array_equal(back, whole[5:19, 3:14])


# --- one strided copy -------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_caches(monkeypatch):
    """Make the tiles tiny, so that small arrays have many tiles and incomplete ones at the edges."""
    sizes = {
        "SMALL_BYTES": 0,
        "FEW_LINES": 1,
        "TILE_BYTES": 96,
        "TILE_RUN": 3,
        "STAGE_BYTES": 256,
        "STAGE_RUN": 4,
        "PAGE_BYTES": 16,
    }
    for name, size in sizes.items():
        monkeypatch.setattr(tiling, name, size)


ALL_DTYPES = ["float64", "float32", "complex128", "complex64", "int64", "int32", "bool", ">f8"]


@st.composite
def strided_arrays(draw, shape, dtype):
    """Return an array of `shape` whose axes have any order in memory, with gaps and in either direction."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in shape]
    gaps = [draw(st.sampled_from([0, 0, 5])) for _ in shape]
    around = np.zeros([shape[k] * abs(steps[k]) + gaps[k] for k in order], dtype)
    window = tuple(slice(None, None, steps[k]) for k in order)
    array = around[window].transpose(np.argsort(order))[tuple(slice(n) for n in shape)]
    return around, array


@st.composite
def copies(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    dtype = draw(st.sampled_from(ALL_DTYPES))
    return draw(strided_arrays(shape, dtype)), draw(strided_arrays(shape, dtype))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(copies())
def test_any_strides_are_copied_to_any_others(tiny_caches, case):
    (around, target), (_, source) = case
    source[...] = (1 + np.arange(source.size) % 2 * 5).reshape(source.shape)
    expected = around.copy()
    offset = target.__array_interface__["data"][0] - around.__array_interface__["data"][0]
    np.ndarray(target.shape, target.dtype, expected, offset, target.strides)[...] = source
    copy(target, source)
    np.testing.assert_array_equal(target, source)
    np.testing.assert_array_equal(around, expected)  # and nothing between


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("shape", [(700, 300), (513, 130), (1024, 512), (65, 2000), (2000, 65), (3, 4000)])
def test_a_matrix_is_copied_across_its_order(shape, dtype):
    A = (np.arange(shape[0] * shape[1]).reshape(shape) % 251 % 7).astype(dtype)
    for order in ("C", "F"):
        target = np.zeros(shape, dtype, order)
        copy(target, np.asarray(A, order="F" if order == "C" else "C"))
        np.testing.assert_array_equal(target, A)
        copy(target.T, np.zeros(shape[::-1], dtype, order))
        assert not target.any()


@pytest.mark.parametrize("block", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_of_a_large_matrix_are_scattered_and_gathered_in_any_order(block, order):
    A = np.asarray(np.arange(600 * 401.0).reshape(600, 401), order=order)
    back = np.zeros_like(A)
    for position in range(3):
        rows, cols = AxisPart(600, block, 2, position % 2), AxisPart(401, block + 1, 3, position)
        local = np.empty((rows.size, cols.size))
        scatter(A, local, rows, cols)
        np.testing.assert_array_equal(local, A[picked(rows, cols)])
        gather(local, back, rows, cols)
        np.testing.assert_array_equal(back[picked(rows, cols)], local)


def test_elements_are_cast_within_their_kind_only(tiny_caches):
    target = np.zeros((20, 30))
    copy(target, np.arange(600, dtype=np.int32).reshape(30, 20).T)
    np.testing.assert_array_equal(target, np.arange(600).reshape(30, 20).T)
    with pytest.raises(TypeError, match="cast"):
        copy(np.zeros((20, 30), int), target)


def test_one_row_is_copied_to_all_where_the_source_repeats_it(tiny_caches):
    target = np.zeros((30, 20), order="F")
    copy(target, np.broadcast_to(np.arange(20.0), (30, 20)))
    np.testing.assert_array_equal(target, np.tile(np.arange(20.0), (30, 1)))


@pytest.mark.parametrize("shapes", [((4, 5), (5, 4)), ((4, 5), (1, 5)), ((4, 5), (5,)), ((100, 100), (100, 1))])
def test_arrays_of_different_shapes_are_not_copied(shapes):
    target, source = map(np.zeros, shapes)
    with pytest.raises(ValueError, match="cannot be copied"):
        copy(target, source)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_read_only_target_is_not_copied_to(tiny_caches, order):
    target = np.zeros((40, 50), order=order)
    target.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        copy(target, np.ones((40, 50)))
    assert not target.any()
