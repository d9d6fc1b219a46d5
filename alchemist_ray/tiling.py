"""Copy between a matrix that lies whole in memory and the local block of one rank.

A rank's block of a block-cyclic matrix is a grid of tiles. Tile by tile in Python would be slow, so the tiles are
taken as strided views: along each axis a part has at most three pieces (:meth:`~alchemist_ray.layout.AxisPart.pieces`),
so at most nine ``numpy.copyto`` calls move a block, whatever its block size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from alchemist_ray.layout import AxisPart, Piece

Array = npt.NDArray[Any]


Corner = tuple[int, int]


def tiles(
    matrix: Array, local: Array, rows: AxisPart, cols: AxisPart, origin: Corner = (0, 0), corner: Corner = (0, 0)
) -> Iterator[tuple[Array, Array]]:
    """Yield pairs of equally shaped views, of `matrix` and of `local`, that together cover `local`.

    Parameters
    ----------
    matrix : ndarray
        The whole matrix, or a rectangle of it that has all elements of `local`; any strides.
    local : ndarray
        The local rows ``origin[0]``, ``origin[0] + 1``, ... and columns ``origin[1]``, ... of one rank's block.
    rows, cols : AxisPart
        What that rank holds of `matrix`.
    origin : (int, int)
        Local index of ``local[0, 0]``.
    corner : (int, int)
        Global index of ``matrix[0, 0]``.
    """
    i0, j0 = origin
    for p in rows.pieces(i0, i0 + local.shape[0]):
        for q in cols.pieces(j0, j0 + local.shape[1]):
            yield _global_view(matrix, p, q, corner), _local_view(local, p, q, origin)


def _global_view(matrix: Array, p: Piece, q: Piece, corner: Corner) -> Array:
    s, t = matrix.strides
    first = matrix[p.start - corner[0] :, q.start - corner[1] :]
    return as_strided(first, (p.count, p.length, q.count, q.length), (p.step * s, s, q.step * t, t))


def _local_view(local: Array, p: Piece, q: Piece, origin: Corner) -> Array:
    s, t = local.strides
    first = local[p.local - origin[0] :, q.local - origin[1] :]
    return as_strided(first, (p.count, p.length, q.count, q.length), (p.length * s, s, q.length * t, t))


def scatter(
    matrix: Array, local: Array, rows: AxisPart, cols: AxisPart, origin: Corner = (0, 0), corner: Corner = (0, 0)
) -> None:
    """Fill `local` with its elements of `matrix`; the parameters are those of :func:`tiles`."""
    for source, target in tiles(matrix, local, rows, cols, origin, corner):
        np.copyto(target, source)


def gather(
    local: Array, matrix: Array, rows: AxisPart, cols: AxisPart, origin: Corner = (0, 0), corner: Corner = (0, 0)
) -> None:
    """Write the elements of `local` to their places in `matrix`; the parameters are those of :func:`tiles`."""
    for target, source in tiles(matrix, local, rows, cols, origin, corner):
        np.copyto(target, source)
