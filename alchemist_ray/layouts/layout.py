"""Which rank holds which element of a distributed matrix: index arithmetic and nothing else.

A matrix is distributed over the ranks of a :class:`.Grid`, one axis at a time. A *distribution pair* such as
``VC_STAR`` names the distribution of its row index and that of its column index. The names are Elemental's;
:mod:`.grid` explains them. Indices are distributed in blocks of consecutive indices: a block size of 1 is Elemental's
distribution, larger blocks are ScaLAPACK's block-cyclic distribution. Rank ``r`` sits at row ``r % nprow`` and column
``r // nprow`` of the grid (column-major, as in Elemental and in the tables of the CUG 2019 paper, section VI).

There are three classes: :class:`Grid` (the ranks), :class:`AxisPart` (the indices of one axis that one rank holds) and
:class:`Layout` (the pair, the grid, the blocks). A layout answers two questions, for one rank or for all ranks at once:
which part does a rank hold (:meth:`Layout.part`, :meth:`Layout.local_shapes`), and which rank holds an element or a
rectangle (:meth:`Layout.source_of`, :meth:`Layout.ranks_of`). The arithmetic is exact for matrices of up to 2^62 rows
and columns. Both sides of the wire use this module; it does no I/O.

Sources: J. Poulson et al., *Elemental*, ACM TOMS 39 (2013), section 3; ScaLAPACK Users' Guide, section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import LayoutError
from alchemist_ray.layouts.grid import DISTS, PAIRS, Deal, Dist, Grid, Indices, check_pair, deal_of, strides_of

__all__ = ["DEFAULT_BLOCK", "MAX_EXTENT", "PAIRS", "AxisPart", "Dist", "Grid", "Layout", "Piece", "check_pair"]

DEFAULT_BLOCK = 256
"""The default number of rows and of columns of a block of a two-dimensional layout."""

MAX_EXTENT = 2**62
"""Rows and columns of the largest matrix, and of the largest block."""

Range = tuple[int, int]
"""First index, and the index after the last."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` runs of `length` consecutive indices, adjacent in the local block and `step` apart in the matrix."""

    local: int
    start: int
    count: int
    length: int
    step: int


@dataclass(frozen=True, slots=True)
class AxisPart:
    """The indices of one axis that one rank holds.

    Blocks of `block` consecutive indices of an axis of `extent` indices go in turn to `stride` positions; this is the
    part of position `position`. Local indices number the indices held, in ascending order of the global index.
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
        return i // self.block // self.stride * self.block + i % self.block  # avoids products that overflow an int64

    def indices(self) -> npt.NDArray[np.int64]:
        """Return all global indices held, ascending, as an ``int64`` array of length :attr:`size`."""
        held: npt.NDArray[np.int64] = self.to_global(np.arange(self.size, dtype=np.int64))
        return held

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """Yield the local indices ``[start, stop)`` in at most three pieces: end of a block, whole blocks, a rest."""
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


@dataclass(frozen=True)
class Layout:
    """How a matrix is distributed over the ranks of a grid.

    Parameters
    ----------
    pair : str
        One of :data:`PAIRS`, e.g. ``"VC_STAR"``.
    grid : Grid
        The process grid; its size is the number of ranks of the group.
    block : (int, int)
        Rows and columns of a block. ``(1, 1)`` is Elemental's element-cyclic distribution.
    align : (int, int)
        The turns that get the first block of rows and of columns. For ``CIRC_CIRC``, ``align[0]`` is the root.

    Raises
    ------
    LayoutError
        If the pair is not a legal one, a block is smaller than 1 or larger than any matrix, or an alignment lies
        outside the grid.
    """

    pair: str
    grid: Grid
    block: tuple[int, int] = (DEFAULT_BLOCK, DEFAULT_BLOCK)
    align: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        check_pair(self.pair)
        if not (1 <= self.block[0] <= MAX_EXTENT and 1 <= self.block[1] <= MAX_EXTENT):
            raise LayoutError(
                f"block {self.block} of layout {self.pair}: rows and columns must be at least 1 and at most 2**62"
            )
        limits = (self.grid.size, 1) if self.pair == "CIRC_CIRC" else strides_of(self.pair, self.grid)
        for axis in (0, 1):
            if not 0 <= self.align[axis] < limits[axis]:
                raise LayoutError(
                    f"alignment {self.align} of layout {self.pair} on a {self.grid} grid: "
                    f"entry {axis} must lie in 0..{limits[axis] - 1}"
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

        By default an axis that is distributed over all ranks (VC, VR, MD) has one block per rank. The default block of
        MC and MR is :data:`DEFAULT_BLOCK`, or less if the matrix is too small to give every rank such a block.

        Raises
        ------
        LayoutError
            If the pair does not exist, or the grid does not have `size` ranks.
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

    @property
    def dists(self) -> tuple[Dist, Dist]:
        """Distribution of the row index and of the column index."""
        return DISTS[self.pair]

    @property
    def redundant(self) -> bool:
        """Whether more than one rank holds an element."""
        return self._deal.redundant

    @property
    def distinct_owners(self) -> int:
        """Number of different parts into which the matrix is cut."""
        rows, cols = strides_of(self.pair, self.grid)
        return rows * cols

    # --- the part of a rank -------------------------------------------------------------------------------------------

    def part(self, shape: tuple[int, int], rank: int) -> tuple[AxisPart, AxisPart]:
        """Return the rows and the columns of a matrix of `shape` that `rank` holds (both empty if it holds none)."""
        deal = self._deal
        place = self._unrotated(rank)
        p, q = deal.turns[0].item(place), deal.turns[1].item(place)
        if p < 0:
            return _NOTHING, _NOTHING
        return self._axis_part(deal, 0, shape[0], p), self._axis_part(deal, 1, shape[1], q)

    def _axis_part(self, deal: Deal, axis: int, extent: int, turn: int) -> AxisPart:
        stride = deal.strides[axis]
        if stride == 1:
            return AxisPart(extent, max(extent, 1), 1, 0)
        return AxisPart(extent, self.block[axis], stride, (turn - self.align[axis]) % stride)

    def local_shape(self, shape: tuple[int, int], rank: int) -> tuple[int, int]:
        """Return the shape of the block that `rank` stores of a matrix of `shape`."""
        rows, cols = self.part(shape, rank)
        return rows.size, cols.size

    def local_shapes(self, shape: tuple[int, int]) -> Indices:
        """Return the shapes of the blocks of all ranks, as an ``int64`` array of shape ``(grid.size, 2)``."""
        deal = self._deal
        shapes = np.zeros((self.grid.size, 2), np.int64)
        holding = deal.turns[0] >= 0
        for axis in (0, 1):
            held = self._held_by_turn(axis, shape[axis])
            shapes[:, axis] = np.where(holding, held[deal.turns[axis]], 0)
        return np.roll(shapes, self._root, axis=0) if self._root else shapes

    def _held_by_turn(self, axis: int, extent: int) -> Indices:
        """Return how many of the indices of an axis each turn gets."""
        stride = self._deal.strides[axis]
        if stride == 1:
            return np.array([extent], np.int64)
        blocks, rest = divmod(extent, self.block[axis])
        rounds, left = divmod(blocks, stride)
        position = (np.arange(stride, dtype=np.int64) - self.align[axis]) % stride
        return (rounds + (position < left)) * self.block[axis] + np.where(position == left, rest, 0)

    def is_source(self, rank: int) -> bool:
        """Whether `rank` is the source of its part: of all ranks that hold the same part, one is its source."""
        return self._deal.sources.item(self._unrotated(rank))

    # --- the ranks of an element --------------------------------------------------------------------------------------

    def source_of(self, i: npt.ArrayLike, j: npt.ArrayLike) -> Indices:
        """Return the source of element ``(i, j)``: of all ranks that hold it, the one that sends it on.

        Parameters
        ----------
        i, j : int or array_like of int
            Global indices, not negative; arrays are broadcast against each other.

        Returns
        -------
        ndarray of int64
            One rank per element, of the shape to which `i` and `j` broadcast.

        Raises
        ------
        TypeError
            If the indices are not integers of a type that casts safely to ``int64``.
        """
        rows, cols = self._deal.shares
        return np.asarray(rows[self._turn(0, i)] + cols[self._turn(1, j)] + self._root)

    def _turn(self, axis: int, index: npt.ArrayLike) -> Indices:
        """Return the turn that gets an index of an axis."""
        exact = np.asarray(index).astype(np.int64, casting="safe")
        turn: Indices = (exact // self.block[axis] + self.align[axis]) % self._deal.strides[axis]
        return turn

    def ranks_of(self, shape: tuple[int, int], rows: Range, cols: Range) -> Indices:
        """Return the ranks that are the source of some element of a rectangle of a matrix.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the matrix.
        rows, cols : (int, int)
            Half-open ranges of the rows and of the columns of the rectangle. The work is proportional to the number of
            ranks found, not to the number of all ranks or of elements.

        Returns
        -------
        ndarray of int64
            Ascending, each rank once; empty if the rectangle is empty.

        Raises
        ------
        LayoutError
            If the rectangle lies outside the matrix.
        """
        for extent, (start, stop) in zip(shape, (rows, cols), strict=True):
            if not 0 <= start <= stop <= extent:
                raise LayoutError(f"rows {rows} and columns {cols} do not lie in a matrix of shape {shape}")
        row_shares, col_shares = self._shares_of(0, rows), self._shares_of(1, cols)
        ranks: Indices = np.add.outer(row_shares, col_shares).ravel() + self._root
        ranks.sort()
        return ranks

    def _shares_of(self, axis: int, indices: Range) -> Indices:
        """Return the shares of the turns that get some of `indices`."""
        start, stop = indices
        if start == stop:
            return np.empty(0, np.int64)
        deal, block = self._deal, self.block[axis]
        stride = deal.strides[axis]
        first, last = start // block, (stop - 1) // block
        if last - first + 1 >= stride:
            return deal.shares[axis]
        turns = np.arange(last - first + 1, dtype=np.int64) + (first + self.align[axis]) % stride
        return deal.shares[axis][turns % stride]

    def owners(self, i: int, j: int) -> tuple[int, ...]:
        """Return every rank that holds element ``(i, j)``, ascending."""
        rows, cols = self._deal.turns
        held = np.flatnonzero((rows == self._turn(0, i)) & (cols == self._turn(1, j)))
        return tuple((held + self._root).tolist())

    # --- the tables of the pair ---------------------------------------------------------------------------------------

    @property
    def _deal(self) -> Deal:
        # Looked up each time. If the layout kept the tables of all ranks, they would be pickled with every handle.
        return deal_of(self.pair, self.grid)

    @property
    def _root(self) -> int:
        """The rank to which rank 0 of the tables is rotated."""
        return self.align[0] if self.pair == "CIRC_CIRC" else 0

    def _unrotated(self, rank: int) -> int:
        return (rank - self.align[0]) % self.grid.size if self.pair == "CIRC_CIRC" else rank

    def transposed(self) -> Layout:
        """Return the layout of the transpose in which every element stays on its rank."""
        row, _, col = self.pair.partition("_")
        block, align = self.block, self.align
        if self.pair != "CIRC_CIRC":
            align = (align[1], align[0])
        return Layout(f"{col}_{row}", self.grid, (block[1], block[0]), align)

    def __str__(self) -> str:
        mb, nb = self.block
        return f"{self.pair} on {self.grid}, block {mb}x{nb}"


_NOTHING = AxisPart(0, 1, 1, 0)


def _default_block(pair: str, shape: tuple[int, int], grid: Grid) -> tuple[int, int]:
    (m, n), (r, c) = shape, strides_of(pair, grid)
    if pair in ("MC_MR", "MR_MC"):
        return max(1, min(DEFAULT_BLOCK, m // r)), max(1, min(DEFAULT_BLOCK, n // c))
    return max(1, -(-m // r)), max(1, -(-n // c))
