"""Solutions of the shallow-water equations in closed form, to validate the solver. Everything is local.

Sources: J. J. Stoker, Water Waves (1957), section 10.8; A. Ritter, Z. VDI 36 (1892); W. C. Thacker, J. Fluid Mech. 107
(1981); collected as sections 4.1.1, 4.1.2 and 4.2.2 of SWASHES (Delestre et al., Int. J. Numer. Meth. Fluids 72, 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize

from alchemist_ray.sim_libraries.shallow_water.kernels import GRAVITY

Doubles = npt.NDArray[np.float64]


def dam_break(x: Doubles, t: float, left: float, right: float = 0.0) -> tuple[Doubles, Doubles]:
    """Return depth (m) and velocity (m/s) at `t` > 0 after a dam at x = 0 has broken, on a flat bed without drag.

    Parameters
    ----------
    x : ndarray
        Places in m.
    t : float
        Time in s.
    left, right : float
        Initial depths in m, left > right >= 0. The solution is Ritter's if `right` is 0, otherwise Stoker's.
    """
    c_left = math.sqrt(GRAVITY * left)
    middle = _middle_depth(left, right) if right > 0 else 0.0
    u_middle = 2 * (c_left - math.sqrt(GRAVITY * middle))
    speed = x / t
    in_fan = (2 * c_left - speed) / 3
    tail = u_middle - math.sqrt(GRAVITY * middle)
    front = middle * u_middle / (middle - right) if right > 0 else 2 * c_left
    before, fan, between = speed < -c_left, speed < tail, speed < front
    h = np.select([before, fan, between], [left, in_fan**2 / GRAVITY, middle], right)
    u = np.select([before, fan, between], [0.0, 2 / 3 * (c_left + speed), u_middle], 0.0)
    return h, u


def _middle_depth(left: float, right: float) -> float:
    """Return the depth between the rarefaction and the bore."""

    def misfit(h: float) -> float:
        rarefaction = 2 * (math.sqrt(GRAVITY * left) - math.sqrt(GRAVITY * h))
        return rarefaction - (h - right) * math.sqrt(GRAVITY / 2 * (h + right) / (h * right))

    return float(scipy.optimize.brentq(misfit, right, left, xtol=1e-14))


@dataclass(frozen=True)
class Bowl:
    """Thacker's planar surface that circles in a paraboloid, with a moving shoreline.

    Attributes
    ----------
    radius, depth : float
        Radius of the shoreline of still water, and its depth in the middle, in m.
    swing : float
        Distance of the middle of the water from the middle of the bowl, in m.
    centre : float
        Both coordinates of the middle of the bowl, in m.
    """

    radius: float = 1.0
    depth: float = 0.1
    swing: float = 0.5
    centre: float = 2.0

    @property
    def omega(self) -> float:
        """Angular frequency in rad/s."""
        return math.sqrt(2 * GRAVITY * self.depth) / self.radius

    def bed(self, x: Doubles, y: Doubles) -> Doubles:
        """Return the height of the bed in m."""
        r2 = (x - self.centre) ** 2 + (y - self.centre) ** 2
        return -self.depth * (1 - r2 / self.radius**2)

    def flow(self, x: Doubles, y: Doubles, t: float) -> tuple[Doubles, Doubles, Doubles]:
        """Return depth (m) and velocity (m/s) at the time `t` (s)."""
        cos, sin = math.cos(self.omega * t), math.sin(self.omega * t)
        tilt = 2 * (x - self.centre) * cos + 2 * (y - self.centre) * sin - self.swing
        h = np.maximum(self.swing * self.depth / self.radius**2 * tilt - self.bed(x, y), 0.0)
        wet = h > 0
        return h, np.where(wet, -self.swing * self.omega * sin, 0.0), np.where(wet, self.swing * self.omega * cos, 0.0)
