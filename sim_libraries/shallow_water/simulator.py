"""The simulator of a harbour under long waves, with wave makers in its mouth that keep it calm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import Box, Field, Simulator
from alchemist_ray.sim_libraries.shallow_water.harbour import MAKERS, Harbour
from alchemist_ray.sim_libraries.shallow_water.kernels import GHOSTS, GRAVITY, compiled
from alchemist_ray.sim_libraries.shallow_water.solver import INSIDE, CellGrid, Solver
from alchemist_ray.sim_libraries.shallow_water.waves import Waves, WavesAtLine

__version__ = "0.1"

Doubles = npt.NDArray[np.float64]

DENSITY = 1025.0
"""Density of sea water, in kg/m^3."""
_WETTED = 1e-3
"""Least depth that a picture shows as water, in m."""


@compiled
def _sums(state: Any, bed: Any, basin: Any) -> tuple[float, float, float, float]:
    """Return sums of the energy (J/m^2) over the basin and all cells, the sum of depths (m), and the largest |U|^2."""
    in_basin, everywhere, depths, fastest = 0.0, 0.0, 0.0, 0.0
    for j in range(basin.shape[0]):
        row_basin, row, row_depths = 0.0, 0.0, 0.0
        for i in range(basin.shape[1]):
            jg, ig = j + GHOSTS, i + GHOSTS
            h, u, v, z = state[0, jg, ig], state[1, jg, ig], state[2, jg, ig], bed[jg, ig]
            risen = h + z if z < 0.0 else h
            speed2 = u * u + v * v
            energy = 0.5 * DENSITY * (GRAVITY * risen * risen + h * speed2)
            row_basin += energy if basin[j, i] else 0.0
            row += energy
            row_depths += h
            fastest = max(fastest, speed2)
        in_basin += row_basin
        everywhere += row
        depths += row_depths
    return in_basin, everywhere, depths, fastest


class ShallowWater(Simulator):
    """Keep a harbour calm under long waves, by four wave makers in its mouth that push the water along x.

    A well-balanced finite-volume scheme of second order solves the nonlinear shallow-water equations over a sea bed
    with breakwaters and a beach. Waves with a JONSWAP spectrum come from the west. At the start they are in front of
    the harbour, and the harbour is calm.

    Parameters
    ----------
    nx, ny : int
        Number of cells along x and y.
    length, width : float
        Size of the domain along x and y in m.
    depth : float
        Depth of the sea in the west, in m.
    wave_height : float
        Significant height of the incoming waves in m.
    peak_period : float
        Peak period of their spectrum in s.
    max_acceleration : float
        Acceleration of the water by a wave maker for an action of 1, in m/s^2.
    interval : float
        Duration of one step in s. Actions are held during a step.
    effort_weight : float
        Cost of full use of all wave makers, in units of the score.
    drag : float
        Coefficient of the quadratic drag of the bed.
    cfl : float
        Largest dt ((|u| + c)/dx + (|v| + c)/dy) of all cells. It is at most 0.5, so that depths stay positive.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        *,
        nx: int = 512,
        ny: int = 256,
        length: float = 2048.0,
        width: float = 1024.0,
        depth: float = 12.0,
        wave_height: float = 0.6,
        peak_period: float = 60.0,
        max_acceleration: float = 0.05,
        interval: float = 2.0,
        effort_weight: float = 0.1,
        drag: float = 0.0025,
        cfl: float = 0.5,
    ) -> None:
        self._task = "shallow_water.create"
        for name, value, least in (("nx", nx, 32), ("ny", ny, 16)):
            self._require(name, value, value >= least, f"at least {least}")
        positive = {"length": length, "width": width, "depth": depth, "peak_period": peak_period, "interval": interval}
        for name, number in positive.items():
            self._require(name, number, 0 < number < math.inf, "positive")
        others = {"max_acceleration": max_acceleration, "effort_weight": effort_weight, "drag": drag}
        for name, number in others.items():
            self._require(name, number, 0 <= number < math.inf, "positive or zero")
        self._require("wave_height", wave_height, 0 <= wave_height <= depth / 2, "between 0 and half of the depth")
        self._require("cfl", cfl, 0 < cfl <= 0.5, "above 0 and at most 0.5")
        self.comm = comm
        self.wave_height, self.peak_period, self.interval = wave_height, peak_period, interval
        self.max_acceleration, self.effort_weight = max_acceleration, effort_weight
        self.harbour = Harbour(length, width, depth)
        grid = CellGrid(nx, ny, length / nx, width / ny)
        self.solver = Solver(comm, grid, self.harbour.bed, cfl=cfl, drag=drag, task="shallow_water.step")
        self._place()
        makers = [f"wave maker {k + 1}" for k in range(MAKERS)]
        self.action_space = Box(-1.0, 1.0, (MAKERS,), names=makers, units=[f"{max_acceleration:g} m/s^2"] * MAKERS)
        self.observation_space = Box(
            -math.inf,
            math.inf,
            (3 * len(self._gauge_names),),
            names=[f"{what} at {gauge}" for gauge in self._gauge_names for what in ("elevation", "u", "v")],
            units=["m", "m/s", "m/s"] * len(self._gauge_names),
        )
        self._updates = grid.nx * grid.ny * interval * self.solver.fastest_at_rest / cfl / 1e6
        self._effort = 0.0
        self._sums = np.zeros(4)
        self._state = np.zeros(3 * len(self._gauge_names))

    def _require(self, name: str, value: float, fine: bool, what: str) -> None:
        if not fine:
            raise ArgumentValueError(self._task, f"{name} must be {what}, not {value}")

    def _place(self) -> None:
        """Find the parts of the wave makers, the basin and the gauges in this rank's rectangle."""
        x, y = self.solver.places(GHOSTS)
        shares = np.array(self.harbour.makers(x, y))
        rows, columns = (np.flatnonzero(shares.any(axis=(0, other))) for other in (2, 1))
        self._mouth = tuple(slice(each[0], each[-1] + 1) if each.size else slice(0) for each in (rows, columns))
        self._makers = shares[:, *self._mouth].copy()
        x, y = self.solver.places()
        self._basin = self.harbour.in_basin(x, y)
        self._basin_cells: int = self.comm.allreduce(int(self._basin.sum()))
        self._gauge_names, places = self.harbour.gauges()
        grid, mine = self.solver.grid, self.solver.rectangle
        self._gauges = []
        for number, (gx, gy) in enumerate(places):
            i, j = int(gx / grid.dx) - mine.columns.start, int(gy / grid.dy) - mine.rows.start
            if 0 <= j < mine.shape[0] and 0 <= i < mine.shape[1]:
                self._gauges.append((number, j, i))

    def reset(self, seed: int | None) -> None:
        """Begin an episode with waves in front of the harbour."""
        chosen = self.comm.bcast(np.random.SeedSequence().entropy if seed is None else seed)
        if chosen < 0:
            raise ArgumentValueError("shallow_water.reset", f"seed must be positive or zero, not {chosen}")
        rng = np.random.default_rng(chosen)
        harbour = self.harbour
        waves = Waves.random(rng, self.wave_height, self.peak_period, harbour.depth, harbour.width)
        self._take(waves)
        x, y = self.solver.places()
        eta, u, v = (harbour.offshore(x) * field for field in waves.at(x, y, 0.0))
        still = np.maximum(-self.solver.bed[INSIDE], 0.0)
        self.solver.begin(np.maximum(still + eta, 0.0), u, v)
        self._effort = 0.0
        self._look()

    def _take(self, waves: Waves) -> None:
        """Use these waves at the western boundary from now on."""
        self._waves = waves
        self.solver.incoming = WavesAtLine(waves, self.solver.places()[1][:, 0])

    def step(self, action: Doubles) -> None:
        """Advance by one interval under accelerations in units of `max_acceleration`."""
        self.solver.force[self._mouth] = np.tensordot(
            self.max_acceleration * np.asarray(action, float), self._makers, 1
        )
        self._updates = self.solver.advance(self.interval) * self.solver.grid.nx * self.solver.grid.ny / 1e6
        self._effort = float(np.mean(np.square(action)))
        self._look()

    def _look(self) -> None:
        """Collect the gauges and the sums over all ranks on rank 0. Collective."""
        state = np.zeros(self._state.size)
        for number, j, i in self._gauges:
            h, u, v = self.solver.state[:, j + GHOSTS, i + GHOSTS]
            state[3 * number : 3 * number + 3] = h + self.solver.bed[j + GHOSTS, i + GHOSTS], u, v
        sums = np.array(_sums(self.solver.state, self.solver.bed, self._basin))
        self.comm.Reduce(state, self._state)
        self.comm.Reduce(sums[:3], self._sums[:3])
        self.comm.Reduce(sums[3:], self._sums[3:], MPI.MAX)

    def _calm(self) -> float:
        """Return the energy per area in the basin divided by that of the incoming waves, rho g Hs^2 / 16."""
        incoming = DENSITY * GRAVITY * max(self.wave_height, 1e-3) ** 2 / 16
        return float(self._sums[0]) / self._basin_cells / incoming

    @property
    def work_per_step(self) -> tuple[float, str]:
        """Cells times time steps in the last step, in millions."""
        return self._updates, "MLUP"

    def get_state(self) -> Doubles | None:
        """Return elevation (m) and velocity (m/s) at the gauges, on rank 0."""
        return self._state.copy() if self.comm.rank == 0 else None

    def get_score(self) -> float | None:
        """Return minus the relative energy in the basin, minus the weighted mean square of the actions, on rank 0."""
        return -self._calm() - self.effort_weight * self._effort if self.comm.rank == 0 else None

    def get_info(self) -> dict[str, float] | None:
        """Return time (s), energies (J) and volume (m^3), largest speed (m/s) and the parts of the score, on rank 0."""
        if self.comm.rank != 0:
            return None
        area = self.solver.grid.dx * self.solver.grid.dy
        return {
            "time": self.solver.time,
            "basin_energy": float(self._sums[0]) * area,
            "basin_energy_share": self._calm(),
            "energy": float(self._sums[1]) * area,
            "volume": float(self._sums[2]) * area,
            "max_speed": math.sqrt(float(self._sums[3])),
            "effort": self._effort,
        }

    def get_field(self) -> Field | None:
        """Return the surface elevation in m on rank 0, with north at the top and NaN on land."""
        h = self.solver.state[0][INSIDE]
        eta = self.solver.whole(np.where(h > _WETTED, h + self.solver.bed[INSIDE], np.nan))
        if eta is None:
            return None
        extent = (0.0, self.harbour.length, 0.0, self.harbour.width)
        limits = (-self.wave_height, self.wave_height)
        return Field(eta[::-1], "surface elevation", "m", *limits, extent, ("x (m)", "y (m)"))

    def snapshot(self) -> dict[str, Any]:
        """Return this rank's cells, the waves and the last collected values."""
        seen = (self._sums.copy(), self._state.copy(), self._effort, self._updates)
        return {"flow": self.solver.snapshot(), "waves": self._waves, "seen": seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue bit for bit."""
        self.solver.restore(state["flow"])
        self._take(state["waves"])
        sums, seen, self._effort, self._updates = state["seen"]
        self._sums, self._state = sums.copy(), seen.copy()
