"""Compiled kernels for the cells of one rank.

Arrays are padded: around the cells of the rank are cells of its neighbours, and one ghost cell beyond each edge of the
plate. `region` says where to compute: ``(first row, end, first column, end)`` in the padded array. `walls` says which
of its sides (west, east, south, north) are edges of the plate. Ghost cells are filled before they are read.

Loops take a row as a view and count from 0, because the compiler vectorises this form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]
Region = tuple[int, int, int, int]
Kernel = TypeVar("Kernel", bound=Callable[..., None])

compiled: Callable[[Kernel], Kernel] = njit(cache=True)
compiled_with_sums_in_any_order: Callable[[Kernel], Kernel] = njit(cache=True, fastmath={"reassoc", "contract"})


@compiled
def fill_ghosts(T: Array, offsets: Array, region: Region, walls: Array) -> None:
    """Set the ghost cells at the walls of `region` to the inner cells plus `offsets` (4, rows or columns of `T`)."""
    i0, i1, j0, j1 = region
    if walls[0]:
        for i in range(i0, i1):
            T[i, j0 - 1] = T[i, j0] + offsets[0, i]
    if walls[1]:
        for i in range(i0, i1):
            T[i, j1] = T[i, j1 - 1] + offsets[1, i]
    if walls[2]:
        for j in range(j0, j1):
            T[i0 - 1, j] = T[i0, j] + offsets[2, j]
    if walls[3]:
        for j in range(j0, j1):
            T[i1, j] = T[i1 - 1, j] + offsets[3, j]


@compiled
def mirror(Z: Array, region: Region, walls: Array) -> None:
    """Set the ghost cells at the walls of `region` to the inner cells, so that there is no flux."""
    i0, i1, j0, j1 = region
    if walls[0]:
        for i in range(i0, i1):
            Z[i, j0 - 1] = Z[i, j0]
    if walls[1]:
        for i in range(i0, i1):
            Z[i, j1] = Z[i, j1 - 1]
    if walls[2]:
        Z[i0 - 1, j0:j1] = Z[i0, j0:j1]
    if walls[3]:
        Z[i1, j0:j1] = Z[i1 - 1, j0:j1]


@compiled
def begin(T: Array, offsets: Array, euler: float, c: float, D: Array, Z: Array, region: Region, walls: Array) -> None:
    """Set D to the Euler increment of `T` under the fluxes in `offsets`, Z[0] to 0 and Z[1] to c D."""
    i0, i1, j0, j1 = region
    fill_ghosts(T, offsets, region, walls)
    for i in range(i0, i1):
        below, here, above = T[i - 1, j0:j1], T[i, j0:j1], T[i + 1, j0:j1]
        left, right = T[i, j0 - 1 : j1 - 1], T[i, j0 + 1 : j1 + 1]
        increment, first, zero = D[i, j0:j1], Z[1, i, j0:j1], Z[0, i, j0:j1]
        for j in range(here.size):
            step = euler * ((left[j] + right[j]) + (below[j] + above[j]) - 4.0 * here[j])
            increment[j] = step
            first[j] = c * step
            zero[j] = 0.0


@compiled
def stage(Z1: Array, Z2: Array, D: Array, weights: Array, region: Region) -> None:
    """Overwrite Z_(j-2) with Z_j in `region`. `weights` belong to Z_(j-1), its neighbours, Z_(j-2) and D."""
    i0, i1, j0, j1 = region
    centre, beside, before, driven = weights
    for i in range(i0, i1):
        below, here, above = Z1[i - 1, j0:j1], Z1[i, j0:j1], Z1[i + 1, j0:j1]
        left, right = Z1[i, j0 - 1 : j1 - 1], Z1[i, j0 + 1 : j1 + 1]
        older, increment = Z2[i, j0:j1], D[i, j0:j1]
        for j in range(here.size):
            around = (left[j] + right[j]) + (below[j] + above[j])
            older[j] = centre * here[j] + beside * around + (before * older[j] + driven * increment[j])


@compiled
def run_stages(
    Z: Array, D: Array, weights: Array, first: int, last: int, owned: Array, valid: int, walls: Array
) -> None:
    """Run the stages `first` to `last` without an exchange in between.

    Parameters
    ----------
    Z : ndarray, shape (2, rows, columns)
        Z_j is in Z[j % 2].
    D : ndarray, shape (rows, columns)
        The Euler increment.
    weights : ndarray, shape (s + 1, 4)
        The weights of each stage, see :func:`stage`.
    first, last : int
        Numbers of the first and the last stage.
    owned : ndarray of 4 ints
        The region of this rank's own cells.
    valid : int
        Number of rings beyond that region in which Z_(first - 1) is valid, on sides without a wall. Each stage lowers
        it by one.
    walls : ndarray of 4 bools
        The sides that are edges of the plate.
    """
    for j in range(first, last + 1):
        valid -= 1
        region = (
            owned[0] - (0 if walls[2] else valid),
            owned[1] + (0 if walls[3] else valid),
            owned[2] - (0 if walls[0] else valid),
            owned[3] + (0 if walls[1] else valid),
        )
        mirror(Z[(j - 1) % 2], region, walls)
        stage(Z[(j - 1) % 2], Z[j % 2], D, weights[j], region)


@compiled_with_sums_in_any_order
def moments(T: Array, cos_y: Array, cos_x: Array, sums: Array) -> None:
    """Set `sums` to the sums of phi_k(y) phi_l(x) T over the cells of a block, with k major, and last the sum of T^2.

    The order of summation vectorises and is the same in each call.
    """
    ny, nx = T.shape
    modes = cos_y.shape[0]
    along = np.empty(modes)
    sums[:] = 0.0
    square = 0.0
    for i in range(ny):
        row = T[i]
        for m in range(modes):
            wave, total = cos_x[m], 0.0
            for j in range(nx):
                total += wave[j] * row[j]
            along[m] = total
        for j in range(nx):
            square += row[j] * row[j]
        for k in range(modes):
            for m in range(modes):
                sums[k * modes + m] += cos_y[k, i] * along[m]
    sums[modes * modes] = square
