"""The part of a rectangle of a matrix that one worker holds, and its bytes on the wire.

In every layout, consecutive global indices have consecutive local indices. So the part of a rectangle that a rank holds
is a rectangle of its block, named by local rows and columns. On one host its elements are copied between the block and
the caller's array by strided tiles (:mod:`.tiling`); otherwise they pass through a small buffer in the block's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.layouts import tiling
from alchemist_ray.layouts.layout import AxisPart
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec

Array = npt.NDArray[Any]

BUFFER_BYTES = 2 * 2**20
"""Size of the buffer for elements that are not adjacent in memory; it fits into the cache."""
RUN_BYTES = 64 * 1024
"""Runs of at least this size on average go to or from the wire without a copy."""


@dataclass(frozen=True)
class Part:
    """The part of a rectangle of a matrix that one rank holds.

    Attributes
    ----------
    dtype : dtype
        Element type of the matrix.
    rows, cols : AxisPart
        The rows and columns of the matrix that the rank holds.
    local : Rectangle
        Local rows and columns of the rank's block that lie in the rectangle.
    corner : (int, int)
        First row and column of the rectangle, where the caller's array begins.
    """

    dtype: np.dtype[Any]
    rows: AxisPart
    cols: AxisPart
    local: Rectangle
    corner: tuple[int, int]

    @classmethod
    def of(cls, spec: MatrixSpec, rank: int, region: Rectangle) -> Part:
        """Return the part of `region` that `rank` holds; it may be empty."""
        rows, cols = spec.layout.part(spec.shape, rank)
        local = Rectangle(*rows.local_range(region.i0, region.i1), *cols.local_range(region.j0, region.j1))
        return cls(spec.dtype, rows, cols, local, (region.i0, region.j0))

    @classmethod
    def of_bytes(cls, nbytes: int, start: int = 0, stop: int | None = None) -> Part:
        """Return bytes ``start .. stop-1`` of a block of `nbytes` bytes, as one row."""
        stop = nbytes if stop is None else stop
        octet = np.dtype(np.uint8)
        return cls(
            octet, AxisPart(1, 1, 1, 0), AxisPart(nbytes, nbytes, 1, 0), Rectangle(0, 1, start, stop), (0, start)
        )

    @property
    def block(self) -> Part:
        """The whole block of the rank."""
        return Part(self.dtype, self.rows, self.cols, Rectangle(0, self.rows.size, 0, self.cols.size), (0, 0))

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Local rows and columns, as in requests."""
        return self.local.i0, self.local.i1, self.local.j0, self.local.j1

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.local.area * self.dtype.itemsize

    def view(self, memory: Array, offset: int) -> Array:
        """Return the part in a rank's memory (bytes), where it begins at `offset`."""
        itemsize = self.dtype.itemsize
        strides = (self.cols.size * itemsize, itemsize)
        return np.ndarray(self.local.shape, self.dtype, memory, offset, strides)

    def bands(self, nbytes: int) -> Iterator[Part]:
        """Yield the part in the block's order, in pieces of about `nbytes`: several rows, or a piece of one row."""
        local, itemsize = self.local, self.dtype.itemsize
        height = max(1, nbytes // max(1, local.shape[1] * itemsize))
        width = local.shape[1] if height > 1 else max(1, nbytes // itemsize)
        for i in range(local.i0, local.i1, height):
            for j in range(local.j0, local.j1, width):
                band = Rectangle(i, min(i + height, local.i1), j, min(j + width, local.j1))
                yield Part(self.dtype, self.rows, self.cols, band, self.corner)

    def scatter(self, array: Array, block: Array) -> None:
        """Fill `block`, of the part's shape, from the rectangle `array`."""
        tiling.scatter(array, block, self.rows, self.cols, (self.local.i0, self.local.j0), self.corner)

    def gather(self, block: Array, array: Array) -> None:
        """Write `block`, of the part's shape, to its places in the rectangle `array`."""
        tiling.gather(block, array, self.rows, self.cols, (self.local.i0, self.local.j0), self.corner)

    def runs(self, array: Array) -> list[Array] | None:
        """Return contiguous views of `array` that together are the part in wire order; None if they would be short.

        They need no copy between the array and the wire. One run may have any length.
        """
        pieces = list(self.rows.pieces(self.local.i0, self.local.i1))
        q, *more_cols = self.cols.pieces(self.local.j0, self.local.j1)
        if more_cols or array.dtype != self.dtype or (q.count > 1 and q.step != q.length):
            return None
        whole = [p.count == 1 or p.step == p.length for p in pieces]
        number = sum(1 if adjacent else p.count for p, adjacent in zip(pieces, whole, strict=True))
        if number > 1 and self.nbytes < number * RUN_BYTES:
            return None
        starts: list[tuple[int, int]] = []
        for p, adjacent in zip(pieces, whole, strict=True):
            if adjacent:
                starts.append((p.start, p.count * p.length))
            else:
                starts += [(p.start + k * p.step, p.length) for k in range(p.count)]
        j = q.start - self.corner[1]
        columns = slice(j, j + q.count * q.length)
        runs = [array[i - self.corner[0] : i - self.corner[0] + length, columns] for i, length in starts]
        return runs if all(run.flags.c_contiguous for run in runs) else None

    def pack(self, array: Array) -> Iterator[memoryview]:
        """Yield the bytes of the part, in the order of the block, from the rectangle `array`."""
        runs = self.runs(array)
        if runs is not None:
            for octets in map(octets_of, runs):
                for start in range(0, len(octets), BUFFER_BYTES):
                    yield octets[start : start + BUFFER_BYTES]
            return
        buffer = np.empty(0, self.dtype)
        for band in self.bands(BUFFER_BYTES):
            if buffer.size < band.local.area:
                buffer = np.empty(band.local.area, self.dtype)
            block = buffer[: band.local.area].reshape(band.local.shape)
            band.scatter(array, block)
            yield octets_of(block)


def octets_of(array: Array) -> memoryview:
    """Return the bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8).data
