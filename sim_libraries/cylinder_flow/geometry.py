"""The channel of Schaefer and Turek (1996) on a lattice, and the links between fluid and cylinder.

Lengths are in node spacings. Nodes have half-integer coordinates. Inlet and channel walls lie half-way between nodes,
exactly at x = 0, y = 0 and y = 4.1 D. The centre of the cylinder is at (2 D, 2 D), 2.1 D below the upper wall.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alchemist_ray.sim_libraries.cylinder_flow.lattice import CX, CY, OPPOSITE, WEIGHT, Array

HEIGHT = 4.1
CENTRE = 2.0
JET_WIDTH = np.deg2rad(10.0)
START_GAP = 0.6
LINK_WORK = 15


@dataclass(frozen=True)
class Links:
    """The lattice links from fluid nodes into the cylinder.

    A population leaves node x along c_i and meets the surface at the fraction q of the link. It returns as (Ginzburg,
    Verhaeghe, d'Humieres 2008, "CLI") ::

        f_back(x, t+1) = f_i(x) + (1 - 2q) / (1 + 2q) (f_i(x - c_i) - f_back(x)) - 12 / (1 + 2q) w_i c_i . u_wall

    Attributes
    ----------
    places : ndarray of int, shape (n, 6)
        x, y, i, back, c_x, c_y. x and y are the indices of the node, counted from 0.
    numbers : ndarray, shape (n, 4)
        (1 - 2q) / (1 + 2q), 12 w_i / (1 + 2q), and the wall velocity (x, y) where the link meets the surface, for an
        actuator speed of 1.
    """

    places: Array
    numbers: Array


@dataclass(frozen=True)
class ChannelGeometry:
    """The channel at a given resolution.

    Attributes
    ----------
    resolution : int
        Nodes per diameter of the cylinder, a multiple of 10.
    length : float
        Length of the channel, in diameters.
    cylinder : bool
        Whether the channel has a cylinder. Without it the flow is Poiseuille flow.
    """

    resolution: int
    length: float = 22.0
    cylinder: bool = True

    @property
    def nx(self) -> int:
        """Number of columns."""
        return round(self.length * self.resolution)

    @property
    def ny(self) -> int:
        """Number of rows."""
        return round(HEIGHT * self.resolution)

    @property
    def centre(self) -> float:
        """Both coordinates of the centre of the cylinder."""
        return CENTRE * self.resolution

    @property
    def radius(self) -> float:
        """Radius of the cylinder."""
        return 0.5 * self.resolution

    @cached_property
    def solid(self) -> Array:
        """Whether each node lies in the cylinder: bool, shape (ny, nx)."""
        y, x = np.ogrid[: self.ny, : self.nx]
        if not self.cylinder:
            return np.zeros((self.ny, self.nx), bool)
        return np.asarray(np.hypot(x + 0.5 - self.centre, y + 0.5 - self.centre) <= self.radius)

    def inflow(self, u_max: float) -> Array:
        """Return the parabolic inflow velocity at heights 0, 1/2, ..., ny."""
        y = np.arange(2 * self.ny + 1) / 2
        return 4 * u_max * y * (self.ny - y) / self.ny**2

    def start(self, columns: Array) -> Array:
        """Return initial velocities in units of the mean velocity, shape (2, ny, columns).

        They are the inflow, whose stream function is made constant at the cylinder. The field has no divergence, so the
        start makes little sound.
        """
        x, y = columns + 0.5 - self.centre, np.arange(-1, self.ny + 1)[:, None] + 0.5
        height = np.clip(y / self.ny, 0, 1)
        flux = self.ny * height**2 * (3 - 2 * height)
        middle = CENTRE / HEIGHT
        x = np.concatenate([x[:1] - 1, x, x[-1:] + 1])
        gap = np.maximum(np.hypot(x, y - self.centre) - self.radius, 0) / (START_GAP * self.resolution)
        stream = flux + (self.ny * middle**2 * (3 - 2 * middle) - flux) * np.exp(-(gap**2)) * self.cylinder
        return 0.5 * np.stack([stream[2:, 1:-1] - stream[:-2, 1:-1], stream[1:-1, :-2] - stream[1:-1, 2:]])

    def spans(self, first: int, last: int) -> Array:
        """Return the sequences of fluid nodes in columns [first, last), as rows (y, begin, end) with `end` excluded."""
        fluid = ~self.solid[:, first:last]
        edges = np.diff(np.pad(fluid, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        rows, begin = np.nonzero(edges == 1)
        _, end = np.nonzero(edges == -1)
        return np.stack([rows, begin + first, end + first], axis=1)

    def strips(self, size: int, least: int) -> Array:
        """Return the first column of each strip and the end of the last strip, shape (size + 1,).

        Strips have equal work; a link to the cylinder takes about as long as `LINK_WORK` nodes. If a strip would be
        narrower than `least`, all strips have equal width instead.
        """
        links = np.bincount(self._cut_links()[0][:, 0], minlength=self.nx)
        work = np.cumsum((~self.solid).sum(axis=0) + LINK_WORK * links)
        inner = np.searchsorted(work, work[-1] * np.arange(1, size) / size)
        edges = np.array([0, *inner, self.nx])
        return edges if np.diff(edges).min() >= least else self.nx * np.arange(size + 1) // size

    def links(self, actuation: str) -> Links:
        """Return all links for ``"rotation"`` or ``"jets"``, ordered by column, row and direction."""
        places, meets, share = self._cut_links()
        slope = (1 - 2 * share) / (1 + 2 * share)
        pull = 12 / (1 + 2 * share) * WEIGHT[places[:, 2]]
        wall = _rotation(meets / self.radius) if actuation == "rotation" else _jets(meets / self.radius)
        return Links(places, np.column_stack([slope, pull, wall]))

    def _cut_links(self) -> tuple[Array, Array, Array]:
        """Return the places of the links, their points on the surface, and the fractions q of the links there."""
        found = []
        for i in range(1, 9):
            shifted = np.roll(self.solid, (-CY[i], -CX[i]), axis=(0, 1))
            y, x = np.nonzero(shifted & ~self.solid)
            found.append(np.column_stack([x, y, *(np.full(x.size, v) for v in (i, OPPOSITE[i], CX[i], CY[i]))]))
        places = np.concatenate(found)
        places = places[np.lexsort(places.T[[2, 1, 0]])]
        start = places[:, :2] + 0.5 - self.centre
        along = places[:, 4:].astype(float)
        a = np.sum(along**2, axis=1)
        b = np.sum(start * along, axis=1)
        c = np.sum(start**2, axis=1) - self.radius**2
        share = (-b - np.sqrt(b**2 - a * c)) / a
        return places, start + share[:, None] * along, share


def _rotation(meets: Array) -> Array:
    """Return the wall velocity of a cylinder that rotates counter-clockwise with the surface speed 1."""
    return np.column_stack([-meets[:, 1], meets[:, 0]])


def _jets(meets: Array) -> Array:
    """Return the wall velocity of a jet at the top that blows and a jet at the bottom that sucks in as much.

    The profiles are cosines over 10 degrees, along the normal (Rabault et al. 2019, section 2.1).
    """
    angle = np.arctan2(meets[:, 1], meets[:, 0])
    speed = np.zeros(len(meets))
    for place, sign in ((np.pi / 2, 1.0), (-np.pi / 2, -1.0)):
        offset = np.abs(angle - place)
        speed += sign * np.where(offset < JET_WIDTH / 2, np.cos(np.pi / JET_WIDTH * offset), 0.0)
    return speed[:, None] * meets
