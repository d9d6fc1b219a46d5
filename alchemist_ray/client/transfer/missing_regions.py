"""The missing regions of a matrix, found from the gaps in the block of each rank.

Ranks report gaps in local rows and columns; a caller needs rectangles of the matrix. The matrix is cut, first at the
edges of the ranks' gaps, until each piece is either present or missing on every rank that holds a share of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alchemist_ray.layouts.layout import AxisPart
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec

MAX_PIECES = 2000
"""How many pieces are examined; after that, a piece that is partly missing is reported as missing."""


def missing_regions(spec: MatrixSpec, lacking: Mapping[int, Iterable[Rectangle]]) -> list[Rectangle]:
    """Return the missing rectangles of the matrix in ascending order.

    Parameters
    ----------
    spec : MatrixSpec
        The matrix.
    lacking : mapping
        For each rank that is written to, the gaps in its block: rectangles that do not overlap.
    """
    parts = {rank: spec.layout.part(spec.shape, rank) for rank, gaps in lacking.items() if gaps}
    gaps = [(parts[rank], gap) for rank in parts for gap in lacking[rank]]
    edges = [_edges(axis, gaps) for axis in (0, 1)]
    found, waiting, looked = [], [spec.whole], 0
    while waiting:
        region = waiting.pop()
        looked += 1
        missing = sum(_shared(part, gap, region) for part, gap in gaps)
        if missing and (missing == region.area or looked > MAX_PIECES):
            found.append(region)
        elif missing:
            waiting.extend(_cut(region, edges))
    return merged(found)


def _edges(axis: int, gaps: list[tuple[tuple[AxisPart, AxisPart], Rectangle]]) -> list[int]:
    """Return the indices along an axis of the matrix at which gaps of the ranks begin and end."""
    found = set()
    for part, gap in gaps:
        start, stop = (gap.i0, gap.i1) if axis == 0 else (gap.j0, gap.j1)
        found |= {part[axis].to_global(start), part[axis].to_global(stop - 1) + 1}
    return sorted(found)


def _shared(part: tuple[AxisPart, AxisPart], gap: Rectangle, region: Rectangle) -> int:
    """Return the number of elements of `region` in gaps of the rank that holds `part`."""
    rows, cols = part
    (i0, i1), (j0, j1) = rows.local_range(region.i0, region.i1), cols.local_range(region.j0, region.j1)
    height = min(i1, gap.i1) - max(i0, gap.i0)
    width = min(j1, gap.j1) - max(j0, gap.j0)
    return max(0, height) * max(0, width)


def _cut(region: Rectangle, edges: list[list[int]]) -> tuple[Rectangle, Rectangle]:
    """Cut a rectangle at the middle edge inside it; without an edge inside, cut it in half."""
    i0, i1, j0, j1 = region.i0, region.i1, region.j0, region.j1
    rows = [edge for edge in edges[0] if i0 < edge < i1]
    cols = [edge for edge in edges[1] if j0 < edge < j1]
    if rows or (not cols and i1 - i0 > 1):
        i = rows[len(rows) // 2] if rows else (i0 + i1) // 2
        return Rectangle(i0, i, j0, j1), Rectangle(i, i1, j0, j1)
    j = cols[len(cols) // 2] if cols else (j0 + j1) // 2
    return Rectangle(i0, i1, j0, j), Rectangle(i0, i1, j, j1)


def merged(rectangles: Iterable[Rectangle]) -> list[Rectangle]:
    """Join neighbours among rectangles that do not overlap; return them in ascending order."""
    columns: list[Rectangle] = []
    for r in sorted(rectangles, key=lambda r: (r.j0, r.j1, r.i0)):
        if columns and (columns[-1].j0, columns[-1].j1, columns[-1].i1) == (r.j0, r.j1, r.i0):
            r = Rectangle(columns.pop().i0, r.i1, r.j0, r.j1)
        columns.append(r)
    rows: list[Rectangle] = []
    for r in sorted(columns, key=lambda r: (r.i0, r.i1, r.j0)):
        if rows and (rows[-1].i0, rows[-1].i1, rows[-1].j1) == (r.i0, r.i1, r.j0):
            r = Rectangle(r.i0, r.i1, rows.pop().j0, r.j1)
        rows.append(r)
    return sorted(rows, key=lambda r: (r.i0, r.j0))
