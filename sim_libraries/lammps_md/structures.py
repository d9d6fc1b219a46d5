"""Lennard-Jones clusters of least energy whose structures have simple formulas, for validation.

Energies are from the Cambridge Cluster Database (Wales & Doye, J. Phys. Chem. A 101, 1997, 5111).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEAST_ENERGIES = {13: -44.326801, 38: -173.928427}
"""Number of atoms -> least energy in epsilon."""

_SCRIPT = """
units lj
boundary f f f
region box block -6 6 -6 6 -6 6
create_box 1 box
{atoms}
mass 1 1.0
pair_style lj/cut 12.0
pair_coeff 1 1 1.0 1.0
neighbor 2.0 nsq
timestep 0.01
"""


def icosahedron() -> Array:
    """Return positions of 13 atoms close to the minimum: the vertices and the centre of an icosahedron."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0.0, a, b * golden) for a, b in itertools.product((-1, 1), repeat=2)]
    return 0.57 * np.array([(0.0, 0.0, 0.0), *(np.roll(corner, k) for corner in corners for k in range(3))])


def truncated_octahedron() -> Array:
    """Return positions of 38 atoms close to the minimum: a cubic close packing around one of its octahedral holes."""
    grid = [p for p in itertools.product(range(-2, 3), repeat=3) if sum(p) % 2 and np.dot(p, p) <= 5]
    return 1.1 / math.sqrt(2) * np.array(grid, float)


def script_of(points: Array) -> str:
    """Return the script of a cluster with atoms at these points and a potential without cutoff."""
    return _SCRIPT.format(atoms="\n".join("create_atoms 1 single {} {} {} units box".format(*p) for p in points))
