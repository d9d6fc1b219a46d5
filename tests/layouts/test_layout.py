"""Layouts, compared with a second, naive implementation of Elemental's definitions."""

import itertools
import math

import numpy as np
import pytest
from elemental_definitions import layouts, limits, naive_owners, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import LayoutError
from alchemist_ray.layouts.layout import DEFAULT_BLOCK, MAX_EXTENT, PAIRS, AxisPart, Dist, Grid, Layout

# --- ownership --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(layouts(), shapes)
def test_each_element_is_held_by_the_ranks_that_the_definition_names(layout, shape):
    held = {place: set() for place in itertools.product(range(shape[0]), range(shape[1]))}
    for rank in range(layout.grid.size):
        rows, cols = layout.part(shape, rank)
        assert layout.local_shape(shape, rank) == (rows.size, cols.size)
        for i, j in itertools.product(rows.indices().tolist(), cols.indices().tolist()):
            held[i, j].add(rank)
    assert held == {(i, j): naive_owners(layout, i, j) for i, j in held}


@settings(max_examples=100, deadline=None)
@given(layouts(), shapes)
def test_an_element_is_held_exactly_once_where_the_layout_is_not_redundant(layout, shape):
    counts = {len(naive_owners(layout, i, j)) for i in range(shape[0]) for j in range(shape[1])}
    assert layout.redundant == (counts != {1})


@settings(max_examples=100, deadline=None)
@given(layouts(), shapes)
def test_each_element_has_exactly_one_source(layout, shape):
    sources = np.zeros(shape, int)
    for rank in range(layout.grid.size):
        if layout.is_source(rank):
            rows, cols = layout.part(shape, rank)
            sources[np.ix_(rows.indices(), cols.indices())] += 1
    np.testing.assert_array_equal(sources, 1)


@settings(max_examples=100, deadline=None)
@given(layouts(), st.integers(0, 40), st.integers(0, 40))
def test_owners_of_one_element_are_those_of_the_definition_ascending(layout, i, j):
    assert layout.owners(i, j) == tuple(sorted(naive_owners(layout, i, j)))


@settings(max_examples=100, deadline=None)
@given(layouts(), st.integers(0, 20), st.integers(0, 20))
def test_transposing_moves_no_element(layout, i, j):
    transposed = layout.transposed()
    assert transposed.owners(j, i) == layout.owners(i, j)
    assert transposed.transposed() == layout


@settings(max_examples=100, deadline=None)
@given(layouts(), shapes)
def test_the_block_of_the_transpose_is_the_transposed_block(layout, shape):
    for rank in range(layout.grid.size):
        rows, cols = layout.part(shape, rank)
        rows_t, cols_t = layout.transposed().part(shape[::-1], rank)
        assert rows_t.indices().tolist() == cols.indices().tolist()
        assert cols_t.indices().tolist() == rows.indices().tolist()


@pytest.mark.parametrize("pair", PAIRS)
def test_distinct_owners_counts_the_different_parts(pair):
    layout = Layout(pair, Grid(2, 3), (1, 1))
    parts = {tuple(naive_owners(layout, i, j)) for i in range(6) for j in range(6)}
    assert layout.distinct_owners == len(parts)


@pytest.mark.parametrize("pair", PAIRS)
def test_one_rank_holds_everything_in_every_layout(pair):
    layout = Layout.of(pair, (5, 4), 1)
    assert layout.local_shape((5, 4), 0) == (5, 4)
    assert layout.is_source(0)
    assert not layout.redundant


def test_the_14_legal_pairs_are_elementals():
    legal = {"CIRC_CIRC", "STAR_STAR", "MC_MR", "MR_MC"}
    legal |= {f"{dist}_STAR" for dist in ("MC", "MR", "VC", "VR", "MD")}
    legal |= {f"STAR_{dist}" for dist in ("MC", "MR", "VC", "VR", "MD")}
    assert len(PAIRS) == 14
    assert set(PAIRS) == legal
    assert Layout("VC_STAR", Grid(1, 1)).dists == (Dist.VC, Dist.STAR)


# --- one axis ---------------------------------------------------------------------------------------------------------


@st.composite
def axis_parts(draw):
    stride = draw(st.integers(1, 6))
    return AxisPart(draw(st.integers(0, 60)), draw(st.integers(1, 7)), stride, draw(st.integers(0, stride - 1)))


def held(part):
    """Return the indices of a part, found one by one."""
    return [i for i in range(part.extent) if i // part.block % part.stride == part.position]


@settings(max_examples=200, deadline=None)
@given(axis_parts())
def test_indices_and_size_are_those_found_one_by_one(part):
    assert part.indices().tolist() == held(part)
    assert part.indices().dtype == np.int64
    assert part.size == len(held(part))


@settings(max_examples=100, deadline=None)
@given(axis_parts())
def test_local_and_global_indices_are_inverse(part):
    for iloc, i in enumerate(held(part)):
        assert part.to_global(iloc) == i
        assert part.to_local(i) == iloc
    np.testing.assert_array_equal(part.to_local(part.indices()), np.arange(part.size))


@settings(max_examples=100, deadline=None)
@given(axis_parts(), st.data())
def test_local_range_covers_what_is_held_of_a_global_range(part, data):
    start = data.draw(st.integers(0, part.extent))
    stop = data.draw(st.integers(start, part.extent))
    first, last = part.local_range(start, stop)
    assert held(part)[first:last] == [i for i in held(part) if start <= i < stop]
    assert last - first == sum(start <= i < stop for i in held(part))


@settings(max_examples=200, deadline=None)
@given(axis_parts(), st.data())
def test_at_most_three_pieces_cover_a_local_range_in_order(part, data):
    start = data.draw(st.integers(0, part.size))
    stop = data.draw(st.integers(start, part.size))
    pieces = list(part.pieces(start, stop))
    covered, locals_ = [], []
    for piece in pieces:
        assert piece.count > 0
        assert piece.length > 0
        for run in range(piece.count):
            covered += range(piece.start + run * piece.step, piece.start + run * piece.step + piece.length)
        locals_ += range(piece.local, piece.local + piece.count * piece.length)
    assert covered == held(part)[start:stop]
    assert locals_ == list(range(start, stop))
    assert len(pieces) <= 3


@settings(max_examples=50, deadline=None)
@given(axis_parts())
def test_pieces_cover_everything_unless_told_otherwise(part):
    assert list(part.pieces()) == list(part.pieces(0, part.size))
    assert sum(piece.count * piece.length for piece in part.pieces()) == part.size


# --- defaults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "grid"),
    [(1, (1, 1)), (2, (2, 1)), (3, (3, 1)), (4, (2, 2)), (6, (3, 2)), (12, (4, 3)), (10**5, (400, 250))],
)
def test_the_default_grid_is_the_most_square_tall_one(size, grid):
    assert Grid.of_size(size) == Grid(*grid)


@pytest.mark.parametrize("pair", ["VC_STAR", "VR_STAR", "STAR_VC", "STAR_VR"])
@pytest.mark.parametrize(("extent", "size"), [(10, 3), (9, 3), (100_000, 7), (2, 6), (1, 1)])
def test_by_default_an_axis_over_all_ranks_is_one_block_a_rank(pair, extent, size):
    axis = 0 if pair.endswith("STAR") else 1
    shape = (extent, 5) if axis == 0 else (5, extent)
    layout = Layout.of(pair, shape, size)
    assert layout.block[axis] == math.ceil(extent / size)
    for rank in range(size):
        indices = layout.part(shape, rank)[axis].indices()
        assert (np.diff(indices) == 1).all()


def test_the_default_block_of_a_large_matrix_on_the_grid_is_square():
    assert Layout.of("MC_MR", (10_000, 10_000), 4).block == (DEFAULT_BLOCK, DEFAULT_BLOCK)
    assert Layout.of("MR_MC", (10_000, 10_000), 6).block == (DEFAULT_BLOCK, DEFAULT_BLOCK)


@pytest.mark.parametrize("pair", ["MC_MR", "MR_MC"])
@pytest.mark.parametrize("shape", [(10, 10), (300, 300), (1000, 4), (4, 1000), (100_000, 20)])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_by_default_every_rank_of_the_grid_gets_a_block_of_a_matrix_that_is_large_enough(pair, shape, size):
    layout = Layout.of(pair, shape, size)
    assert max(layout.block) <= DEFAULT_BLOCK
    assert all(math.prod(layout.local_shape(shape, rank)) > 0 for rank in range(size))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 1000)])
@pytest.mark.parametrize("size", [1, 2, 6, 7])
def test_defaults_exist_for_every_pair_shape_and_size(pair, shape, size):
    layout = Layout.of(pair, shape, size)
    assert layout.grid.size == size
    held = sum(math.prod(layout.local_shape(shape, rank)) for rank in range(size) if layout.is_source(rank))
    assert held == math.prod(shape)


def test_one_number_is_a_square_block():
    assert Layout.of("MC_MR", (9, 9), 4, block=3).block == (3, 3)
    assert Layout.of("MC_MR", (9, 9), 4, block=(2, 5)).block == (2, 5)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pair", ["", "MC", "MC_MC", "STAR_CIRC", "VC_MR", "mc_mr", "MC-MR", "VC_STAR_", "STAR_STAR_STAR"]
)
def test_a_layout_that_does_not_exist_is_refused_with_those_that_do(pair):
    for make in (lambda: Layout(pair, Grid(1, 1)), lambda: Layout.of(pair, (3, 3), 1)):
        with pytest.raises(LayoutError, match=r"layout .* does not exist.*MC_MR.*VC_STAR") as caught:
            make()
        assert repr(pair) in str(caught.value)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("grid", [(0, 1), (1, 0), (-1, -1), (0, 0)])
def test_a_grid_without_ranks_is_refused(grid):
    with pytest.raises(LayoutError, match="no ranks"):
        Grid(*grid)


@pytest.mark.parametrize("size", [0, -1])
def test_a_grid_of_no_ranks_is_refused(size):
    with pytest.raises(LayoutError):
        Grid.of_size(size)


def test_a_grid_that_does_not_fit_the_workers_is_refused_with_both_numbers():
    with pytest.raises(LayoutError, match=r"2x3 grid has 6 ranks.*group has 4"):
        Layout.of("MC_MR", (9, 9), 4, grid=Grid(2, 3))


@pytest.mark.parametrize("block", [(0, 1), (1, 0), (-3, 2), (MAX_EXTENT + 1, 1), (1, 2**64)])
def test_a_block_smaller_than_one_or_larger_than_any_matrix_is_refused(block):
    with pytest.raises(LayoutError, match="at least 1 and at most"):
        Layout("MC_MR", Grid(2, 2), block)
    with pytest.raises(LayoutError):
        Layout.of("MC_MR", (9, 9), 4, block=block)


@pytest.mark.parametrize("pair", PAIRS)
def test_exactly_the_alignments_inside_the_grid_are_accepted(pair):
    r, c = 2, 4
    rows, cols = limits(pair, r, c)
    for a, b in itertools.product(range(-1, rows + 1), range(-1, cols + 1)):
        if 0 <= a < rows and 0 <= b < cols:
            Layout(pair, Grid(r, c), (1, 1), (a, b))
        else:
            with pytest.raises(LayoutError, match="alignment"):
                Layout(pair, Grid(r, c), (1, 1), (a, b))


def test_a_layout_says_what_it_is():
    assert str(Layout("VC_STAR", Grid(2, 3), (4, 5))) == "VC_STAR on 2x3, block 4x5"


def test_layouts_are_values():
    assert Layout("MC_MR", Grid(2, 2)) == Layout("MC_MR", Grid(2, 2))
    assert hash(Layout("MC_MR", Grid(2, 2))) == hash(Layout("MC_MR", Grid(2, 2)))
    assert Layout("MC_MR", Grid(2, 2)) != Layout("MC_MR", Grid(2, 2), align=(1, 0))
