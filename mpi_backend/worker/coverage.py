"""The parts of a block that have been written: a set of rectangles that never overlap.

Parts are rectangles of local rows and columns. They come in any order and from many senders. Parts of whole columns are
kept as intervals of columns. Other parts are kept by their range of columns, with intervals of rows for each range.
Intervals are merged as soon as they touch. Writers cut a matrix into whole columns or along few column ranges, so a
query needs one bisection for each of few ranges, however many parts there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

from alchemist_ray.layouts.region import Rectangle


class Intervals:
    """A set of integers as half-open intervals in ascending order, which neither overlap nor touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._stops, strict=True)

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether any of ``start .. stop-1`` is in the set."""
        first = bisect_right(self._stops, start)
        return first < len(self._starts) and self._starts[first] < stop

    def add(self, start: int, stop: int) -> None:
        """Add ``start .. stop-1`` and merge intervals that touch."""
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last], self._stops[first:last] = [start], [stop]

    def remove(self, start: int, stop: int) -> None:
        """Remove ``start .. stop-1``."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        if first >= last:
            return
        left, right = self._starts[first], self._stops[last - 1]
        kept = [(left, start)] * (left < start) + [(stop, right)] * (stop < right)
        self._starts[first:last] = [a for a, _ in kept]
        self._stops[first:last] = [b for _, b in kept]

    def gaps(self, extent: int) -> list[tuple[int, int]]:
        """Return the intervals of ``0 .. extent-1`` that are not in the set."""
        edges = [0, *(edge for interval in self for edge in interval), extent]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


class Coverage:
    """The parts of a block of `shape` that have been written, or are being written."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._columns = Intervals()
        self._rows: dict[tuple[int, int], Intervals] = {}

    def overlaps(self, part: Rectangle) -> bool:
        """Whether `part` shares an element with a part of the set."""
        return part.area > 0 and (
            self._columns.overlaps(part.j0, part.j1)
            or any(
                j0 < part.j1 and part.j0 < j1 and rows.overlaps(part.i0, part.i1)
                for (j0, j1), rows in self._rows.items()
            )
        )

    def add(self, part: Rectangle) -> None:
        """Add a part that overlaps no other."""
        if self._whole_columns(part):
            self._columns.add(part.j0, part.j1)
        elif part.area:
            self._rows.setdefault((part.j0, part.j1), Intervals()).add(part.i0, part.i1)

    def remove(self, part: Rectangle) -> None:
        """Remove a part that was added before."""
        columns = part.j0, part.j1
        if self._whole_columns(part):
            self._columns.remove(*columns)
        elif part.area:
            self._rows[columns].remove(part.i0, part.i1)
            if not self._rows[columns]:
                del self._rows[columns]

    def missing(self) -> list[Rectangle]:
        """Return rectangles without overlap that cover everything that was not added."""
        ranges = [*self._rows, *self._columns]
        edges = sorted({0, self._shape[1], *(edge for columns in ranges for edge in columns)})
        found: list[Rectangle] = []
        for j0, j1 in pairwise(edges):
            gaps = self._gaps_between(j0, j1)
            before = [(part.i0, part.i1) for part in found if part.j1 == j0]
            if gaps == before:  # the same gaps as in the columns to the left: one rectangle for both
                found = [Rectangle(p.i0, p.i1, p.j0, j1) if p.j1 == j0 else p for p in found]
            else:
                found.extend(Rectangle(i0, i1, j0, j1) for i0, i1 in gaps)
        return found

    def _whole_columns(self, part: Rectangle) -> bool:
        return 0 < part.area == self._shape[0] * (part.j1 - part.j0)

    def _gaps_between(self, j0: int, j1: int) -> list[tuple[int, int]]:
        """Return the missing rows of columns [j0, j1); no part has an edge inside these columns."""
        if self._columns.overlaps(j0, j1):
            return []
        rows = Intervals()
        for (start, stop), intervals in self._rows.items():
            if start <= j0 and j1 <= stop:
                for interval in intervals:
                    rows.add(*interval)
        return rows.gaps(self._shape[0])
