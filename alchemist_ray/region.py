"""Rectangles of a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rectangle:
    """Rows [i0, i1) and columns [j0, j1), of a whole matrix or of a rank's block."""

    i0: int
    i1: int
    j0: int
    j1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.i1 - self.i0, self.j1 - self.j0

    @property
    def area(self) -> int:
        """Number of elements."""
        return (self.i1 - self.i0) * (self.j1 - self.j0)

    def contains(self, other: Rectangle) -> bool:
        """Whether all of `other` lies in this one."""
        return self.i0 <= other.i0 and other.i1 <= self.i1 and self.j0 <= other.j0 and other.j1 <= self.j1

    def touches(self, other: Rectangle) -> bool:
        """Whether the two share an element, or a rectangle is what they make together."""
        rows = min(self.i1, other.i1) - max(self.i0, other.i0)
        columns = min(self.j1, other.j1) - max(self.j0, other.j0)
        if rows > 0 and columns > 0:
            return True
        beside = columns == 0 and (self.i0, self.i1) == (other.i0, other.i1)
        above = rows == 0 and (self.j0, self.j1) == (other.j0, other.j1)
        return beside or above

    def around(self, other: Rectangle) -> Rectangle:
        """Return the smallest rectangle that has both."""
        return Rectangle(min(self.i0, other.i0), max(self.i1, other.i1), min(self.j0, other.j0), max(self.j1, other.j1))

    def __str__(self) -> str:
        if self.area == 0:
            return "an empty region"
        return f"rows {self.i0}..{self.i1 - 1}, columns {self.j0}..{self.j1 - 1}"


def merged(rectangles: Iterable[Rectangle]) -> list[Rectangle]:
    """Return the rectangles, ascending, with those that touch made one."""
    apart: list[Rectangle] = []
    for rectangle in sorted(rectangles, key=lambda r: (r.i0, r.j0)):
        grown = rectangle
        while near := next((other for other in apart if grown.touches(other)), None):
            apart.remove(near)
            grown = grown.around(near)
        apart.append(grown)
    return sorted(apart, key=lambda r: (r.i0, r.j0))
