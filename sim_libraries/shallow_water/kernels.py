"""Compiled kernels of the finite-volume scheme on one rank's rectangle of cells.

With the depth h, the bed z, the surface eta = h + z and the velocity (u, v), the shallow-water equations are

    h_t    + (hu)_x + (hv)_y                = 0
    (hu)_t + (hu^2 + g h^2/2)_x + (huv)_y   = -g h z_x - C_d |U| u + h a
    (hv)_t + (huv)_x + (hv^2 + g h^2/2)_y   = -g h z_y - C_d |U| v

*Reconstruction* (MUSCL): h, eta, u and v are linear in each cell, with monotonised central slopes; z = eta - h.
*Faces* (hydrostatic reconstruction, Audusse et al. 2004): the bed z* of a face is the higher of its two sides. The
water above it, h* = max(0, eta - z*), enters the HLLC flux. The pressure g h*^2/2 on a cell's own side is subtracted
from its flux. The rest of the bed term inside a cell is -g (h_E + h_W)/2 (eta_E - eta_W). All these terms vanish where
the water is at rest, over any bed, wet or dry.
*Time*: Heun's strong-stability-preserving method, with implicit drag. Depths stay positive if
dt max((|u| + c)/dx + (|v| + c)/dy) <= 1/2. Depths that rounding makes negative are set to zero.

Loops run over strips of :data:`STRIP` columns in scratch arrays whose rows have a fixed stride. The compiler vectorises
them because it knows the distances between everything they read and write.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

GHOSTS = 2
"""Layers of cells around a rank's rectangle that belong to its neighbours."""

GRAVITY = 9.81
DRY = 1e-6
"""Depth below which water does not move, in m."""

STRIP = 128
_WIDTH = STRIP + 8
_ROWS = 28
# Indices are unsigned. With signed indices numba tests each access for a negative index, which prevents vectorisation.
_index = np.uint64
_1, _2, _4 = _index(1), _index(2), _index(4)
# Rows of scratch: depth, surface, velocity across and along the face, on the lower and the upper side of the face.
_H0, _E0, _N0, _T0, _H1, _E1, _N1, _T1 = (_index(row * _WIDTH) for row in range(8))
# The fluxes of mass, of momentum across the face (for its lower and its upper side), and of momentum along the face.
_FH, _F0, _F1, _FT = (_index(row * _WIDTH) for row in range(8, 12))
# The bed term inside the cells. For the direction y also the upper faces of the last row, and the fluxes below it.
_BED = _index(12 * _WIDTH)
_UP_H, _UP_E, _UP_N, _UP_T = (_index(row * _WIDTH) for row in range(13, 17))
_BELOW_H, _BELOW_0, _BELOW_1, _BELOW_T = (_index(row * _WIDTH) for row in range(17, 21))
_FOUR_ROWS = _index(4 * _WIDTH)
# The surface of the row below, of this row and of the row above, starting two cells before the strip.
_ETA_BELOW, _ETA_HERE, _ETA_ABOVE = (_index(row * _WIDTH) for row in range(21, 24))
# For the direction x: the cells, their values at the start of the step, and the acceleration.
_HERE_H, _HERE_U, _HERE_V, _START_H, _START_U, _START_V, _PUSH = (_index(row * _WIDTH) for row in range(13, 20))
# The results.
_OUT_H, _OUT_U, _OUT_V, _FASTEST, _SPOILT = (_index(row * _WIDTH) for row in range(5))

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Let numba compile a function when it is first called."""
    return cast("F", numba.njit(cache=True, error_model="numpy")(function))


@compiled
def _half_slope(before: float, here: float, after: float) -> float:
    down, up = here - before, after - here
    limit = min(abs(down), abs(up))
    half = max(-limit, min(limit, 0.25 * (down + up)))
    return half if down * up > 0.0 else 0.0


@compiled
def _along_y(field: Any, j: Any, first: Any, n: Any, scratch: Any, low: Any, high: Any) -> None:
    """Write the values of a field on the lower and upper faces of `n` cells of row `j` to scratch rows."""
    for i in range(n):
        k = first + i
        here = field[j, k]
        half = _half_slope(field[j - _1, k], here, field[j + _1, k])
        scratch[low + i] = here - half
        scratch[high + i] = here + half


@compiled
def _along_x(field: Any, j: Any, first: Any, n: Any, scratch: Any, low: Any, high: Any) -> None:
    """Write the values of a field on the left and right faces of `n` cells of row `j` to scratch rows."""
    for i in range(n):
        k = first + i
        here = field[j, k]
        half = _half_slope(field[j, k - _1], here, field[j, k + _1])
        scratch[low + i] = here - half
        scratch[high + i] = here + half


@compiled
def _surface(h: Any, bed: Any, j: Any, first: Any, n: Any, y: Any) -> None:
    """Move the surface rows in scratch down by one, and write the surface of `n` cells of row `j` to the upper one."""
    for i in range(n):
        y[_ETA_BELOW + i] = y[_ETA_HERE + i]
        y[_ETA_HERE + i] = y[_ETA_ABOVE + i]
        y[_ETA_ABOVE + i] = h[j, first + i] + bed[j, first + i]


@compiled
def _surface_along_y(n: Any, y: Any) -> None:
    for i in range(n):
        k = i + _2
        here = y[_ETA_HERE + k]
        half = _half_slope(y[_ETA_BELOW + k], here, y[_ETA_ABOVE + k])
        y[_E1 + i] = here - half
        y[_UP_E + i] = here + half


@compiled
def _surface_along_x(n: Any, y: Any, x: Any) -> None:
    """Write the surface of the row below on the left and right faces of its cells, as :func:`_along_x` does."""
    for i in range(n):
        here = y[_ETA_BELOW + _1 + i]
        half = _half_slope(y[_ETA_BELOW + i], here, y[_ETA_BELOW + _2 + i])
        x[_E1 - _1 + i] = here - half
        x[_E0 + i] = here + half


@compiled
def _inside(n: Any, s: Any, low_h: Any, low_e: Any, high_h: Any, high_e: Any) -> None:
    """Compute the rest of the bed term inside `n` cells, times their width."""
    for i in range(n):
        s[_BED + i] = -0.5 * GRAVITY * (s[high_h + i] + s[low_h + i]) * (s[high_e + i] - s[low_e + i])


@compiled
def _fluxes(n: Any, s: Any) -> None:
    """Compute the fluxes through `n` faces from the values on their two sides."""
    for i in range(n):
        e0, e1, u0, u1 = s[_E0 + i], s[_E1 + i], s[_N0 + i], s[_N1 + i]
        t0, t1 = s[_T0 + i], s[_T1 + i]
        bed = max(e0 - s[_H0 + i], e1 - s[_H1 + i])
        h0, h1 = max(0.0, e0 - bed), max(0.0, e1 - bed)
        c0, c1 = math.sqrt(GRAVITY * h0), math.sqrt(GRAVITY * h1)
        slowest = min(u0 - c0, u1 - c1) if h0 > DRY else u1 - 2.0 * c1
        slowest = slowest if h1 > DRY else u0 - c0
        fastest = max(u0 + c0, u1 + c1) if h1 > DRY else u0 + 2.0 * c0
        fastest = fastest if h0 > DRY else u1 + c1
        slowest, fastest = min(slowest, 0.0), max(fastest, 0.0)
        per_range = 1.0 / max(fastest - slowest, 1e-12)
        product = slowest * fastest
        q0, q1 = h0 * u0, h1 * u1
        mass = (fastest * q0 - slowest * q1 + product * (h1 - h0)) * per_range
        momentum = (fastest * q0 * u0 - slowest * q1 * u1 + product * (q1 - q0)) * per_range
        pressure = 0.5 * GRAVITY * (h1 - h0) * (h1 + h0) * per_range
        s[_FH + i] = mass
        s[_F0 + i] = momentum - slowest * pressure
        s[_F1 + i] = momentum - fastest * pressure
        s[_FT + i] = mass * (t0 if mass > 0.0 else t1)


@compiled
def _load(field: Any, j: Any, first: Any, n: Any, scratch: Any, row: Any) -> None:
    for i in range(n):
        scratch[row + i] = field[j, first + i]


@compiled
def _update(n: Any, x: Any, y: Any, out: Any, dx: float, dy: float, dt: float, drag: float, old: float) -> None:
    """Compute `n` cells of a row from the fluxes around them, and the speed of waves in them."""
    new, by_x, by_y = 1.0 - old, dt / dx, dt / dy
    per_dx, per_dy = 1.0 / dx, 1.0 / dy
    for i in range(n):
        h, u, v = x[_HERE_H + i], x[_HERE_U + i], x[_HERE_V + i]
        depth = h - by_x * (x[_FH + _1 + i] - x[_FH + i]) - by_y * (y[_FH + i] - y[_BELOW_H + i])
        depth = 0.0 if depth < 0.0 else depth
        push_x = by_x * (x[_F1 + i] - x[_F0 + _1 + i] + x[_BED + i]) + by_y * (y[_BELOW_T + i] - y[_FT + i])
        push_y = by_x * (x[_FT + i] - x[_FT + _1 + i]) + by_y * (y[_BELOW_1 + i] - y[_F0 + i] + y[_BED + i])
        damping = new * depth / (depth + dt * drag * math.sqrt(u * u + v * v) + 1e-300)
        before = old * x[_START_H + i]
        mixed = before + new * depth
        per_depth = 1.0 / max(mixed, DRY)
        per_depth = per_depth if mixed > DRY else 0.0
        u = (before * x[_START_U + i] + damping * (h * (u + dt * x[_PUSH + i]) + push_x)) * per_depth
        v = (before * x[_START_V + i] + damping * (h * v + push_y)) * per_depth
        c = math.sqrt(GRAVITY * mixed)
        rate = (abs(u) + c) * per_dx + (abs(v) + c) * per_dy
        out[_OUT_H + i] = mixed
        out[_OUT_U + i] = u
        out[_OUT_V + i] = v
        known = out[_FASTEST + i]
        out[_FASTEST + i] = rate if rate > known else known
        out[_SPOILT + i] += 0.0 * rate


@compiled
def _store(field: Any, j: Any, first: Any, n: Any, scratch: Any, row: Any) -> None:
    for i in range(n):
        field[j, first + i] = scratch[row + i]


@compiled
def _move(scratch: Any, source: Any, target: Any) -> None:
    for i in range(_FOUR_ROWS):
        scratch[target + i] = scratch[source + i]


@compiled
def stage(
    state: Any, bed: Any, start: Any, out: Any, force: Any,
    dx: float, dy: float, dt: float, drag: float, old: float, scratch: Any,
) -> float:  # fmt: skip
    """Do one stage of a time step: ``out = old start + (1 - old) (state + dt L(state))``. Local.

    Parameters
    ----------
    state, start, out : ndarray, shape (3, ny + 4, nx + 4)
        h, u and v with ghosts, in m and m/s. Only the ghosts of `state` are read. `out` may be `start`.
    bed : ndarray, shape (ny + 4, nx + 4)
        Height of the bed in m.
    force : ndarray, shape (ny + 4, nx + 4)
        Acceleration a along x in m/s^2.
    dx, dy, dt, drag : float
        Size of a cell in m, time step in s, and drag coefficient C_d.
    old : float
        Weight of `start`: 0 in the first stage, 1/2 in the second.
    scratch : ndarray
        Scratch memory from :func:`make_scratch`.

    Returns
    -------
    fastest : float
        Largest (|u| + c)/dx + (|v| + c)/dy of the cells of `out`, in 1/s; NaN if a cell is not finite.
    """
    h, u, v = state[0], state[1], state[2]
    h_start, u_start, v_start = start[0], start[1], start[2]
    h_out, u_out, v_out = out[0], out[1], out[2]
    x, y, result = scratch[0], scratch[1], scratch[2]
    ny, nx = bed.shape[0] - 2 * GHOSTS, bed.shape[1] - 2 * GHOSTS
    fastest = 0.0
    for begin in range(GHOSTS, nx + GHOSTS, STRIP):
        first, n = _index(begin), _index(min(STRIP, nx + GHOSTS - begin))
        result[:] = 0.0
        for row in range(GHOSTS):
            _surface(h, bed, _index(row), first - _2, n + _4, y)
        for row in range(1, ny + GHOSTS + 1):
            j = _index(row)
            _surface(h, bed, j + _1, first - _2, n + _4, y)
            # The upper and lower faces of row j, and the fluxes between this row and the one before.
            _along_y(h, j, first, n, y, _H1, _UP_H)
            _surface_along_y(n, y)
            _along_y(v, j, first, n, y, _N1, _UP_N)
            _along_y(u, j, first, n, y, _T1, _UP_T)
            if row > 1:
                _fluxes(n, y)
            if row > GHOSTS:
                # The fluxes in y of the row before are complete. In x its faces begin with the right face of the cell
                # before the strip.
                m = j - _1
                _along_x(h, m, first - _1, n + _2, x, _H1 - _1, _H0)
                _surface_along_x(n + _2, y, x)
                _along_x(u, m, first - _1, n + _2, x, _N1 - _1, _N0)
                _along_x(v, m, first - _1, n + _2, x, _T1 - _1, _T0)
                _fluxes(n + _1, x)
                _inside(n, x, _H1, _E1, _H0 + _1, _E0 + _1)
                _load(h, m, first, n, x, _HERE_H)
                _load(u, m, first, n, x, _HERE_U)
                _load(v, m, first, n, x, _HERE_V)
                _load(h_start, m, first, n, x, _START_H)
                _load(u_start, m, first, n, x, _START_U)
                _load(v_start, m, first, n, x, _START_V)
                _load(force, m, first, n, x, _PUSH)
                _update(n, x, y, result, dx, dy, dt, drag, old)
                _store(h_out, m, first, n, result, _OUT_H)
                _store(u_out, m, first, n, result, _OUT_U)
                _store(v_out, m, first, n, result, _OUT_V)
            _inside(n, y, _H1, _E1, _UP_H, _UP_E)
            _move(y, _UP_H, _H0)
            _move(y, _FH, _BELOW_H)
        for i in range(n):
            rate = result[_FASTEST + i] + result[_SPOILT + i]
            if math.isnan(rate):
                return math.nan
            fastest = max(fastest, rate)
    return fastest


def make_scratch() -> Doubles:
    """Return scratch memory for :func:`stage`."""
    return np.zeros((3, _ROWS * _WIDTH))
