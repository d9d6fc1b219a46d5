"""The D2Q9 lattice and its compiled kernel.

Populations are stored as f_i - w_i, so that rounding errors are relative to the disturbance and not to the density 1.
They are in arrays of the shape (9, ny + 2, width), with x contiguous; two such arrays take turns. They hold the state
after collision. One time step

1. writes the populations that the boundaries (inlet, channel walls, cylinder, outlet) send back, to the places outside
   the fluid from which the sweep will pull them. Only one fluid node pulls from such a place, so all boundary
   conditions, including the cylinder's, are passes over short lists;
2. sweeps the rows of fluid nodes: pull, collide, store. The loop has no branch, and LLVM vectorises it.

Collision has two relaxation times (Ginzburg, Verhaeghe, d'Humieres, Commun. Comput. Phys. 3, 427, 2008) with
Lambda = 3/16. With this value a half-way wall lies exactly half-way in Poiseuille flow for any viscosity. The
equilibrium is the incompressible one of He and Luo (J. Stat. Phys. 88, 927, 1997), whose steady states have no
compressibility error.

In lattice units node spacing, time step and density are 1, and the speed of sound is 1/sqrt(3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]
Rows = tuple[Array, Array, Array, Array, Array, Array, Array, Array, Array]
Kernel = TypeVar("Kernel", bound=Callable[..., None])

compiled: Callable[[Kernel], Kernel] = njit(cache=True, error_model="numpy")
compiled_with_fma: Callable[[Kernel], Kernel] = njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})

CX = np.array([0, 1, 0, -1, 0, 1, -1, -1, 1])
CY = np.array([0, 0, 1, 0, -1, 1, 1, -1, -1])
OPPOSITE = np.array([0, 3, 4, 1, 2, 7, 8, 5, 6])
WEIGHT = np.array([4 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 36, 1 / 36, 1 / 36, 1 / 36])
SOUND = 1 / np.sqrt(3.0)
MAGIC = 3 / 16


def relaxation_rates(viscosity: float) -> tuple[float, float]:
    """Return the rates of the even and the odd populations for a kinematic viscosity in lattice units. Local."""
    even = 3 * viscosity
    return 1 / (even + 0.5), 1 / (MAGIC / even + 0.5)


@compiled_with_fma
def _relax_row(sources: Rows, targets: Rows, n: int, even: float, odd: float) -> None:
    """Collide the populations that arrive at `n` nodes of a row. Sources are shifted: node k pulls from index k."""
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = sources
    d0, d1, d2, d3, d4, d5, d6, d7, d8 = targets
    half_even, half_odd = 0.5 * even, 0.5 * odd
    even_straight, even_diagonal = even * (1 / 9), even * (1 / 36)
    odd_straight, odd_diagonal = odd * (1 / 3), odd * (1 / 12)
    for k in range(n):
        f0, f1, f2, f3, f4, f5, f6, f7, f8 = s0[k], s1[k], s2[k], s3[k], s4[k], s5[k], s6[k], s7[k], s8[k]
        p1, p2, p5, p6 = f1 + f3, f2 + f4, f5 + f7, f6 + f8
        m1, m2, m5, m6 = f1 - f3, f2 - f4, f5 - f7, f6 - f8
        jx = m1 + (m5 - m6)
        jy = m2 + (m5 + m6)
        xx, yy = 4.5 * jx * jx, 4.5 * jy * jy
        rest = f0 + (p1 + p2) + (p5 + p6) - (xx + yy) * (1 / 3)
        d0[k] = f0 + even * ((4 / 9) * rest - f0)
        e = half_even * p1 - even_straight * (rest + xx)
        o = half_odd * m1 - odd_straight * jx
        d1[k] = f1 - e - o
        d3[k] = f3 - e + o
        e = half_even * p2 - even_straight * (rest + yy)
        o = half_odd * m2 - odd_straight * jy
        d2[k] = f2 - e - o
        d4[k] = f4 - e + o
        q = jx + jy
        e = half_even * p5 - even_diagonal * (rest + 4.5 * q * q)
        o = half_odd * m5 - odd_diagonal * q
        d5[k] = f5 - e - o
        d7[k] = f7 - e + o
        q = jy - jx
        e = half_even * p6 - even_diagonal * (rest + 4.5 * q * q)
        o = half_odd * m6 - odd_diagonal * q
        d6[k] = f6 - e - o
        d8[k] = f8 - e + o


@compiled
def _sweep(s: Array, d: Array, spans: Array, low: int, high: int, even: float, odd: float) -> None:
    """Stream and collide the fluid nodes in columns [low, high)."""
    for r in range(spans.shape[0]):
        y, a, b = spans[r, 0], max(spans[r, 1], low), min(spans[r, 2], high)
        if a < b:
            sources = (
                s[0, y, a:b], s[1, y, a - 1 : b - 1], s[2, y - 1, a:b], s[3, y, a + 1 : b + 1], s[4, y + 1, a:b],
                s[5, y - 1, a - 1 : b - 1], s[6, y - 1, a + 1 : b + 1], s[7, y + 1, a + 1 : b + 1],
                s[8, y + 1, a - 1 : b - 1],
            )  # fmt: skip
            targets = (
                d[0, y, a:b], d[1, y, a:b], d[2, y, a:b], d[3, y, a:b], d[4, y, a:b],
                d[5, y, a:b], d[6, y, a:b], d[7, y, a:b], d[8, y, a:b],
            )  # fmt: skip
            _relax_row(sources, targets, b - a, even, odd)


@compiled
def _reflect_at_walls(s: Array, low: int, high: int) -> None:
    """Apply half-way bounce-back at both channel walls, for the nodes in columns [low, high)."""
    top = s.shape[1] - 2
    for x in range(low, high):
        s[2, 0, x] = s[4, 1, x]
        s[5, 0, x - 1] = s[7, 1, x]
        s[6, 0, x + 1] = s[8, 1, x]
        s[4, top + 1, x] = s[2, top, x]
        s[7, top + 1, x + 1] = s[5, top, x]
        s[8, top + 1, x - 1] = s[6, top, x]


@compiled
def _let_in(s: Array, x: int, inflow: Array) -> None:
    """Apply half-way bounce-back at the inlet, left of column `x`, with the momentum of the inflow.

    ``inflow[k]`` is the velocity at height k / 2 above the lower wall. Links end at the heights of nodes and half-way
    between them.
    """
    for y in range(1, s.shape[1] - 1):
        s[1, y, x - 1] = s[3, y, x] + (6 / 9) * inflow[2 * y - 1]
        s[5, y - 1, x - 1] = s[7, y, x] + (6 / 36) * inflow[2 * y - 2]
        s[8, y + 1, x - 1] = s[6, y, x] + (6 / 36) * inflow[2 * y]


@compiled
def _let_out(s: Array, d: Array, x: int, speed: float, anchor: float) -> None:
    """Set the populations that return through the outlet, right of column `x`: a wave of the given speed leaves there.

    See Geier et al., Comput. Math. Appl. 70, 507 (2015), Appendix F. `anchor` pulls the density there gently to 1;
    otherwise it would drift.
    """
    for y in range(1, s.shape[1] - 1):
        excess = 0.0
        for i in range(9):
            excess += s[i, y, x]
        for i, w in ((3, 1 / 9), (6, 1 / 36), (7, 1 / 36)):
            d[i, y, x + 1] = (1 - speed) * s[i, y, x + 1] + speed * s[i, y, x] - anchor * w * excess


@compiled
def _reflect_at_cylinder(
    s: Array,
    places: Array,
    numbers: Array,
    speed: float,
    low: int,
    high: int,
    own: tuple[int, int],
    force: Array,
) -> None:
    """Apply central linear interpolated bounce-back to links that start in columns [low, high); see `geometry.Links`.

    Adds the force of the links in columns [own[0], own[1]) on the cylinder to `force`: x, y, and its power on the
    moving wall. It is computed by momentum exchange in the Galilean-invariant form of Wen et al., J. Comput. Phys. 266,
    161 (2014).
    """
    for k in range(places.shape[0]):
        x = places[k, 0]
        if x < low or x >= high:
            continue
        y, i, back, cx, cy = places[k, 1], places[k, 2], places[k, 3], places[k, 4], places[k, 5]
        leaving = s[i, y, x]
        ux, uy = speed * numbers[k, 2], speed * numbers[k, 3]
        beyond = s[i, y - cy, x - cx] - s[back, y, x]
        entering = leaving + numbers[k, 0] * beyond - numbers[k, 1] * (cx * ux + cy * uy)
        s[back, y + cy, x + cx] = entering
        if own[0] <= x < own[1]:
            fx = cx * (leaving + entering) - ux * (leaving - entering)
            fy = cy * (leaving + entering) - uy * (leaving - entering)
            force[0] += fx
            force[1] += fy
            force[2] += ux * fx + uy * fy


@compiled
def advance(
    f: Array,
    current: int,
    spans: Array,
    places: Array,
    numbers: Array,
    inflow: Array,
    own: tuple[int, int],
    neighbours: tuple[bool, bool],
    rates: tuple[float, float],
    outlet: tuple[float, float],
    speeds: Array,
    forces: Array,
) -> None:
    """Advance the local strip by ``len(speeds)`` time steps without communication. Local.

    Parameters
    ----------
    f : ndarray, shape (2, 9, ny + 2, width)
        Populations after collision, minus the weights. ``f[current]`` must be valid in one column beyond the strip for
        each step. On sides with a neighbour the valid region shrinks by one column in each step.
    current : int
        Index of the half that holds the present state. After an odd number of steps it is the other half.
    spans : ndarray of int, shape (n, 3)
        Sequences of fluid nodes: row, first column, end column (excluded).
    places, numbers : ndarray
        Links that cross the cylinder's surface, see :class:`~.geometry.Links`.
    inflow : ndarray, shape (2 ny + 1,)
        Inflow velocity at multiples of half a node spacing.
    own : tuple of int
        First column of the strip, and its end column (excluded).
    neighbours : tuple of bool
        Whether there is a strip on the left and on the right. Otherwise the inlet or the outlet is there.
    rates : tuple of float
        Relaxation rates of the even and the odd populations.
    outlet : tuple of float
        Speed of waves that leave, and the strength with which the density is pulled to 1.
    speeds : ndarray, shape (n,)
        Speed of the actuator in each step, by which the wall velocities of the links are multiplied.
    forces : ndarray, shape (n, 3)
        On return, the force of the strip's links on the cylinder in each step: in x, in y, and its power.
    """
    n = speeds.shape[0]
    for t in range(n):
        s, d = f[(current + t) % 2], f[(current + t + 1) % 2]
        low = own[0] - (n - 1 - t) * neighbours[0]
        high = own[1] + (n - 1 - t) * neighbours[1]
        if not neighbours[0]:
            _let_in(s, low, inflow)
        if not neighbours[1]:
            _let_out(s, d, high - 1, outlet[0], outlet[1])
        _reflect_at_walls(s, low, high)
        forces[t] = 0.0
        _reflect_at_cylinder(s, places, numbers, speeds[t], low, high, own, forces[t])
        _sweep(s, d, spans, low, high, rates[0], rates[1])
