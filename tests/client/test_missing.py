"""What is missing of a matrix, against a plain mask of its elements."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.client.transfer import missing_regions as missing
from alchemist_ray.layouts.layout import PAIRS, Grid, Layout
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec
from alchemist_ray.mpi_backend.worker.coverage import Coverage


@st.composite
def written_matrices(draw):
    """Draw a matrix, and rectangles of it that some of its ranks have got."""
    shape = draw(st.tuples(st.integers(1, 25), st.integers(1, 20)))
    grid = Grid(draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    layout = Layout(draw(st.sampled_from(PAIRS)), grid, draw(st.tuples(st.integers(1, 5), st.integers(1, 5))))
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        i = sorted(draw(st.tuples(st.integers(0, shape[0]), st.integers(0, shape[0]))))
        j = sorted(draw(st.tuples(st.integers(0, shape[1]), st.integers(0, shape[1]))))
        ranks = draw(st.one_of(st.none(), st.sets(st.integers(0, grid.size - 1))))
        parts.append((Rectangle(*i, *j), ranks))
    return MatrixSpec(shape, np.dtype(float), layout), parts


@settings(max_examples=300, deadline=None)
@given(written_matrices())
def test_it_is_what_the_ranks_lack(case):
    spec, written = case
    expected = np.zeros(spec.shape, int)
    lacking = {}
    for rank in range(spec.layout.grid.size):
        rows, cols = spec.layout.part(spec.shape, rank)
        if not spec.layout.is_source(rank) or 0 in (rows.size, cols.size):
            continue
        coverage = Coverage((rows.size, cols.size))
        mask = np.ones((rows.size, cols.size), int)
        for region, ranks in written:
            part = Rectangle(*rows.local_range(region.i0, region.i1), *cols.local_range(region.j0, region.j1))
            if (ranks is None or rank in ranks) and not coverage.overlaps(part):
                coverage.add(part)
                mask[part.i0 : part.i1, part.j0 : part.j1] = 0
        lacking[rank] = coverage.missing()
        expected[np.ix_(rows.indices(), cols.indices())] = mask
    found = np.zeros(spec.shape, int)
    for region in missing.missing_regions(spec, lacking):
        found[region.i0 : region.i1, region.j0 : region.j1] += 1
    np.testing.assert_array_equal(found, expected)


def test_a_missing_range_of_a_large_cyclic_matrix_is_one_rectangle():
    spec = MatrixSpec((10**9, 1000), np.dtype(float), Layout("MC_MR", Grid(4, 4), (3, 7)))
    lacking = {}
    for rank in range(16):
        rows, cols = spec.layout.part(spec.shape, rank)
        lacking[rank] = [Rectangle(*rows.local_range(12_345, 765_432_100), 0, cols.size)]
    assert missing.missing_regions(spec, lacking) == [Rectangle(12_345, 765_432_100, 0, 1000)]


def test_what_is_too_scattered_is_named_around():
    spec = MatrixSpec((100_000, 2), np.dtype(float), Layout("VC_STAR", Grid(2, 1), (1, 1)))
    regions = missing.missing_regions(spec, {0: [Rectangle(0, 50_000, 0, 2)], 1: []})
    assert sum(region.area for region in regions) >= 100_000
    assert len(regions) <= missing.MAX_PIECES
