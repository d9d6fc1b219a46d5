"""Who holds which element of a distributed matrix: index arithmetic and nothing else.

A matrix is dealt out over the ranks of a :class:`Grid`, one axis at a time. A *distribution pair* such as
``VC_STAR`` names how its row index and its column index are dealt (the names, and the meaning with a block size
of 1, are Elemental's):

======  ==========================================================================================
CIRC    one rank holds everything
STAR    every rank holds everything
MC      round robin over the rows of the grid (down a *M*atrix *C*olumn)
MR      round robin over the columns of the grid (along a *M*atrix *R*ow)
VC      round robin over all ranks, column-major (*V*ector *C*olumn)
VR      round robin over all ranks, row-major (*V*ector *R*ow)
MD      round robin over the diagonal of the tiling of the grid (*M*atrix *D*iagonal)
======  ==========================================================================================

What is dealt is a block of consecutive indices; a block size of 1 is Elemental, larger blocks are ScaLAPACK's
block-cyclic distribution. Rank ``r`` sits at row ``r % nprow`` and column ``r // nprow`` of the grid (column-major,
as in Elemental and in the tables of the CUG 2019 paper, section VI).

Three small concepts carry it: :class:`Grid` (the ranks), :class:`AxisPart` (which indices of one axis one rank
holds) and :class:`Layout` (the pair, the grid, the blocks). All of it is exact integer arithmetic for any size, and
neither side of the wire does any I/O here.

Sources: J. Poulson et al., *Elemental*, ACM TOMS 39 (2013), section 3; ScaLAPACK Users' Guide, section 4.3.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import LayoutError

DEFAULT_BLOCK = 256
"""Rows and columns of a block of a two-dimensional layout, unless the caller says otherwise."""


class Dist(enum.Enum):
    """How one axis of a matrix is dealt to the ranks of a grid."""

    CIRC = "CIRC"
    STAR = "STAR"
    MC = "MC"
    MR = "MR"
    VC = "VC"
    VR = "VR"
    MD = "MD"


PAIRS = (
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
"""Elemental's legal distribution pairs, (row index)_(column index)."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A process grid of ``nprow`` x ``npcol`` ranks, numbered column-major."""

    nprow: int
    npcol: int

    def __post_init__(self) -> None:
        if self.nprow < 1 or self.npcol < 1:
            raise LayoutError(f"a process grid of {self.nprow} x {self.npcol} has no ranks; both must be at least 1")

    @classmethod
    def of_size(cls, size: int) -> Grid:
        """Return the most square grid of `size` ranks with ``nprow >= npcol``.

        Tall rather than wide, as local blocks are stored by rows: whole rows then move as they lie, without packing.
        """
        if size < 1:
            raise LayoutError(f"a process grid of {size} ranks has none; at least 1 is needed")
        npcol = next(c for c in range(math.isqrt(size), 0, -1) if size % c == 0)
        return cls(size // npcol, npcol)

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


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` runs of `length` consecutive indices: adjacent in the local block, `step` apart in the matrix."""

    local: int
    start: int
    count: int
    length: int
    step: int


@dataclass(frozen=True, slots=True)
class AxisPart:
    """The indices of one axis that one rank holds.

    Blocks of `block` consecutive indices are dealt in turn to `stride` positions; this is what position `position`
    gets of an axis of `extent` indices. Local indices count what is held, in ascending order of the global index.
    """

    extent: int
    block: int
    stride: int
    position: int

    @property
    def size(self) -> int:
        """Number of indices held."""
        return self._held_below(self.extent)

    def _held_below(self, i: int) -> int:
        """Return how many of the indices ``0 .. i-1`` are held."""
        cycle = self.block * self.stride
        whole, rest = divmod(i, cycle)
        return whole * self.block + min(max(rest - self.position * self.block, 0), self.block)

    def local_range(self, start: int, stop: int) -> tuple[int, int]:
        """Return the half-open range of local indices whose global index lies in ``[start, stop)``."""
        return self._held_below(start), self._held_below(stop)

    def to_global(self, iloc: Any) -> Any:
        """Return the global index of local index `iloc` (an int, or an integer array)."""
        return (iloc // self.block * self.stride + self.position) * self.block + iloc % self.block

    def to_local(self, i: Any) -> Any:
        """Return the local index of global index `i` (an int, or an integer array), which must be held."""
        return i // (self.block * self.stride) * self.block + i % self.block

    def indices(self) -> npt.NDArray[np.int64]:
        """Return all global indices held, ascending, as an ``int64`` array of length :attr:`size`."""
        held: npt.NDArray[np.int64] = self.to_global(np.arange(self.size, dtype=np.int64))
        return held

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """Yield the local indices ``[start, stop)`` as at most three pieces: a broken block, whole blocks, a rest."""
        stop = self.size if stop is None else stop
        step = self.block * self.stride
        head = min(-start % self.block, stop - start)
        if head > 0:
            yield Piece(start, self.to_global(start), 1, head, step)
            start += head
        count = (stop - start) // self.block
        if count > 0:
            yield Piece(start, self.to_global(start), count, self.block, step)
            start += count * self.block
        if stop > start:
            yield Piece(start, self.to_global(start), 1, stop - start, step)


@lru_cache(maxsize=4096)
def _deal(dist: Dist, grid: Grid) -> tuple[int, ...]:
    """Return the ranks that `dist` deals to, one tuple entry per position; replicas of a position are left out."""
    r, c = grid.nprow, grid.npcol
    match dist:
        case Dist.CIRC | Dist.STAR:
            return (0,)
        case Dist.MC:
            return tuple(range(r))
        case Dist.MR:
            return tuple(range(c))
        case Dist.VC:
            return tuple(range(r * c))
        case Dist.VR:
            return tuple(grid.rank(k // c, k % c) for k in range(r * c))
        case Dist.MD:
            return tuple(grid.rank(k % r, k % c) for k in range(math.lcm(r, c)))


def _position(dist: Dist, grid: Grid, rank: int) -> int | None:
    """Return the position of `rank` among those that `dist` deals to, or None if it gets nothing."""
    myrow, mycol = grid.coords(rank)
    match dist:
        case Dist.CIRC:
            return 0 if rank == 0 else None
        case Dist.STAR:
            return 0
        case Dist.MC:
            return myrow
        case Dist.MR:
            return mycol
        case Dist.VC:
            return rank
        case Dist.VR:
            return myrow * grid.npcol + mycol
        case Dist.MD:
            return _deal(dist, grid).index(rank) if rank in _deal(dist, grid) else None


def _stride(dist: Dist, grid: Grid) -> int:
    """Return the number of positions that `dist` deals to."""
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


@dataclass(frozen=True)
class Layout:
    """How a matrix is spread over the ranks of a grid.

    Parameters
    ----------
    pair : str
        One of :data:`PAIRS`, e.g. ``"VC_STAR"``.
    grid : Grid
        The process grid; its size is the number of ranks of the group.
    block : (int, int)
        Rows and columns of a block. ``(1, 1)`` is Elemental's element-cyclic distribution.
    align : (int, int)
        The positions that get the first block of rows and of columns. For ``CIRC_CIRC``, ``align[0]`` is the root.

    Raises
    ------
    LayoutError
        If the pair is not a legal one, a block is smaller than 1, or an alignment lies outside the grid.
    """

    pair: str
    grid: Grid
    block: tuple[int, int] = (DEFAULT_BLOCK, DEFAULT_BLOCK)
    align: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        check_pair(self.pair)
        if min(self.block) < 1:
            raise LayoutError(f"block {self.block} of layout {self.pair}: rows and columns must be at least 1")
        for axis, dist in enumerate(self.dists):
            limit = self.grid.size if dist is Dist.CIRC and axis == 0 else _stride(dist, self.grid)
            if not 0 <= self.align[axis] < limit:
                raise LayoutError(
                    f"alignment {self.align} of layout {self.pair} on a {self.grid} grid: "
                    f"entry {axis} must lie in 0..{limit - 1}"
                )

    @classmethod
    def of(
        cls,
        pair: str,
        shape: tuple[int, int],
        size: int,
        *,
        grid: Grid | None = None,
        block: int | tuple[int, int] | None = None,
        align: tuple[int, int] = (0, 0),
    ) -> Layout:
        """Return the layout named `pair` for a matrix of `shape` on `size` ranks, with the default grid and block.

        The default block of an axis that is dealt over all ranks (VC, VR, MD) is one block a rank; that of MC and MR
        is :data:`DEFAULT_BLOCK` or, for a matrix too small to give every rank such a block, less.
        """
        check_pair(pair)
        grid = grid or Grid.of_size(size)
        if grid.size != size:
            raise LayoutError(f"a {grid} grid has {grid.size} ranks, but the worker group has {size}")
        if block is None:
            block = _default_block(pair, shape, grid)
        elif isinstance(block, int):
            block = (block, block)
        return cls(pair, grid, block, align)

    @cached_property
    def dists(self) -> tuple[Dist, Dist]:
        """Distribution of the row index and of the column index."""
        row, _, col = self.pair.partition("_")
        return Dist(row), Dist(col)

    @property
    def redundant(self) -> bool:
        """Whether an element is held by more than one rank."""
        named = set(self.dists)
        return Dist.STAR in named and named <= {Dist.STAR, Dist.MC, Dist.MR} and self.distinct_owners < self.grid.size

    @property
    def distinct_owners(self) -> int:
        """Number of parts that the matrix is cut into."""
        rows, cols = self.dists
        return _stride(rows, self.grid) * _stride(cols, self.grid)

    def part(self, shape: tuple[int, int], rank: int) -> tuple[AxisPart, AxisPart]:
        """Return the rows and the columns that `rank` holds of a matrix of `shape` (both empty if it holds none)."""
        if self.dists[0] is Dist.CIRC:
            held = rank == self.align[0]
            return _whole(shape[0], held), _whole(shape[1], held)
        parts = [self._axis_part(axis, shape[axis], rank) for axis in (0, 1)]
        if min(p.extent for p in parts) == 0:
            return _whole(0, False), _whole(0, False)
        return parts[0], parts[1]

    def _axis_part(self, axis: int, extent: int, rank: int) -> AxisPart:
        dist = self.dists[axis]
        stride = _stride(dist, self.grid)
        position = _position(dist, self.grid, rank)
        if position is None:
            return _whole(extent, False)
        if stride == 1:
            return _whole(extent, True)
        return AxisPart(extent, self.block[axis], stride, (position - self.align[axis]) % stride)

    def local_shape(self, shape: tuple[int, int], rank: int) -> tuple[int, int]:
        """Return the shape of the block that `rank` stores of a matrix of `shape`."""
        rows, cols = self.part(shape, rank)
        return rows.size, cols.size

    def is_source(self, rank: int) -> bool:
        """Whether `rank` is the one that hands on its part, of all ranks that hold the same part."""
        if self.dists[0] is Dist.CIRC:
            return rank == self.align[0]
        myrow, mycol = self.grid.coords(rank)
        named = set(self.dists)
        if named & {Dist.VC, Dist.VR}:
            return True
        if Dist.MD in named:
            return rank in _deal(Dist.MD, self.grid)
        return (Dist.MC in named or myrow == 0) and (Dist.MR in named or mycol == 0)

    def owners(self, i: int, j: int) -> tuple[int, ...]:
        """Return every rank that holds element ``(i, j)``, ascending."""
        extent = (i + 1, j + 1)
        return tuple(r for r in range(self.grid.size) if _holds(self.part(extent, r), i, j))

    def transposed(self) -> Layout:
        """Return the layout of the transpose, with every element on the rank where it was."""
        row, _, col = self.pair.partition("_")
        block, align = self.block, self.align
        if self.dists[0] is not Dist.CIRC:
            align = (align[1], align[0])
        return Layout(f"{col}_{row}", self.grid, (block[1], block[0]), align)

    def __str__(self) -> str:
        mb, nb = self.block
        return f"{self.pair} on {self.grid}, block {mb}x{nb}"


def check_pair(pair: str) -> None:
    """Raise :class:`LayoutError` unless `pair` names a legal distribution pair."""
    if pair not in PAIRS:
        raise LayoutError(f"there is no layout {pair!r}; the layouts are {', '.join(PAIRS)}")


def _default_block(pair: str, shape: tuple[int, int], grid: Grid) -> tuple[int, int]:
    strides = [_stride(Dist(name), grid) for name in pair.split("_")]
    if pair in ("MC_MR", "MR_MC"):
        m, n = (max(1, min(DEFAULT_BLOCK, extent // stride)) for extent, stride in zip(shape, strides, strict=True))
    else:
        m, n = (max(1, -(-extent // stride)) for extent, stride in zip(shape, strides, strict=True))
    return m, n


def _whole(extent: int, held: bool) -> AxisPart:
    """Return the part that is all of an axis, or nothing of it."""
    return AxisPart(extent if held else 0, max(extent, 1), 1, 0)


def _holds(part: tuple[AxisPart, AxisPart], i: int, j: int) -> bool:
    return all(
        axis.extent > index and index // axis.block % axis.stride == axis.position
        for axis, index in zip(part, (i, j), strict=True)
    )
