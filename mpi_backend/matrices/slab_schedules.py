"""Cut a matrix into slabs that fit the chunks of a file, and assign them to ranks. Only index arithmetic.

A *chunk* is the smallest unit that a file reads or writes: a compressed chunk of HDF5 or Zarr, a row group of Parquet,
a single element of a plain array. Each chunk belongs to one rank, so that none is accessed twice. Each rank has one run
of rows (rank 0 has the first rows of the matrix). The most common layout distributes rows in the same way, and then no
element has to be sent.

There are three cases, depending on what fits into :data:`SLAB_BYTES`:

- one row of chunks: a slab is some rows of chunks, with all columns (:class:`RowSchedule`);
- one chunk: a slab is some chunks side by side (:class:`TileSchedule`);
- less than a chunk: a rank takes a chunk in several slabs, one after the other (:class:`TileSchedule`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy.typing as npt

from alchemist_ray.layouts.region import Rectangle

Array = npt.NDArray[Any]

SLAB_BYTES = 4 * 2**20
"""Bytes of a slab in the file's element type or the matrix's, whichever is wider."""


@dataclass(frozen=True)
class FileSlab(Rectangle):
    """A rectangle, of a matrix or of a block, that a rank reads or writes in one operation."""

    @property
    def corner(self) -> tuple[int, int]:
        """Indices of the first element."""
        return self.i0, self.j0

    def of(self, A: Array) -> Array:
        """Return these rows and columns of `A`, as a view."""
        return A[self.i0 : self.i1, self.j0 : self.j1]


class Schedule(Protocol):
    """Assigns slabs to ranks and windows; together the slabs cover the matrix once."""

    @property
    def windows(self) -> int:
        """Number of windows: the most slabs that any rank has."""

    @property
    def largest(self) -> int:
        """Elements of the largest slab."""

    def slab(self, rank: int, window: int) -> FileSlab:
        """Return the slab of `rank` in `window`, or an empty slab if it has no more."""


@dataclass(frozen=True)
class RowSchedule:
    """Each rank has one run of rows and takes `height` of them at a time, with all columns.

    Attributes
    ----------
    bounds : tuple of int
        Rank r has rows ``bounds[r] .. bounds[r+1]-1``.
    n : int
        Columns of the matrix.
    height : int
        Rows of a slab.
    """

    bounds: tuple[int, ...]
    n: int
    height: int

    @property
    def windows(self) -> int:
        """Number of slabs of the rank that has most."""
        return max(-(-(stop - start) // self.height) for start, stop in pairwise(self.bounds))

    @property
    def largest(self) -> int:
        """Elements of the largest slab."""
        return min(self.height, self.bounds[-1]) * self.n

    def slab(self, rank: int, window: int) -> FileSlab:
        """Return the slab of `rank` in `window`."""
        stop = self.bounds[rank + 1]
        i0 = min(self.bounds[rank] + window * self.height, stop)
        return FileSlab(i0, min(i0 + self.height, stop), 0, self.n)


@dataclass(frozen=True)
class TileSchedule:
    """Each rank has one run of units in row-major order and takes each unit tile by tile.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the matrix.
    size : int
        Number of ranks.
    unit : (int, int)
        Rows and columns of a unit, which belongs to one rank: a chunk, or some chunks side by side.
    tile : (int, int)
        Rows and columns of a slab, at most those of the unit.
    """

    shape: tuple[int, int]
    size: int
    unit: tuple[int, int]
    tile: tuple[int, int]

    @property
    def _units(self) -> tuple[int, int]:
        return -(-self.shape[0] // self.unit[0]), -(-self.shape[1] // self.unit[1])

    @property
    def _tiles(self) -> tuple[int, int]:
        """Tiles of a whole unit, down and across."""
        return -(-self.unit[0] // self.tile[0]), -(-self.unit[1] // self.tile[1])

    def _first(self, rank: int) -> int:
        down, across = self._units
        return rank * down * across // self.size

    @property
    def windows(self) -> int:
        """Number of slabs of the rank that has most."""
        down, across = self._tiles
        return max(self._first(rank + 1) - self._first(rank) for rank in range(self.size)) * down * across

    @property
    def largest(self) -> int:
        """Elements of the largest slab."""
        return self.tile[0] * self.tile[1]

    def slab(self, rank: int, window: int) -> FileSlab:
        """Return the slab of `rank` in `window`. It is also empty if the tile lies beyond the edge of the matrix."""
        across = self._tiles[1]
        unit, tile = divmod(window, self._tiles[0] * across)
        unit += self._first(rank)
        if unit >= self._first(rank + 1):
            return FileSlab(0, 0, 0, 0)
        rows = _cut(self.shape[0], self.unit[0], unit // self._units[1], self.tile[0], tile // across)
        return FileSlab(*rows, *_cut(self.shape[1], self.unit[1], unit % self._units[1], self.tile[1], tile % across))


def _cut(extent: int, unit: int, which: int, tile: int, part: int) -> tuple[int, int]:
    """Return the indices of a tile of a unit along one axis."""
    stop = min((which + 1) * unit, extent)
    start = min(which * unit + part * tile, stop)
    return start, min(start + tile, stop)


def even_bounds(m: int, size: int, chunk: int = 1) -> tuple[int, ...]:
    """Return the bounds of runs of rows, as even as chunks of `chunk` rows allow; those of VC_STAR if `chunk` is 1."""
    share = -(-m // size)
    return tuple(min(m, -(-rank * share // chunk) * chunk) for rank in range(size + 1))


def schedule_for(shape: tuple[int, int], chunk: tuple[int, int], itemsize: int, size: int) -> Schedule:
    """Return the schedule for reading or writing a matrix.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the matrix.
    chunk : (int, int)
        Rows and columns of a chunk of the file.
    itemsize : int
        Bytes of an element.
    size : int
        Number of ranks.
    """
    (m, n), room = shape, max(SLAB_BYTES // itemsize, 1)
    h, w = max(1, min(chunk[0], m)), max(1, min(chunk[1], n))
    if h * n <= room:
        return RowSchedule(even_bounds(m, size, h), n, room // (h * max(1, n)) * h)
    if h * w <= room:
        beside = (h, room // (h * w) * w)
        return TileSchedule(shape, size, beside, beside)
    across = min(w, room)
    return TileSchedule(shape, size, (h, w), (min(h, max(room // across, 1)), across))
