"""Pictures of the atoms of a system, seen from above."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from numba import njit
from scipy.spatial import KDTree

from alchemist_ray.mpi_backend.ali import Field

Array = npt.NDArray[Any]

PIXELS = 240
"""Pixels along the longer side of a picture."""

MOST_LINKS = 12.0

RIM = 1.5
"""Width of the empty rim around each sphere in pixels: atoms in front of one another stay distinguishable."""


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

    def drawn(self, comm: MPI.Comm, box: dict[str, Any], unit: str, shell: float | None = None) -> Field | None:
        """Return the picture on rank 0. Collective over comm.

        Parameters
        ----------
        comm : MPI.Comm
        box : dict
            ``lo`` and ``hi`` of the simulation box.
        unit : str
            Of lengths; empty if unknown.
        shell : float, optional
            For a cluster in a void: colour by the number of atoms within this distance, since the links are those of a
            crystal, and show the surroundings of the cluster only.
        """
        positions, links = comm.gather(self.positions), comm.gather(self.links)
        if positions is None or links is None:
            return None
        x, values = np.concatenate(positions), np.concatenate(links)
        x = x[order := np.argsort(x[:, 2], kind="stable")]
        lo, hi = np.asarray(box["lo"]), np.asarray(box["hi"])
        if shell is None:
            values, name = values[order], "neighbours in like surroundings"
        else:
            values, name = neighbours(x, shell), f"neighbours within {shell:g} {unit}".rstrip()
            lo, hi = _surroundings(x, lo, hi)
        extent = (float(lo[0]), float(hi[0]), float(lo[1]), float(hi[1]))
        in_unit = f" ({unit})" if unit else ""
        return Field(draw(x, values, lo, hi, shell), name, "", 0.0, MOST_LINKS, extent, (f"x{in_unit}", f"y{in_unit}"))


def neighbours(x: Array, shell: float) -> Array:
    """Return how many others are within a distance of each atom."""
    pairs = KDTree(x).query_pairs(shell, output_type="ndarray")
    return np.bincount(pairs.ravel(), minlength=len(x))


def _surroundings(x: Array, lo: Array, hi: Array) -> tuple[Array, Array]:
    """Return the lower and upper corner of the part to show: a square from above, of one size for most states."""
    middle = (x.min(axis=0) + x.max(axis=0)) / 2
    half = math.ceil(max(0.6 * len(x) ** (1 / 3) + 1.0, np.ptp(x[:, :2], axis=0).max() / 2 + 0.6))
    return np.maximum(lo, middle - half), np.minimum(hi, middle + half)


def draw(x: Array, values: Array, lo: Array, hi: Array, shell: float | None = None) -> Array:
    """Return the values of spheres on the pixels that they cover, NaN elsewhere and on rims. The last sphere is on top.

    The size of a sphere follows from `shell`, the distance of neighbours, or without it from the density.
    """
    per_length = PIXELS / float(max(hi[0] - lo[0], hi[1] - lo[1]))
    shape = [max(1, round(float(hi[axis] - lo[axis]) * per_length)) for axis in (1, 0)]
    pixels = np.full(shape, np.nan, np.float32)
    extent = np.ptp(x, axis=0)
    extent = extent[extent > 0]
    spacing = float(np.prod(extent) / len(x)) ** (1 / max(extent.size, 1)) if extent.size else 1.0
    radius = (0.45 * spacing if shell is None else 0.28 * shell) * per_length
    _paint(pixels, (x[:, :2] - lo[:2]) * per_length, values.astype(np.float32), max(radius, 1.0), RIM)
    return pixels


@njit(cache=True)
def _paint(pixels, centres, values, radius, rim):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    ny, nx = pixels.shape
    whole = radius + rim if radius > 3 * rim else radius  # small spheres have no rim
    reach = int(whole) + 1
    for atom in range(len(values)):
        column, row = int(centres[atom, 0]), ny - 1 - int(centres[atom, 1])
        for i in range(max(row - reach, 0), min(row + reach + 1, ny)):
            for j in range(max(column - reach, 0), min(column + reach + 1, nx)):
                distance = (i - row) ** 2 + (j - column) ** 2
                if distance <= radius**2:
                    pixels[i, j] = values[atom]
                elif distance <= whole**2:
                    pixels[i, j] = np.nan
