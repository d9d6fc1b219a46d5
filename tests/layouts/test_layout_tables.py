"""Layouts, compared with the printed tables of the CUG 2019 paper and of Elemental's documentation.

Both sources have a 7 x 7 matrix on a 2 x 3 grid. The tables are written as in their source. Each entry lists the ranks
that hold the element: ``024`` is {0, 2, 4}.
"""

import itertools

import numpy as np
import pytest

from alchemist_ray.layouts.layout import PAIRS, Grid, Layout

# --- the CUG 2019 paper, section VI.B ---------------------------------------------------------------------------------

P = [[1, 3, 5], [2, 4, 6]]
"""The process grid of the paper; worker 1 is rank 0."""

PAPER = {
    "MC_MR": ["1 3 5 1 3 5 1", "2 4 6 2 4 6 2", "1 3 5 1 3 5 1", "2 4 6 2 4 6 2", "1 3 5 1 3 5 1", "2 4 6 2 4 6 2",
              "1 3 5 1 3 5 1"],
    "MR_MC": ["1 2 1 2 1 2 1", "3 4 3 4 3 4 3", "5 6 5 6 5 6 5", "1 2 1 2 1 2 1", "3 4 3 4 3 4 3", "5 6 5 6 5 6 5",
              "1 2 1 2 1 2 1"],
    "STAR_VC": ["1 2 3 4 5 6 1"] * 7,
    "VC_STAR": ["1 1 1 1 1 1 1", "2 2 2 2 2 2 2", "3 3 3 3 3 3 3", "4 4 4 4 4 4 4", "5 5 5 5 5 5 5", "6 6 6 6 6 6 6",
                "1 1 1 1 1 1 1"],
}  # fmt: skip
"""The tables in the paper. It describes the other layouts without redundancy as permutations of these."""

PERMUTED = {"VR": "1 3 5 2 4 6 1", "MD": "1 4 5 2 3 6 1"}
"""The order of the workers: along the rows of P, and down the diagonal of the plane that P tiles."""


def ranks_in(rows, first=0):
    """Return a table as lists of tuples of ranks; the table counts ranks from `first`."""
    return [[tuple(int(digit) - first for digit in entry) for entry in row.split()] for row in rows]


def owners(layout):
    return [[layout.owners(i, j) for j in range(7)] for i in range(7)]


@pytest.mark.parametrize("pair", PAPER)
def test_the_tables_of_the_paper(pair):
    assert owners(Layout(pair, Grid(2, 3), (1, 1))) == ranks_in(PAPER[pair], first=1)


@pytest.mark.parametrize("dist", PERMUTED)
def test_the_layouts_that_the_paper_describes_as_permutations(dist):
    assert owners(Layout(f"STAR_{dist}", Grid(2, 3), (1, 1))) == ranks_in([PERMUTED[dist]] * 7, first=1)
    by_rows = [" ".join(worker * 7) for worker in PERMUTED[dist].split()]
    assert owners(Layout(f"{dist}_STAR", Grid(2, 3), (1, 1))) == ranks_in(by_rows, first=1)


@pytest.mark.parametrize("pair", PAPER)
def test_the_blocks_hold_what_the_tables_of_the_paper_say(pair):
    layout, table = Layout(pair, Grid(2, 3), (1, 1)), np.array(ranks_in(PAPER[pair], first=1))[:, :, 0]
    for rank in range(6):
        rows, cols = layout.part((7, 7), rank)
        held = set(itertools.product(rows.indices().tolist(), cols.indices().tolist()))
        assert held == {(i, j) for i, j in np.argwhere(table == rank).tolist()}


def test_the_grid_is_numbered_as_in_the_paper():
    grid = Grid(2, 3)
    assert [[grid.rank(row, col) + 1 for col in range(3)] for row in range(2)] == P
    assert [grid.coords(rank) for rank in range(6)] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]


# --- Elemental's documentation, "The DistMatrix class" (doc/source/core/dist_matrix.rst, release 0.79) ----------------

ELEMENTAL = {
    "MC_MR": ["0 2 4 0 2 4 0", "1 3 5 1 3 5 1", "0 2 4 0 2 4 0", "1 3 5 1 3 5 1", "0 2 4 0 2 4 0", "1 3 5 1 3 5 1",
              "0 2 4 0 2 4 0"],
    "MR_MC": ["0 1 0 1 0 1 0", "2 3 2 3 2 3 2", "4 5 4 5 4 5 4", "0 1 0 1 0 1 0", "2 3 2 3 2 3 2", "4 5 4 5 4 5 4",
              "0 1 0 1 0 1 0"],
    "MC_STAR": ["024 024 024 024 024 024 024", "135 135 135 135 135 135 135", "024 024 024 024 024 024 024",
                "135 135 135 135 135 135 135", "024 024 024 024 024 024 024", "135 135 135 135 135 135 135",
                "024 024 024 024 024 024 024"],
    "STAR_MC": ["024 135 024 135 024 135 024"] * 7,
    "MR_STAR": ["01 01 01 01 01 01 01", "23 23 23 23 23 23 23", "45 45 45 45 45 45 45", "01 01 01 01 01 01 01",
                "23 23 23 23 23 23 23", "45 45 45 45 45 45 45", "01 01 01 01 01 01 01"],
    "STAR_MR": ["01 23 45 01 23 45 01"] * 7,
    "VC_STAR": ["0 0 0 0 0 0 0", "1 1 1 1 1 1 1", "2 2 2 2 2 2 2", "3 3 3 3 3 3 3", "4 4 4 4 4 4 4", "5 5 5 5 5 5 5",
                "0 0 0 0 0 0 0"],
    "STAR_VC": ["0 1 2 3 4 5 0"] * 7,
    "VR_STAR": ["0 0 0 0 0 0 0", "2 2 2 2 2 2 2", "4 4 4 4 4 4 4", "1 1 1 1 1 1 1", "3 3 3 3 3 3 3", "5 5 5 5 5 5 5",
                "0 0 0 0 0 0 0"],
    "STAR_VR": ["0 2 4 1 3 5 0"] * 7,
    "STAR_STAR": ["012345 012345 012345 012345 012345 012345 012345"] * 7,
}  # fmt: skip
"""All tables of the page with alignments of 0. It has no table for MD, and that release has no CIRC."""

ALIGNED = ["4 0 2 4 0 2 4", "5 1 3 5 1 3 5", "4 0 2 4 0 2 4", "5 1 3 5 1 3 5", "4 0 2 4 0 2 4", "5 1 3 5 1 3 5",
           "4 0 2 4 0 2 4"]  # fmt: skip
"""The page's MC_MR with a column alignment of 0 and a row alignment of 2."""


@pytest.mark.parametrize("pair", ELEMENTAL)
def test_the_tables_of_elementals_documentation(pair):
    assert owners(Layout(pair, Grid(2, 3), (1, 1))) == ranks_in(ELEMENTAL[pair])


def test_the_aligned_table_of_elementals_documentation():
    assert owners(Layout("MC_MR", Grid(2, 3), (1, 1), align=(0, 2))) == ranks_in(ALIGNED)


@pytest.mark.parametrize("table", [ELEMENTAL["MC_MR"], ALIGNED])
def test_a_column_of_md_star_is_dealt_like_the_diagonal_of_mc_mr_as_the_documentation_defines_it(table):
    diagonal = [ranks_in(table)[k][k] for k in range(7)]
    align = [owners(Layout("MD_STAR", Grid(2, 3), (1, 1)))[k][0] for k in range(6)].index(diagonal[0])
    column = Layout("MD_STAR", Grid(2, 3), (1, 1), (align, 0))
    row = Layout("STAR_MD", Grid(2, 3), (1, 1), (0, align))
    assert [column.owners(k, 0) for k in range(7)] == diagonal
    assert [row.owners(0, k) for k in range(7)] == diagonal


def test_a_diagonal_of_a_square_grid_misses_the_other_ranks():
    layout = Layout("MD_STAR", Grid(2, 2), (1, 1))
    assert [layout.owners(i, 0) for i in range(4)] == [(0,), (3,), (0,), (3,)]
    assert layout.local_shape((4, 3), 1) == layout.local_shape((4, 3), 2) == (0, 0)


@pytest.mark.parametrize("root", range(6))
def test_circ_gives_everything_to_its_root(root):
    layout = Layout("CIRC_CIRC", Grid(2, 3), (1, 1), (root, 0))
    assert owners(layout) == [[(root,)] * 7] * 7


def test_every_pair_has_a_table_here():
    described = {f"{dist}_STAR" for dist in PERMUTED} | {f"STAR_{dist}" for dist in PERMUTED}
    assert set(PAPER) | set(ELEMENTAL) | described | {"CIRC_CIRC"} == set(PAIRS)
