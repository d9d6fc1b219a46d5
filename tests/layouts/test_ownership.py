"""Ownership of many ranks and elements at once, compared with one-by-one results and with plain integers."""

import itertools
import math
import pickle

import numpy as np
import pytest
from elemental_definitions import layouts, naive_owners, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import LayoutError
from alchemist_ray.layouts.layout import MAX_EXTENT, PAIRS, AxisPart, Grid, Layout

huge = st.integers(0, MAX_EXTENT - 1)
extents = st.one_of(st.integers(1, 60), st.integers(1, MAX_EXTENT))


def turn_of(layout, axis, index):
    """Return the position along an axis that gets an index, in Python's integers."""
    return (index // layout.block[axis] + layout.align[axis]) % strides(layout)[axis]


def strides(layout):
    r, c = layout.grid.nprow, layout.grid.npcol
    turns = {"CIRC": 1, "STAR": 1, "MC": r, "MR": c, "VC": r * c, "VR": r * c, "MD": math.lcm(r, c)}
    return [turns[dist] for dist in layout.pair.split("_")]


@st.composite
def large_layouts(draw):
    """Draw layouts whose blocks may be as large as the largest matrix."""
    layout = draw(layouts())
    blocks = st.one_of(st.integers(1, 5), st.integers(1, MAX_EXTENT))
    return Layout(layout.pair, layout.grid, (draw(blocks), draw(blocks)), layout.align)


# --- the source of an element -----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(layouts(), shapes)
def test_the_sources_of_all_elements_are_those_whose_parts_have_them(layout, shape):
    expected = np.full(shape, -1)
    for rank in range(layout.grid.size):
        if layout.is_source(rank):
            rows, cols = layout.part(shape, rank)
            expected[np.ix_(rows.indices(), cols.indices())] = rank
    found = layout.source_of(np.arange(shape[0])[:, np.newaxis], np.arange(shape[1]))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64


@settings(max_examples=200, deadline=None)
@given(large_layouts(), huge, huge)
def test_the_source_of_an_element_is_one_of_its_owners_at_any_index(layout, i, j):
    owners = naive_owners(layout, i, j)
    assert [rank for rank in owners if layout.is_source(rank)] == [layout.source_of(i, j)]
    assert layout.owners(i, j) == tuple(sorted(owners))


@pytest.mark.parametrize("pair", PAIRS)
def test_sources_are_broadcast(pair):
    layout = Layout(pair, Grid(2, 3), (2, 1))
    i, j = np.arange(12, dtype=np.int32).reshape(4, 3, 1), [5, 0, 3, 1, 1]
    found = layout.source_of(i, j)
    assert found.shape == (4, 3, 5)
    for where in itertools.product(range(4), range(3), range(5)):
        assert found[where] == layout.source_of(int(i[where[0], where[1], 0]), j[where[2]])
    assert layout.source_of(np.zeros((0, 1), int), j).shape == (0, 5)
    assert layout.source_of(3, 4).shape == ()


@pytest.mark.parametrize("index", [0.0, np.array([1.5]), np.uint64(3), 2**63, 10**30, "3", None], ids=repr)
def test_what_is_no_index_has_no_source(index):
    layout = Layout("MC_MR", Grid(2, 3))
    with pytest.raises(TypeError):
        layout.source_of(index, 0)
    with pytest.raises(TypeError):
        layout.source_of(0, index)


# --- the blocks of all ranks ------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(large_layouts(), st.tuples(extents, extents))
def test_the_shapes_of_all_blocks_are_those_of_each(layout, shape):
    found = layout.local_shapes(shape)
    assert found.dtype == np.int64
    assert found.shape == (layout.grid.size, 2)
    assert [tuple(row) for row in found.tolist()] == [layout.local_shape(shape, r) for r in range(layout.grid.size)]


@settings(max_examples=200, deadline=None)
@given(large_layouts(), st.tuples(extents, extents))
def test_the_sources_together_hold_each_element_once_at_any_size(layout, shape):
    held = (math.prod(layout.local_shape(shape, rank)) for rank in range(layout.grid.size) if layout.is_source(rank))
    assert sum(held) == math.prod(shape)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_a_matrix_without_rows_has_the_columns_that_it_would_have_with_some(pair, shape):
    layout = Layout(pair, Grid(2, 2), (2, 2))
    shapes = layout.local_shapes(shape).tolist()
    for rank in range(4):
        rows, cols = layout.part((3, 3), rank)
        assert layout.local_shape(shape, rank) == (rows.size if shape[0] else 0, cols.size if shape[1] else 0)
        assert tuple(shapes[rank]) == layout.local_shape(shape, rank)


# --- the sources of a rectangle ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(layouts(), shapes, st.data())
def test_the_ranks_of_a_rectangle_are_the_sources_of_its_elements(layout, shape, data):
    ranges = []
    for extent in shape:
        start = data.draw(st.integers(0, extent))
        ranges.append((start, data.draw(st.integers(start, extent))))
    sources = {int(layout.source_of(i, j)) for i, j in itertools.product(range(*ranges[0]), range(*ranges[1]))}
    found = layout.ranks_of(shape, *ranges)
    assert found.tolist() == sorted(sources)
    assert found.dtype == np.int64


@settings(max_examples=100, deadline=None)
@given(large_layouts(), huge, huge, st.data())
def test_the_ranks_of_a_small_rectangle_anywhere_are_the_sources_of_its_elements(layout, i, j, data):
    shape = (MAX_EXTENT, MAX_EXTENT)
    rows = (i, data.draw(st.integers(i, min(i + 9, MAX_EXTENT))))
    cols = (j, data.draw(st.integers(j, min(j + 9, MAX_EXTENT))))
    sources = {int(layout.source_of(*place)) for place in itertools.product(range(*rows), range(*cols))}
    assert layout.ranks_of(shape, rows, cols).tolist() == sorted(sources)


@pytest.mark.parametrize(
    ("rows", "cols"), [((-1, 2), (0, 3)), ((0, 5), (0, 3)), ((2, 1), (0, 3)), ((0, 4), (0, 4)), ((4, 5), (3, 3))]
)
def test_a_rectangle_outside_the_matrix_is_refused(rows, cols):
    with pytest.raises(LayoutError, match=r"\(4, 3\)"):
        Layout("MC_MR", Grid(2, 2), (1, 1)).ranks_of((4, 3), rows, cols)


# --- many rows, many ranks --------------------------------------------------------------------------------------------

ROWS, RANKS = 10**12, 10**5


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("block", [1, 7, 10**5, None])
def test_a_trillion_rows_on_a_hundred_thousand_ranks_are_all_held_once(pair, block):
    shape = (ROWS, 1000) if not pair.startswith("STAR") else (1000, ROWS)
    layout = Layout.of(pair, shape, RANKS, block=block)
    held = sum(math.prod(block) for block in layout.local_shapes(shape).tolist())
    copies = len(layout.owners(0, 0))
    assert held == copies * ROWS * 1000
    assert (copies > 1) == layout.redundant


@pytest.mark.parametrize("pair", PAIRS)
def test_the_last_element_of_a_trillion_squared_belongs_to_the_rank_that_the_definition_names(pair):
    layout = Layout.of(pair, (ROWS, ROWS), RANKS, block=(7, 3))
    r, c = layout.grid.nprow, layout.grid.npcol
    p, q = (turn_of(layout, axis, ROWS - 1) for axis in (0, 1))
    places = {  # the row and the column of the grid for each turn of a distribution
        "MC": lambda turn: (turn, 0),
        "MR": lambda turn: (0, turn),
        "VC": lambda turn: (turn % r, turn // r),
        "VR": lambda turn: (turn // c, turn % c),
        "MD": lambda turn: (turn % r, turn % c),
    }
    rows, cols = layout.pair.split("_")
    first, second = (places.get(dist, lambda _: (0, 0))(turn) for dist, turn in ((rows, p), (cols, q)))
    expected = layout.grid.rank(first[0] + second[0], first[1] + second[1])
    assert layout.source_of(ROWS - 1, ROWS - 1) == expected
    assert layout.ranks_of((ROWS, ROWS), (ROWS - 1, ROWS), (ROWS - 1, ROWS)).tolist() == [expected]
    rows_held, cols_held = layout.part((ROWS, ROWS), expected)
    assert rows_held.local_range(ROWS - 1, ROWS) == (rows_held.size - 1, rows_held.size)
    assert cols_held.local_range(ROWS - 1, ROWS) == (cols_held.size - 1, cols_held.size)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_ranks_of_everything_are_all_sources_with_a_block(pair):
    layout = Layout.of(pair, (ROWS, ROWS), RANKS, block=1)
    ranks = layout.ranks_of((ROWS, ROWS), (0, ROWS), (0, ROWS))
    assert ranks.tolist() == [rank for rank in range(RANKS) if layout.is_source(rank)]


@pytest.mark.parametrize("extent", [10**12, 10**18, MAX_EXTENT])
@pytest.mark.parametrize("block", [1, 7, 4096, 10**11, MAX_EXTENT])
def test_indices_beyond_the_precision_of_a_float_are_exact(extent, block):
    for i in (extent - 1, max(extent - block, 0), extent - RANKS - 1, extent // 3, extent // 7 * 5 + 1):
        part = AxisPart(extent, block, RANKS, i // block % RANKS)
        first, last = part.local_range(i, i + 1)
        assert (first, last) == (part.to_local(i), part.to_local(i) + 1)
        assert part.to_global(first) == i
        assert part.to_global(np.array([first]))[0] == i
        assert part.to_local(np.array([i]))[0] == first
        other = AxisPart(extent, block, RANKS, (i // block + 1) % RANKS)
        assert len(set(other.local_range(i, i + 1))) == 1


@pytest.mark.parametrize("pair", PAIRS)
def test_a_layout_of_many_ranks_pickles_small(pair):
    layout = Layout.of(pair, (ROWS, 1000), RANKS)
    layout.source_of(1, 1)
    assert len(pickle.dumps(layout)) < 500
    assert pickle.loads(pickle.dumps(layout)) == layout


def test_a_layout_on_a_grid_that_nobody_has_takes_no_memory():
    layout = Layout("VC_STAR", Grid(10**9, 10**9), (1, 1), (10**18 - 1, 0))
    assert layout.distinct_owners == 10**18
    with pytest.raises(LayoutError, match="alignment"):
        Layout("VC_STAR", Grid(10**9, 10**9), (1, 1), (10**18, 0))
