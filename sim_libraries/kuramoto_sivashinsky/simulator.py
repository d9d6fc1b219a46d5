"""The simulator of the Kuramoto-Sivashinsky equation: actions, states, score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError, SimulationDivergedError
from alchemist_ray.mpi_backend.ali import Box, Field, Simulator
from alchemist_ray.sim_libraries.kuramoto_sivashinsky.etdrk4 import Tables, advance, interval_weights, tables
from alchemist_ray.sim_libraries.kuramoto_sivashinsky.patches import HORIZON, Patches, extend, patches_for, take_back
from alchemist_ray.sim_libraries.kuramoto_sivashinsky.transform import good_size, radices_of

__version__ = "1.0"

Array = npt.NDArray[Any]

SPACING = 22 / 64
"""Largest distance of grid points if their number is not given."""

BATCH = 4
"""Number of patches that advance together: enough to fill vectors, and few enough for the cache."""

HISTORY = 400
"""Number of intervals in a picture."""

PICTURE_POINTS = 256
"""Largest number of points in space in a picture."""

U_SHOWN = 3.5
"""The value of u at the end of a picture's colour scale."""


class KuramotoSivashinsky(Simulator):
    """Control the Kuramoto-Sivashinsky equation ``u_t = -u u_x - u_xx - u_xxxx + f`` on a periodic interval.

    The forcing is ``f(x) = actuator_peak sum_i a_i exp(-(x - x_i)^2 / (2 actuator_width^2))``. Actuators are at equal
    distances, the first at x = 0. Their amplitudes -1 <= a_i <= 1 are held for an interval of time. The state is u at
    equidistant sensors. The score is ``-(D + P)``, with the dissipation ``D = <u_xx^2>`` and the power
    ``P = <u_x^2> + <u f>``, which are means over space and the last interval (Zeng & Graham, Phys. Rev. E 104, 014210,
    2021). An episode begins on the attractor of the equation without forcing. All quantities are dimensionless.

    Parameters
    ----------
    length : float
        Length L of the interval in space.
    points : int
        Number of grid points; 0 chooses it such that their distance is at most 22/64. It must be a multiple of
        `sensors`. If there is one patch, it must also be even and of the form 2^a 3^b.
    time_step : float
        Largest time step. The duration of an action is divided into equal steps.
    hold : float
        Duration of an action, which is one step of the simulator.
    actuators, sensors : int
        Number of actuators and number of sensors.
    actuator_width, actuator_peak : float
        Standard deviation of the Gaussians, and their height for an amplitude of 1.
    burn_in : float
        Time from a random field to the initial state.
    patches : int
        Number of patches into which the interval is divided; 0 chooses it from the length (one patch below 256). See
        the module `patches`.

    Attributes
    ----------
    time : float
        Time since the last reset.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        *,
        length: float = 22.0,
        points: int = 0,
        time_step: float = 0.05,
        hold: float = 0.25,
        actuators: int = 4,
        sensors: int = 8,
        actuator_width: float = 0.4,
        actuator_peak: float = 1.0,
        burn_in: float = 100.0,
        patches: int = 0,
    ) -> None:
        positive = {
            "length": length,
            "time_step": time_step,
            "hold": hold,
            "actuator_width": actuator_width,
            "actuator_peak": actuator_peak,
        }
        for name, value in positive.items():
            _require(math.isfinite(value) and value > 0, f"{name} must be positive and finite, not {value}")
        _require(math.isfinite(burn_in) and burn_in >= 0, f"burn_in must be 0 or more and finite, not {burn_in}")
        for name, number in {"actuators": actuators, "sensors": sensors}.items():
            _require(number >= 1, f"{name} must be 1 or more, not {number}")
        for name, number in {"points": points, "patches": patches}.items():
            _require(number >= 0, f"{name} must be 0 (chosen from the length) or more, not {number}")
        self.comm = comm
        count = patches or patches_for(length)
        self.grid = Patches(comm, points or _points_for(length, count, sensors), length, count)
        self.steps_per_interval = math.ceil(hold / time_step * (1 - 1e-12))
        self.hold, self.dt, self.burn_in = hold, hold / self.steps_per_interval, burn_in
        _check(self.grid, sensors, self.dt)
        self.action_space = Box(
            -1.0, 1.0, (actuators,), names=[f"amplitude at {i}/{actuators} L" for i in range(actuators)]
        )
        self.observation_space = Box(
            -math.inf, math.inf, (sensors,), names=[f"u at {i}/{sensors} L" for i in range(sensors)]
        )
        self._shapes = actuator_peak * self._actuator_shapes(actuators, actuator_width)
        self._batches = self._make_batches()
        places = np.arange(sensors) * (self.grid.points // sensors) - self.grid.start
        self._sensors = np.flatnonzero((places >= 0) & (places < self.grid.own))
        self._sensed = places[self._sensors] + self.grid.halo
        self._sensor_count = sensors
        self._weights = interval_weights(self.steps_per_interval)
        self._u, self._f = self.grid.new_array(), self.grid.new_array()
        self._stride = -(-self.grid.points // PICTURE_POINTS)
        self._begin_history()

    @property
    def time(self) -> float:
        """Time since the last reset."""
        return self._intervals * self.hold

    @property
    def work_per_step(self) -> tuple[float, str]:
        """Work in one step: grid points times time steps, in millions."""
        return self.grid.points * self.steps_per_interval / 1e6, "Mpoint-steps"

    def _actuator_shapes(self, actuators: int, width: float) -> Array:
        """Return the Gaussian of each actuator at this rank's points and its halo."""
        places = np.arange(actuators) * self.grid.length / actuators
        distance = self.grid.positions() - places[:, None]
        distance -= self.grid.length * np.round(distance / self.grid.length)
        return np.exp(-(distance**2) / (2 * width**2))

    def _make_batches(self) -> list[_PatchGroup]:
        mine = np.array(self.grid.mine)
        if not mine.size:
            return []
        return [_PatchGroup(self.grid, part, self.dt) for part in np.array_split(mine, -(-mine.size // BATCH))]

    def _begin_history(self) -> None:
        self._intervals = 0
        kept = len(range(-self.grid.start % self._stride, self.grid.own, self._stride))
        self._history = np.full((HISTORY, kept), np.nan, np.float32)

    def reset(self, seed: int | None) -> None:
        """Begin an episode with the state that a random field reaches after the burn-in.

        The field is white noise of variance 1. Each patch has its own generator. The mean is subtracted at the end,
        since it only moves the solution.
        """
        seed = self.comm.bcast(np.random.SeedSequence(seed).entropy)
        own = self.grid.own_of(self._u)
        for patch in self.grid.mine:
            part = own[self.grid.part(patch)]
            part[:] = np.random.default_rng([seed, patch]).standard_normal(part.size)
        self._f[:] = 0.0
        self._begin_history()
        self._advance(np.zeros(round(self.burn_in / self.dt) + 1))
        own -= self._mean(own)
        self._advance(np.ones(1))
        self._record()

    def _mean(self, own: Array) -> float:
        """Return the mean over all points. Each patch is summed first, so any number of ranks gives the same bits."""
        sums = np.zeros(self.grid.count)
        for patch in self.grid.mine:
            sums[patch] = own[self.grid.part(patch)].sum()
        self.comm.Allreduce(MPI.IN_PLACE, sums)
        return float(sums.sum() / self.grid.points)

    def step(self, action: Array) -> None:
        """Advance by one interval under the amplitudes `action`."""
        np.matmul(action, self._shapes, out=self._f)
        self._advance(self._weights)
        self._intervals += 1
        self._record()

    def _advance(self, weights: Array) -> None:
        """Advance by ``weights.size - 1`` time steps and compute the means weighted by `weights`. Collective.

        Halos are exchanged before each horizon.

        Raises
        ------
        SimulationDivergedError
            If the solution is no longer finite; on all ranks.
        """
        at_once = max(1, int(HORIZON / self.dt * (1 + 1e-12))) if self.grid.count > 1 else weights.size
        found = np.zeros(4 * self.grid.count + self._sensor_count)
        sums = found[: 4 * self.grid.count].reshape(4, self.grid.count)
        for begin in range(0, max(1, weights.size - 1), at_once):
            part = weights[begin : begin + at_once + 1]
            if begin + at_once < weights.size - 1:
                part = np.append(part[:-1], 0.0)  # the next part counts this point in time
            self.grid.fill(self._u)
            for batch in self._batches:
                batch.advance(self._u, self._f, part)
            for batch in self._batches:
                batch.give_back(self._u, sums)
        found[4 * self.grid.count + self._sensors] = self._u[self._sensed]
        if self.comm.size > 1:
            self.comm.Allreduce(MPI.IN_PLACE, found)  # exact: only one rank has a nonzero value for each entry
        dissipation, production, work, square = sums.sum(axis=1) / self.grid.points
        self._means = {"dissipation": dissipation, "production": production, "work": work, "square": square}
        self._observation = found[4 * self.grid.count :]
        if not math.isfinite(square):
            raise SimulationDivergedError(
                "kuramoto_sivashinsky.step", f"the solution is no longer finite at time {self.time + self.hold:g}"
            )

    def _record(self) -> None:
        self._history[self._intervals % HISTORY] = self.grid.own_of(self._u)[
            -self.grid.start % self._stride :: self._stride
        ]

    def get_state(self) -> Array | None:
        """Return u at the sensors."""
        return self._observation.copy()

    def get_score(self) -> float | None:
        """Return minus the sum of dissipation and power."""
        means = self._means
        return -float(means["dissipation"] + means["production"] + means["work"])

    def get_info(self) -> dict[str, float]:
        """Return the parts of the score, which are means over the last interval, and values at its end.

        Returns
        -------
        info : dict
            Means: ``dissipation`` <u_xx^2>, ``production`` <u_x^2>, ``actuation_power`` <u f>, and ``power``, the sum
            of the last two. At the end: ``energy`` <u^2>/2, ``norm`` sqrt(<u^2>) and ``time``.
        """
        means = {name: float(value) for name, value in self._means.items()}
        return {
            "dissipation": means["dissipation"],
            "production": means["production"],
            "actuation_power": means["work"],
            "power": means["production"] + means["work"],
            "energy": means["square"] / 2,
            "norm": math.sqrt(means["square"]),
            "time": self.time,
        }

    def get_solution(self) -> Array | None:
        """Return u at all grid points, on rank 0. Collective over comm."""
        parts = self.comm.gather(self.grid.own_of(self._u))
        return np.concatenate(parts) if parts is not None else None

    def set_solution(self, u: Array) -> None:
        """Continue from the samples `u` of all grid points, the same on every rank. Collective over comm.

        Raises
        ------
        ArgumentValueError
            If `u` does not have one sample for each grid point.
        """
        if u.shape != (self.grid.points,):
            raise ArgumentValueError(
                "kuramoto_sivashinsky.set_solution", f"u has shape {u.shape}, not {(self.grid.points,)}"
            )
        self.grid.own_of(self._u)[:] = u[self.grid.start : self.grid.start + self.grid.own]
        self._f[:] = 0.0
        self._advance(np.ones(1))

    def get_field(self) -> Field | None:
        """Return u over space (upwards) and time (to the right) for the last 400 intervals. Collective over comm."""
        parts = self.comm.gather(self._history)
        if parts is None:
            return None
        rows = np.arange(self._intervals + 1, self._intervals + 1 + HISTORY) % HISTORY
        u = np.concatenate(parts, axis=1)[rows].T
        extent = (self.time - HISTORY * self.hold, self.time, 0.0, self.grid.length)
        return Field(u[::-1], "u", "", -U_SHOWN, U_SHOWN, extent, ("time", "x"))

    def snapshot(self) -> Any:
        """Return this rank's part of the solution, and the values of the last interval."""
        return {
            "u": self._u.copy(),
            "intervals": self._intervals,
            "means": dict(self._means),
            "observation": self._observation.copy(),
            "history": self._history.copy(),
        }

    def restore(self, state: Any) -> None:
        """Continue from a snapshot."""
        self._u[:] = state["u"]
        self._intervals = state["intervals"]
        self._means = dict(state["means"])
        self._observation = state["observation"].copy()
        self._history[:] = state["history"]


class _PatchGroup:
    """Patches of a rank that advance together."""

    def __init__(self, grid: Patches, patches: Array, dt: float) -> None:
        first = np.array(grid.first)
        self._patches, self._halo = slice(patches[0], patches[-1] + 1), grid.halo
        self._offsets, self._sizes = first[patches] - grid.start, grid.sizes(patches)
        self._seam = grid.seam(patches)
        self._core = np.ascontiguousarray(grid.owned_samples(patches).T).ravel()
        self._tables: Tables = tables(grid.samples, grid.samples_length, dt, patches.size)
        self._u, self._f = np.empty(grid.samples * patches.size), np.empty(grid.samples * patches.size)
        self._sums = np.empty((4, patches.size))

    def advance(self, u: Array, f: Array, weights: Array) -> None:
        """Advance a periodic copy of each patch and its surroundings."""
        extend(u, self._offsets, self._seam, self._halo, self._u)
        extend(f, self._offsets, self._seam, self._halo, self._f)
        advance(self._u, self._f, weights, self._core, self._sums, self._tables)

    def give_back(self, u: Array, sums: Array) -> None:
        """Write the patches' own points to `u`. Add their first three sums to `sums`, and set the last one."""
        take_back(self._u, self._offsets, self._sizes, self._halo, u)
        sums[:3, self._patches] += self._sums[:3]
        sums[3, self._patches] = self._sums[3]


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ArgumentValueError("kuramoto_sivashinsky.create", reason)


def _points_for(length: float, count: int, sensors: int) -> int:
    """Return the smallest number of points that is fine enough and that patches and sensors allow."""
    points = math.ceil(length / SPACING * (1 - 1e-12))
    if count > 1:
        return -(-points // sensors) * sensors
    for size in range(max(points, 8), 8 * max(points, 8)):
        if size % 2 == 0 and size % sensors == 0 and radices_of(size // 2) is not None:
            return size
    raise ArgumentValueError(
        "kuramoto_sivashinsky.create",
        f"sensors = {sensors} does not divide any number of points 2^a 3^b near {points}; choose another number of "
        "sensors",
    )


def _check(grid: Patches, sensors: int, dt: float) -> None:
    """Check that the grid can be transformed, the sensors lie on it, and patches reach direct neighbours only."""
    points = grid.points
    _require(points % sensors == 0, f"points = {points} must be a multiple of sensors = {sensors}")
    if grid.count == 1:
        fits = points >= 8 and points == good_size(points)
        near = good_size(max(points, 8))
        _require(fits, f"points = {points} must be even and of the form 2^a 3^b, for example {near}")
        return
    _require(dt <= HORIZON, f"time_step must be at most {HORIZON} on several patches, not {dt:g}")
    _require(
        grid.is_legal(), f"patches = {grid.count} are too many for length = {grid.length:g}: use at most {grid.most()}"
    )
