"""The ranks of a process grid, and the turns in which Elemental's distributions give indices to them.

A *distribution* deals the indices of one axis of a matrix like cards, in turns: turn 0 gets the first block of indices,
turn 1 the second, and after the last turn comes turn 0 again. Distributions differ only in which rank has which turn:

======  =====================  ===========================================================================
CIRC    1 turn                 one rank has it
STAR    1 turn                 every rank has it
MC      ``nprow`` turns        all ranks of a row of the grid have one turn (down a *M*atrix *C*olumn)
MR      ``npcol`` turns        all ranks of a column of the grid have one turn (along a *M*atrix *R*ow)
VC      ``size`` turns         one rank a turn, column-major (*V*ector *C*olumn)
VR      ``size`` turns         one rank a turn, row-major (*V*ector *R*ow)
MD      ``lcm(nprow, npcol)``  one rank a turn, down the diagonal of the tiling of the grid (*M*atrix *D*iagonal)
======  =====================  ===========================================================================

A matrix needs a *pair* of distributions, one for its rows and one for its columns. The 14 legal pairs have a property
that keeps ownership cheap: the source of an element (the rank that sends it on, of all ranks that hold it) is a *sum*
of two shares, one from its row's turn and one from its column's turn. The share of ``MC`` is ``myrow``, the share of
``MR`` is ``mycol * nprow``, ``VC`` contributes the rank itself and the ``STAR`` beside it 0, and so on. So the tables
of a pair (:class:`Deal`) are one-dimensional, and small even for 10^5 ranks.

Source: J. Poulson et al., *Elemental*, ACM TOMS 39 (2013), section 3.
"""

from __future__ import annotations

import difflib
import enum
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import LayoutError

Indices = npt.NDArray[np.int64]


class Dist(enum.Enum):
    """How one axis of a matrix is distributed over the ranks of a grid."""

    CIRC = "CIRC"
    STAR = "STAR"
    MC = "MC"
    MR = "MR"
    VC = "VC"
    VR = "VR"
    MD = "MD"


DISTS = {
    pair: (Dist(pair.partition("_")[0]), Dist(pair.partition("_")[2]))
    for pair in (
        "CIRC_CIRC",
        "MC_MR",
        "MC_STAR",
        "MD_STAR",
        "MR_MC",
        "MR_STAR",
        "STAR_MC",
        "STAR_MD",
        "STAR_MR",
        "STAR_STAR",
        "STAR_VC",
        "STAR_VR",
        "VC_STAR",
        "VR_STAR",
    )
}
"""Distribution of the row index and of the column index, by the name of the pair."""

PAIRS = tuple(DISTS)
"""Elemental's legal distribution pairs, (row index)_(column index)."""


def check_pair(pair: str) -> None:
    """Raise :class:`LayoutError` unless `pair` names a legal distribution pair."""
    if pair not in DISTS:
        near = difflib.get_close_matches(str(pair).upper().replace("*", "STAR").replace(",", "_"), PAIRS, 1)
        hint = f"did you mean {near[0]!r}? The" if near else "the"
        raise LayoutError(f"layout {pair!r} does not exist; {hint} layouts are {', '.join(PAIRS)}")


@dataclass(frozen=True, slots=True)
class Grid:
    """A process grid of ``nprow`` x ``npcol`` ranks, numbered column-major."""

    nprow: int
    npcol: int

    def __post_init__(self) -> None:
        if self.nprow < 1 or self.npcol < 1:
            raise LayoutError(f"a process grid of {self.nprow} x {self.npcol} has no ranks; both numbers must be >= 1")

    @classmethod
    def of_size(cls, size: int) -> Grid:
        """Return the most square grid of `size` ranks with ``nprow >= npcol``.

        The grid is tall rather than wide because local blocks are stored by rows: whole rows then move without packing.
        """
        if size < 1:
            raise LayoutError(f"a process grid needs at least 1 rank, not {size}")
        return _most_square(size)

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.nprow * self.npcol

    def coords(self, rank: int) -> tuple[int, int]:
        """Return ``(myrow, mycol)`` of `rank`."""
        return rank % self.nprow, rank // self.nprow

    def rank(self, myrow: int, mycol: int) -> int:
        """Return the rank at ``(myrow, mycol)``."""
        return myrow + mycol * self.nprow

    def __str__(self) -> str:
        return f"{self.nprow}x{self.npcol}"


@lru_cache(maxsize=256)
def _most_square(size: int) -> Grid:
    npcol = next(c for c in range(math.isqrt(size), 0, -1) if size % c == 0)
    return Grid(size // npcol, npcol)


@lru_cache(maxsize=256)
def strides_of(pair: str, grid: Grid) -> tuple[int, int]:
    """Return the number of turns of the rows and of the columns for a legal `pair` on `grid`.

    This takes no memory, so a grid from a peer can be checked before its tables are made.
    """
    rows, cols = DISTS[pair]
    return _stride(rows, grid), _stride(cols, grid)


def _stride(dist: Dist, grid: Grid) -> int:
    match dist:
        case Dist.CIRC | Dist.STAR:
            return 1
        case Dist.MC:
            return grid.nprow
        case Dist.MR:
            return grid.npcol
        case Dist.VC | Dist.VR:
            return grid.size
        case Dist.MD:
            return math.lcm(grid.nprow, grid.npcol)


@dataclass(frozen=True, slots=True, eq=False)
class Deal:
    """Which rank has which turn of a pair on a grid; made by :func:`deal_of`.

    For ``CIRC_CIRC`` the tables are those of root 0; another root is a rotation of the ranks.

    Attributes
    ----------
    strides : (int, int)
        Number of turns of the rows and of the columns, as :func:`strides_of` returns them.
    shares : (ndarray, ndarray)
        The share of each turn in the source of an element: ``int64``, one entry per turn. The source is the rank
        ``shares[0][row's turn] + shares[1][column's turn]``.
    turns : (ndarray, ndarray)
        The turn of each rank, ``int64``, one entry per rank; -1 for ranks that hold nothing.
    sources : ndarray of bool
        Whether each rank is the source of its part. Of all ranks that hold the same part, one is its source.
    redundant : bool
        Whether more than one rank holds an element.
    """

    strides: tuple[int, int]
    shares: tuple[Indices, Indices]
    turns: tuple[Indices, Indices]
    sources: npt.NDArray[np.bool_]
    redundant: bool


@lru_cache(maxsize=64)
def deal_of(pair: str, grid: Grid) -> Deal:
    """Return the tables of a legal `pair` on `grid`. They are shared and read-only."""
    rows, cols = DISTS[pair]
    shares = _shares(rows, grid), _shares(cols, grid)
    holding = np.ones(grid.size, bool)
    for dist, share in zip((rows, cols), shares, strict=True):
        if dist in (Dist.MD, Dist.CIRC):
            holding[:] = False
            holding[share] = True
    row_turns, col_turns = (np.where(holding, _turns(dist, grid), -1) for dist in (rows, cols))
    sources = holding & (shares[0][row_turns] + shares[1][col_turns] == np.arange(grid.size))
    for table in (*shares, row_turns, col_turns, sources):
        table.flags.writeable = False
    return Deal(strides_of(pair, grid), shares, (row_turns, col_turns), sources, bool((holding & ~sources).any()))


def _shares(dist: Dist, grid: Grid) -> Indices:
    """Return the rank of each turn; of several ranks, the one in the first row or column of the grid."""
    r, c = grid.nprow, grid.npcol
    turns = np.arange(_stride(dist, grid), dtype=np.int64)
    match dist:
        case Dist.CIRC | Dist.STAR | Dist.MC | Dist.VC:
            return turns
        case Dist.MR:
            return turns * r
        case Dist.VR:
            return turns // c + turns % c * r
        case Dist.MD:
            return turns % r + turns % c * r


def _turns(dist: Dist, grid: Grid) -> Indices:
    """Return the turn of each rank; the entries of ranks without a turn are arbitrary."""
    ranks = np.arange(grid.size, dtype=np.int64)
    match dist:
        case Dist.CIRC | Dist.STAR:
            return np.zeros(grid.size, np.int64)
        case Dist.MC:
            return ranks % grid.nprow
        case Dist.MR:
            return ranks // grid.nprow
        case Dist.VC | Dist.VR | Dist.MD:  # one rank per turn: the inverse of the shares
            shares = _shares(dist, grid)
            turns = np.zeros(grid.size, np.int64)
            turns[shares] = np.arange(shares.size, dtype=np.int64)
            return turns
