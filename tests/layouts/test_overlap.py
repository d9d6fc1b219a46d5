"""The overlap of two parts of an axis, compared with the intersection of their index sets."""

import bisect
import itertools
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import LayoutError
from alchemist_ray.layouts.layout import AxisPart
from alchemist_ray.layouts.overlap import Overlap

BLOCKS = st.one_of(st.integers(1, 9), st.sampled_from([16, 61, 100, 1000]))


@st.composite
def parts(draw, extent):
    stride = draw(st.integers(1, 8))
    return AxisPart(extent, draw(BLOCKS), stride, draw(st.integers(0, stride - 1)))


@st.composite
def pairs(draw, most=300):
    extent = draw(st.integers(1, most))
    return draw(parts(extent)), draw(parts(extent))


def indices_of(stretch, steps):
    """Return the indices of a stretch on one side, in the order of the nested loops that it describes."""
    periods, runs, length = stretch.counts
    return [
        steps.start + p * steps.period + q * steps.run + x
        for p in range(periods)
        for q in range(runs)
        for x in range(length)
    ]


def expanded(stretches):
    """Return (ordinal, local index in the first part, in the second) of all indices of the stretches."""
    found = []
    for stretch in stretches:
        sides = (stretch.ordinal, *stretch.local)
        found += zip(*(indices_of(stretch, steps) for steps in sides), strict=True)
    return sorted(found)


def expected(a, b, start=0, stop=None):
    common = np.intersect1d(a.indices(), b.indices())
    locals_ = [np.searchsorted(part.indices(), common).tolist() for part in (a, b)]
    return list(zip(range(common.size), *locals_, strict=True))[start:stop]


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_it_is_the_intersection_of_the_index_sets(pair):
    a, b = pair
    overlap = Overlap.of(a, b)
    assert overlap.size == np.intersect1d(a.indices(), b.indices()).size
    assert expanded(overlap.cut()) == expected(a, b)


@settings(max_examples=200, deadline=None)
@given(pairs(), st.data())
def test_ranges_of_ordinals_are_cut_out(pair, data):
    a, b = pair
    overlap = Overlap.of(a, b)
    start = data.draw(st.integers(0, overlap.size))
    stop = data.draw(st.integers(start, overlap.size))
    assert expanded(overlap.cut(start, stop)) == expected(a, b, start, stop)


@settings(max_examples=100, deadline=None)
@given(pairs(), st.integers(1, 40))
def test_successive_ranges_make_the_whole(pair, width):
    a, b = pair
    overlap = Overlap.of(a, b)
    cuts = (overlap.cut(start, min(start + width, overlap.size)) for start in range(0, overlap.size, width))
    found = itertools.chain.from_iterable(cuts)
    assert expanded(found) == expected(a, b)


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_either_way_round_it_is_the_same(pair):
    a, b = pair
    there = [(o, i, j) for o, j, i in expanded(Overlap.of(b, a).cut())]
    assert there == expanded(Overlap.of(a, b).cut())


def test_a_rank_that_holds_nothing_has_nothing_in_common():
    nothing, something = AxisPart(0, 1, 1, 0), AxisPart(10, 2, 3, 1)
    late = AxisPart(10, 8, 4, 3)
    for other in (nothing, late):
        assert Overlap.of(something, other).size == 0
        assert list(Overlap.of(other, something).cut()) == []


def test_axes_of_different_extents_are_refused():
    with pytest.raises(LayoutError, match=r"10.*11"):
        Overlap.of(AxisPart(10, 2, 3, 1), AxisPart(11, 2, 3, 1))


def test_nothing_is_cut_out_of_an_empty_range():
    overlap = Overlap.of(AxisPart(10, 2, 2, 0), AxisPart(10, 3, 2, 0))
    assert list(overlap.cut(2, 2)) == []


# --- long axes --------------------------------------------------------------------------------------------------------

N = 10**12

LONG = [
    pytest.param((1, 2, 1), (1, 3, 2), 1, id="block 1"),
    pytest.param((1, 1000, 7), (1, 999, 5), 1, id="block 1, many ranks"),
    pytest.param((256, 2, 1), (N // 2, 2, 1), 3, id="default blocks"),
    pytest.param((255, 3, 1), (256, 4, 2), 768, id="blocks that differ by one"),
    pytest.param((N, 1, 0), (256, 6, 5), 3, id="everything and some"),
    pytest.param((N, 1, 0), (7, 1, 0), 1, id="everything twice"),
    pytest.param((N // 3 + 1, 3, 1), (N // 7 + 1, 7, 3), 1, id="one block each"),
]


@pytest.mark.parametrize(("a", "b", "most"), LONG)
def test_a_long_axis_costs_no_more_than_one_period(a, b, most):
    a, b = AxisPart(N, *a), AxisPart(N, *b)
    overlap = Overlap.of(a, b)
    assert len(overlap.groups) <= most
    assert overlap.size == common_below(a, b, N)
    for start in (0, overlap.size // 3, overlap.size - 50):
        check_long(a, b, start, start + 50, overlap)


def check_long(a, b, start, stop, overlap):
    """Check that a range of ordinals lists indices that both parts hold, ascending and without omissions."""
    found = expanded(overlap.cut(start, stop))
    i = [a.to_global(iloc) for _, iloc, _ in found]
    assert [ordinal for ordinal, _, _ in found] == list(range(start, stop))
    assert i == [b.to_global(iloc) for _, _, iloc in found]
    assert [common_below(a, b, index) for index in i] == list(range(start, stop))
    assert [common_below(a, b, index + 1) for index in i] == list(range(start + 1, stop + 1))


def common_below(a, b, limit):
    """Return how many indices below `limit` both parts hold, from the definition: intervals and repeating residues."""
    low, high, cyclic = 0, min(limit, N), []
    for part in (a, b):
        if part.stride > 1 and part.block * part.stride < N:
            cyclic.append(part)
        elif part.stride > 1:
            low, high = max(low, part.position * part.block), min(high, (part.position + 1) * part.block)
    residues, period = common_residues(tuple(cyclic))
    counts = [i // period * len(residues) + bisect.bisect_left(residues, i % period) for i in (low, max(low, high))]
    return counts[1] - counts[0]


@cache
def common_residues(parts):
    period = math.lcm(*(part.block * part.stride for part in parts))
    held = np.ones(period, bool)
    for part in parts:
        held &= np.arange(period) // part.block % part.stride == part.position
    return np.flatnonzero(held).tolist(), period
