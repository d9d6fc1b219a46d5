"""Time integration of the Kuramoto-Sivashinsky equation on a periodic interval, by exponential Runge-Kutta of order 4.

In Fourier space ``u_t = -u u_x - u_xx - u_xxxx + f`` is ``v' = L v + N(v)``. ``L = k^2 - k^4`` is diagonal and so stiff
that explicit steps are not possible. ``N(v) = -i k/2 FT(u^2) + FT(f)`` is not stiff. ETDRK4 (Cox & Matthews, J. Comput.
Phys. 176, 2002, eqs. 26-29) integrates L exactly. Its coefficients are functions of L dt in which terms cancel near 0,
so they are computed as means over a circle around each L dt (Kassam & Trefethen, SIAM J. Sci. Comput. 26, 2005, section
2).

M samples represent the modes below M/3, so that products of two fields have no aliasing errors in these modes (Orszag's
2/3 rule). The resulting ordinary differential equations conserve the mean of u and balance its energy, as the equation
does: ``d/dt <u^2>/2 = <u_x^2> + <u f> - <u_xx^2>``.

All steps of an interval of time are one call of compiled code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from alchemist_ray.sim_libraries.kuramoto_sivashinsky.transform import (
    TransformPlan,
    analyse,
    compiled,
    plan_for,
    synthesise,
)

Array = npt.NDArray[Any]

CONTOUR_POINTS = 64


class Tables(NamedTuple):
    """The constants of a time step, for a batch of intervals side by side.

    Attributes
    ----------
    plan : TransformPlan
        Plan of the transforms.
    k : ndarray, shape (modes * batch,)
        Wave numbers of the modes.
    whole, half : ndarray, shape as k
        exp(L dt) and exp(L dt/2).
    stage, first, middle, last : ndarray, shape as k
        Factors of N in the inner stages; factors in the result of N in the first, both middle and the last stage.
    """

    plan: TransformPlan
    k: Array
    whole: Array
    half: Array
    stage: Array
    first: Array
    middle: Array
    last: Array


def coefficients(L: Array, dt: float) -> tuple[Array, Array, Array, Array]:
    """Return the factors of N in ETDRK4 for the eigenvalues `L`: stage, first, middle and last, see :class:`Tables`.

    They are analytic functions of L dt, so each is equal to its mean over a circle of radius 1 around L dt.
    """
    circle = np.exp(2j * np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS)
    z = dt * L[:, None] + circle
    e = np.exp(z)
    of_z = (
        np.expm1(z / 2) / z,
        (-4 - z + e * (4 - 3 * z + z**2)) / z**3,
        2 * (2 + z + e * (z - 2)) / z**3,
        (-4 - 3 * z - z**2 + e * (4 - z)) / z**3,
    )
    stage, first, middle, last = (dt * np.mean(each, axis=1).real for each in of_z)
    return stage, first, middle, last


def tables(points: int, length: float, dt: float, batch: int) -> Tables:
    """Return the tables for `batch` periodic intervals of the given length with `points` samples each.

    Raises
    ------
    ValueError
        If `points` is odd or not of the form 2^a 3^b.
    """
    plan = plan_for(points, batch)
    k = 2 * np.pi / length * np.arange((points + 2) // 3)
    L = k**2 - k**4
    of_modes = (k, np.exp(L * dt), np.exp(L * dt / 2), *coefficients(L, dt))
    return Tables(plan, *(np.repeat(each, batch) for each in of_modes))


def interval_weights(steps: int) -> Array:
    """Return weights that give the mean over an interval from values at the ends of its `steps` equal steps.

    This is the trapezoidal rule with Gregory's end corrections, which is exact for cubics with two steps or more.
    """
    weights = np.ones(steps + 1)
    if steps == 0:
        return weights
    weights[[0, -1]] = 0.5
    if steps >= 2:
        correction = np.array([-1 / 8, 1 / 6, -1 / 24])
        weights[:3] += correction
        weights[-3:] += correction[::-1]
    return weights / steps


@compiled
def _transform(samples: Array, X: Array, room: Array, t: Tables) -> None:
    """Set X to the coefficients of `samples`, in the modes below M/3."""
    B, K = t.plan.batch, t.k.size
    even, odd = room[0], room[1]
    for j in range(t.plan.cos.size):
        for q in range(B):
            even[j * B + q] = samples[2 * j * B + q]
            odd[j * B + q] = samples[(2 * j + 1) * B + q]
    analyse(even, odd, room[2], room[3], X, K // B, t.plan)
    scale = 0.25 / t.plan.cos.size
    for k in range(K):
        X[0, k] *= scale
        X[1, k] *= scale


@compiled
def _nonlinear(v: Array, F: Array, N: Array, room: Array, t: Tables) -> None:
    """Set N = -i k/2 FT(u^2) + F, where u has the coefficients v."""
    even, odd, one, other = synthesise(v, room, t.plan)
    for j in range(even.size):
        even[j] *= even[j]
        odd[j] *= odd[j]
    K = t.k.size
    analyse(even, odd, one, other, N, K // t.plan.batch, t.plan)
    scale = -0.125 / t.plan.cos.size
    for k in range(K):
        slope = scale * t.k[k]
        real, imaginary = N[0, k], N[1, k]
        N[0, k] = F[0, k] - slope * imaginary
        N[1, k] = F[1, k] + slope * real


@compiled
def _step(
    v: Array, a: Array, s: Array, N1: Array, Na: Array, Nb: Array, Nc: Array, F: Array, room: Array, t: Tables
) -> None:
    """Advance the coefficients v by one time step. a and s are scratch arrays of the same shape."""
    K = t.k.size
    _nonlinear(v, F, N1, room, t)
    for part in range(2):
        for k in range(K):
            a[part, k] = t.half[k] * v[part, k] + t.stage[k] * N1[part, k]
    _nonlinear(a, F, Na, room, t)
    for part in range(2):
        for k in range(K):
            s[part, k] = t.half[k] * v[part, k] + t.stage[k] * Na[part, k]
    _nonlinear(s, F, Nb, room, t)
    for part in range(2):
        for k in range(K):
            s[part, k] = t.half[k] * a[part, k] + t.stage[k] * (2 * Nb[part, k] - N1[part, k])
    _nonlinear(s, F, Nc, room, t)
    for part in range(2):
        for k in range(K):
            inner = t.middle[k] * (Na[part, k] + Nb[part, k])
            v[part, k] = t.whole[k] * v[part, k] + t.first[k] * N1[part, k] + inner + t.last[k] * Nc[part, k]


@compiled
def _observe(v: Array, s: Array, totals: Array, weight: float, room: Array, t: Tables) -> None:
    """Add `weight` times u_xx^2, u_x^2 and u of each sample to the rows of `totals`: even samples, then odd ones."""
    half = t.plan.cos.size * t.plan.batch
    for k in range(t.k.size):
        s[0, k], s[1, k] = -(t.k[k] ** 2) * v[0, k], -(t.k[k] ** 2) * v[1, k]
    even, odd, _, _ = synthesise(s, room, t.plan)
    for j in range(half):
        totals[0, j] += weight * even[j] * even[j]
        totals[0, half + j] += weight * odd[j] * odd[j]
    for k in range(t.k.size):
        s[0, k], s[1, k] = -t.k[k] * v[1, k], t.k[k] * v[0, k]
    even, odd, _, _ = synthesise(s, room, t.plan)
    for j in range(half):
        totals[1, j] += weight * even[j] * even[j]
        totals[1, half + j] += weight * odd[j] * odd[j]
    even, odd, _, _ = synthesise(v, room, t.plan)
    for j in range(half):
        totals[2, j] += weight * even[j]
        totals[2, half + j] += weight * odd[j]


@compiled
def advance(u: Array, f: Array, weights: Array, core: Array, sums: Array, t: Tables) -> None:
    """Advance a batch of intervals by ``weights.size - 1`` steps under a constant forcing. Local.

    Parameters
    ----------
    u, f : ndarray, shape (M * batch,)
        Samples of the solution and of the forcing. Those of the solution are overwritten with the final ones.
    weights : ndarray, shape (steps + 1,)
        Weight of each point in time in the sums. Points with the weight 0 cost nothing.
    core : ndarray, shape (M * batch,)
        Weight of each sample in the sums.
    sums : ndarray, shape (4, batch)
        On return, the sums of u_xx^2, u_x^2 and u f over space (weighted by `core`) and time (weighted by `weights`),
        and the sum of u^2 at the end.
    t : Tables
        The constants of a time step.
    """
    B, n, K = t.plan.batch, t.plan.cos.size, t.k.size
    room, totals, F = np.empty((4, n * B)), np.zeros((3, 2 * n * B)), np.empty((2, K))
    v, a, s = np.zeros((2, (n + 1) * B)), np.zeros((2, (n + 1) * B)), np.zeros((2, (n + 1) * B))
    N1, Na, Nb, Nc = np.empty((2, K)), np.empty((2, K)), np.empty((2, K)), np.empty((2, K))
    _transform(u, v, room, t)
    _transform(f, F, room, t)
    for step in range(weights.size):
        if step > 0:
            _step(v, a, s, N1, Na, Nb, Nc, F, room, t)
        if weights[step] != 0.0:
            _observe(v, s, totals, weights[step], room, t)
    even, odd, _, _ = synthesise(v, room, t.plan)
    sums[:] = 0.0
    for j in range(n):
        for q in range(B):
            here, there = j * B + q, (n + j) * B + q
            left, right = 2 * j * B + q, (2 * j + 1) * B + q
            u[left], u[right] = even[here], odd[here]
            sums[0, q] += core[left] * totals[0, here] + core[right] * totals[0, there]
            sums[1, q] += core[left] * totals[1, here] + core[right] * totals[1, there]
            sums[2, q] += core[left] * totals[2, here] * f[left] + core[right] * totals[2, there] * f[right]
            sums[3, q] += core[left] * u[left] ** 2 + core[right] * u[right] ** 2
