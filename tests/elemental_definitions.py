"""A second, naive reading of Elemental's definitions, index by index and set by set, to hold layouts against."""

import itertools

from hypothesis import strategies as st

from alchemist_ray.layouts.layout import PAIRS, Grid, Layout


def deal(dist, r, c):
    """Return, turn by turn, the set of grid coordinates that get what is dealt in that turn."""
    everyone = set(itertools.product(range(r), range(c)))
    if dist in ("STAR", "CIRC"):
        return [everyone]
    if dist == "MC":
        return [{(row, col) for row, col in everyone if row == turn} for turn in range(r)]
    if dist == "MR":
        return [{(row, col) for row, col in everyone if col == turn} for turn in range(c)]
    if dist == "VC":
        return [{(row, col)} for col in range(c) for row in range(r)]
    if dist == "VR":
        return [{(row, col)} for row in range(r) for col in range(c)]
    walk, row, col = [], 0, 0  # MD: down the diagonal of the plane that the grid tiles, until back at the start
    while not walk or (row, col) != (0, 0):
        walk.append({(row, col)})
        row, col = (row + 1) % r, (col + 1) % c
    return walk


def naive_owners(layout, i, j):
    r, c = layout.grid.nprow, layout.grid.npcol
    if layout.pair == "CIRC_CIRC":
        return {layout.align[0]}
    places = set(itertools.product(range(r), range(c)))
    for dist, index, block, align in zip(layout.pair.split("_"), (i, j), layout.block, layout.align, strict=True):
        turns = deal(dist, r, c)
        places &= turns[(index // block + align) % len(turns)]
    return {col * r + row for row, col in places}


def limits(pair, r, c):
    """Return how many alignments each axis of a pair has."""
    if pair == "CIRC_CIRC":
        return r * c, 1
    return tuple(len(deal(dist, r, c)) for dist in pair.split("_"))


@st.composite
def layouts(draw):
    pair = draw(st.sampled_from(PAIRS))
    r, c = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    align = tuple(draw(st.integers(0, limit - 1)) for limit in limits(pair, r, c))
    return Layout(pair, Grid(r, c), (draw(st.integers(1, 5)), draw(st.integers(1, 5))), align)


shapes = st.tuples(st.integers(1, 13), st.integers(1, 13))
