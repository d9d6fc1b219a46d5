"""Rectangles of a matrix."""

from __future__ import annotations

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

    def __str__(self) -> str:
        if self.area == 0:
            return "an empty region"
        return f"rows {self.i0}..{self.i1 - 1}, columns {self.j0}..{self.j1 - 1}"
