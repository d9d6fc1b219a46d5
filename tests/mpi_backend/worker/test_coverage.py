"""The written parts of a block, compared with a plain mask of its elements."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.mpi_backend.worker.coverage import Coverage, Intervals

SHAPE = (9, 7)


@st.composite
def rectangles(draw):
    i = sorted(draw(st.tuples(st.integers(0, SHAPE[0]), st.integers(0, SHAPE[0]))))
    j = sorted(draw(st.tuples(st.integers(0, SHAPE[1]), st.integers(0, SHAPE[1]))))
    return Rectangle(*i, *j)


def mask_of(parts):
    """Return the number of rectangles that contain each element."""
    mask = np.zeros(SHAPE, int)
    for part in parts:
        mask[part.i0 : part.i1, part.j0 : part.j1] += 1
    return mask


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(rectangles(), st.booleans()), max_size=30))
def test_coverage_is_a_mask_of_the_elements(steps):
    coverage, added = Coverage(SHAPE), []
    for part, remove in steps:
        overlap = bool((mask_of(added)[part.i0 : part.i1, part.j0 : part.j1]).any())
        assert coverage.overlaps(part) == overlap
        if not overlap:
            coverage.add(part)
            added.append(part)
        if remove and added:
            coverage.remove(added.pop(len(added) // 2))
        missing = coverage.missing()
        np.testing.assert_array_equal(mask_of(missing), 1 - mask_of(added))
        assert all(part.area for part in missing)


def test_rows_written_in_any_order_become_one_interval(rng):
    coverage = Coverage((10_000, 3))
    for row in rng.permutation(10_000):
        coverage.add(Rectangle(row, row + 1, 0, 3))
    assert coverage.missing() == []
    assert list(coverage._rows[0, 3]) == [(0, 10_000)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.booleans()), max_size=30))
def test_intervals_are_a_set_of_integers(steps):
    intervals, held = Intervals(), set()
    for start, length, add in steps:
        some = set(range(start, start + length))
        assert intervals.overlaps(start, start + length) == bool(held & some)
        if add:
            intervals.add(start, start + length)
            held |= some
        else:
            intervals.remove(start, start + length)
            held -= some
        listed = list(intervals)
        assert {i for a, b in listed for i in range(a, b)} == held
        assert all(b < c for (_, b), (c, _) in pairwise(listed))
        assert {i for a, b in intervals.gaps(40) for i in range(a, b)} == set(range(40)) - held


def test_a_rectangle_names_itself():
    assert str(Rectangle(0, 2, 3, 7)) == "rows 0..1, columns 3..6"
    assert str(Rectangle(0, 2, 3, 3)) == "an empty region"
    assert Rectangle(0, 4, 0, 4).contains(Rectangle(1, 4, 0, 3))
    assert not Rectangle(0, 4, 0, 4).contains(Rectangle(1, 5, 0, 3))


def test_thousands_of_columns_written_one_by_one_cost_little():
    coverage = Coverage((10, 20_000))
    for j in range(0, 20_000, 2):
        assert not coverage.overlaps(Rectangle(0, 10, j, j + 1))
        coverage.add(Rectangle(0, 10, j, j + 1))
    assert len(coverage.missing()) == 10_000
    for j in range(1, 20_000, 2):
        coverage.add(Rectangle(0, 10, j, j + 1))
    assert coverage.missing() == []
