"""Pictures of the atoms of a system, seen from above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from numba import njit

from alchemist_ray.mpi_backend.ali import Field

Array = npt.NDArray[Any]

PIXELS = 240
"""Pixels along the longer side of a picture."""

MOST_LINKS = 12.0


@dataclass(frozen=True)
class Picture:
    """The data of this rank's atoms for a picture.

    Attributes
    ----------
    positions : ndarray, shape (atoms, 3)
        Positions of the atoms.
    links : ndarray, shape (atoms,)
        Number of neighbours of each atom that have similar surroundings.
    """

    positions: Array
    links: Array

    def drawn(self, comm: MPI.Comm, box: dict[str, Any]) -> Field | None:
        """Return the picture on rank 0. Collective over comm."""
        positions, links = comm.gather(self.positions), comm.gather(self.links)
        if positions is None or links is None:
            return None
        x, values = np.concatenate(positions), np.concatenate(links)
        order = np.argsort(x[:, 2], kind="stable")
        return Field(
            draw(x[order], values[order], np.asarray(box["lo"]), np.asarray(box["hi"])),
            name="neighbours in like surroundings", unit="1", low=0.0, high=MOST_LINKS,
        )  # fmt: skip


def draw(x: Array, values: Array, lo: Array, hi: Array) -> Array:
    """Return the values of spheres on the pixels that they cover, and NaN elsewhere. The last sphere is on top."""
    per_length = PIXELS / float(max(hi[0] - lo[0], hi[1] - lo[1]))
    shape = [max(1, round(float(hi[axis] - lo[axis]) * per_length)) for axis in (1, 0)]
    pixels = np.full(shape, np.nan, np.float32)
    extent = np.ptp(x, axis=0)
    extent = extent[extent > 0]
    spacing = float(np.prod(extent) / len(x)) ** (1 / max(extent.size, 1)) if extent.size else 1.0
    radius = 0.45 * spacing * per_length
    _paint(pixels, (x[:, :2] - lo[:2]) * per_length, values.astype(np.float32), max(radius, 1.0))
    return pixels


@njit(cache=True)
def _paint(pixels, centres, values, radius):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    ny, nx = pixels.shape
    reach = int(radius) + 1
    for atom in range(len(values)):
        column, row = int(centres[atom, 0]), ny - 1 - int(centres[atom, 1])
        for i in range(max(row - reach, 0), min(row + reach + 1, ny)):
            for j in range(max(column - reach, 0), min(column + reach + 1, nx)):
                distance = (i - row) ** 2 + (j - column) ** 2
                if distance <= radius**2:
                    pixels[i, j] = values[atom]
