"""Parts of a matrix by NumPy's basic indexing, read in rectangles."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.layouts.region import Rectangle

Array = npt.NDArray[Any]
ReadRectangle = Callable[[Rectangle, Array], None]

STRIDED_BYTES = 16 * 2**20
"""Size of the rectangles that are read for a slice with a step."""


def part_of(key: Any, shape: tuple[int, int], dtype: np.dtype[Any], read: ReadRectangle) -> Any:
    """Return ``matrix[key]`` for a matrix of `shape` and `dtype`.

    Parameters
    ----------
    key : int, slice, Ellipsis, or a tuple of these
        As for an ndarray.
    shape, dtype
        Of the matrix.
    read : callable
        ``read(region, out)`` fills `out` with a rectangle of the matrix.

    Raises
    ------
    IndexError
        If `key` is out of bounds, or of another kind.
    """
    (rows, one_row), (cols, one_col) = (
        _indices(member, extent) for member, extent in zip(_members(key), shape, strict=True)
    )
    out = np.empty((len(rows), len(cols)), dtype)
    if out.size:
        _read_ranges(rows, cols, out, read)
    return out[0 if one_row else slice(None), 0 if one_col else slice(None)]


def _members(key: Any) -> tuple[Any, Any]:
    members = list(key) if isinstance(key, tuple) else [key]
    if sum(member is Ellipsis for member in members) > 1 or len([m for m in members if m is not Ellipsis]) > 2:
        raise IndexError(f"a matrix has 2 dimensions, but {len(members)} were indexed")
    if Ellipsis in members:
        place = members.index(Ellipsis)
        members[place : place + 1] = [slice(None)] * (3 - len(members))
    return tuple([*members, slice(None)][:2])


def _indices(member: Any, extent: int) -> tuple[range, bool]:
    """Return the indices that one member of a key names, and whether it names a single one."""
    if isinstance(member, slice):
        return range(*member.indices(extent)), False
    if isinstance(member, (bool, np.bool_)):
        raise IndexError("a part of a matrix is named by integers and slices, not by a bool")
    try:
        index = operator.index(member)
    except TypeError:
        raise IndexError(
            f"a part of a matrix is named by integers and slices, not by {type(member).__name__}: fetch what contains "
            "it, and index the array"
        ) from None
    if not -extent <= index < extent:
        raise IndexError(f"index {index} is out of bounds for {extent} rows or columns")
    return range(index % extent, index % extent + 1), True


def _read_ranges(rows: range, cols: range, out: Array, read: ReadRectangle) -> None:
    if abs(rows.step) == 1 == abs(cols.step):
        read(_around(rows, cols), out[:: rows.step, :: cols.step])
        return
    width = abs(cols[-1] - cols[0]) + 1
    # Each rectangle holds as many of the rows as fit into the bounded size.
    height = max(1, STRIDED_BYTES // (width * out.itemsize) // abs(rows.step))
    for start in range(0, len(rows), height):
        some = rows[start : start + height]
        region = _around(some, cols)
        rectangle = np.empty(region.shape, out.dtype)
        read(region, rectangle)
        out[start : start + height] = _picked(rectangle, some, cols)


def _around(rows: range, cols: range) -> Rectangle:
    return Rectangle(
        min(rows[0], rows[-1]), max(rows[0], rows[-1]) + 1, min(cols[0], cols[-1]), max(cols[0], cols[-1]) + 1
    )


def _picked(rectangle: Array, rows: range, cols: range) -> Array:
    """Return the named rows and columns of the rectangle around them."""
    down = rectangle[:: rows.step] if len(rows) > 1 else rectangle
    return down[:, :: cols.step] if len(cols) > 1 else down
