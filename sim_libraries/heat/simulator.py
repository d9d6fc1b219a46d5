"""The simulator of the heated plate: actions, states, score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError, SimulationDivergedError
from alchemist_ray.mpi_backend.ali import Box, Field, Simulator
from alchemist_ray.sim_libraries.heat import kernels
from alchemist_ray.sim_libraries.heat.blocks import CellBlock, process_grid
from alchemist_ray.sim_libraries.heat.model import FLUX_WEIGHT, INITIAL_MODES, Integrator, Plate, random_amplitudes

__version__ = "1.0"

Array = npt.NDArray[Any]

MAX_SEED = 2**31


@dataclass(frozen=True)
class PlateState:
    """The measured values after a step.

    Attributes
    ----------
    amplitudes : ndarray
        Amplitudes of the observed modes [K].
    mean_square : float
        Mean square of the temperature [K2].
    flux_square : float
        Mean square of the flux through the edges in the step [(kW/m2)2].
    heat : float
        Heat put into the plate in the step, per metre of its thickness [kJ/m].
    """

    amplitudes: Array
    mean_square: float
    flux_square: float = 0.0
    heat: float = 0.0


class Heat(Simulator):
    """Bring a plate to a uniform target temperature by heating and cooling its edges.

    The simulation solves the heat equation for the deviation T [K] from the target temperature on a square plate, from
    a smooth random T. Actuators cover the edges. An action is the heat flux [kW/m2] into the plate through each
    actuator, and it is held for `interval` seconds. The state is the amplitudes [K] of the lowest cosine modes of T.
    The squares of all amplitudes add up to the mean square of T. The score is

        -(mean over the plate of T^2 at the end of the step + flux_weight * mean over the edges of the flux^2)   [K2].

    The simulation never ends an episode; 40 steps of a minute are a sensible length. The equations, the discretisation
    and its validation are in ``docs/simulations/heat.md`` and in :mod:`~alchemist_ray.sim_libraries.heat.model`.

    Parameters
    ----------
    n : int
        Cells in each direction.
    side : float
        Length of an edge [m].
    diffusivity : float
        Diffusivity [m2/s]; by default that of copper.
    conductivity : float
        Conductivity [W/(m K)]; by default that of copper.
    interval : float
        Duration of an action [s].
    supersteps : int
        Number of second-order steps in the interval.
    actuators_per_side : int
        Number of actuators of equal length on each edge.
    max_flux : float
        Bound of the flux [kW/m2].
    flux_weight : float
        Weight of the mean square flux in the cost [K2 / (kW/m2)2].
    initial_rms : float
        Root mean square of the initial temperature, averaged over seeds [K].
    observed_modes : int
        Number of modes in each direction in the state.
    halo : int
        Number of rings of cells in one exchange between ranks.

    Raises
    ------
    ArgumentValueError
        If a parameter is invalid, or the plate has too few cells for the number of ranks.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        *,
        n: int = Plate.n,
        side: float = Plate.side,
        diffusivity: float = Plate.diffusivity,
        conductivity: float = Plate.conductivity,
        interval: float = Integrator.interval,
        supersteps: int = Integrator.supersteps,
        actuators_per_side: int = Plate.actuators_per_side,
        max_flux: float = 6.0,
        flux_weight: float = FLUX_WEIGHT,
        initial_rms: float = 1.0,
        observed_modes: int = 4,
        halo: int = 12,
    ) -> None:
        least = max(INITIAL_MODES, observed_modes, actuators_per_side, *process_grid(comm.size))
        _check_at_least(1, supersteps=supersteps, actuators_per_side=actuators_per_side, halo=halo)
        _check_at_least(1, observed_modes=observed_modes)
        _check_at_least(least, n=n)
        _check_positive(side=side, diffusivity=diffusivity, conductivity=conductivity, interval=interval)
        _check_positive(max_flux=max_flux)
        _check_positive(or_zero=True, flux_weight=flux_weight, initial_rms=initial_rms)
        self._comm = comm
        self.plate = Plate(n, side, diffusivity, conductivity, actuators_per_side)
        self.integrator = Integrator(self.plate, interval, supersteps)
        self._flux_weight, self._initial_rms = flux_weight, initial_rms
        self.action_space = Box(
            -max_flux,
            max_flux,
            (self.plate.actuators,),
            names=[f"flux_{name}" for name in self.plate.actuator_names],
            units=["kW/m2"] * self.plate.actuators,
        )
        pairs = [(k, m) for k in range(observed_modes) for m in range(observed_modes)]
        self.observation_space = Box(
            -np.inf, np.inf, (len(pairs),), names=[f"mode_y{k}_x{m}" for k, m in pairs], units=["K"] * len(pairs)
        )
        self._allocate(CellBlock(comm, n, halo), observed_modes)

    def _allocate(self, block: CellBlock, modes: int) -> None:
        """Allocate the padded arrays of this rank: the temperature T, the Euler increment D, and two stages Z."""
        self._block = block
        self._T, self._D, self._Z = block.padded(1), block.padded(), block.padded(2)
        cosines = self.plate.cosines(max(modes, INITIAL_MODES))
        self._cos_y, self._cos_x = (np.ascontiguousarray(cosines[:, cut]) for cut in (block.y, block.x))
        self._modes = modes
        self._sums = np.empty(modes**2 + 1)
        stages, euler = self.integrator.stages, self.integrator.euler_number
        self._weights = np.column_stack([stages.mu - 4 * euler * stages.mut, euler * stages.mut, stages.nu, stages.c])
        self._outcome = PlateState(np.zeros(modes**2), 0.0)

    @property
    def work_per_step(self) -> tuple[float, str]:
        """Cell updates in a step, in millions."""
        return self.plate.n**2 * self.integrator.supersteps * self.integrator.stages.count / 1e6, "MLUP"

    @property
    def temperature(self) -> Array:
        """A view of T [K] in the cells of this rank, with rows along x. Local."""
        own: Array = self._T[0][self._block.interior]
        return own

    # --- stepping -----------------------------------------------------------------------------------------------------

    def reset(self, seed: int | None) -> None:
        """Begin an episode with a random temperature drawn from `seed`. Collective."""
        chosen = self._comm.bcast(int(np.random.default_rng(seed).integers(MAX_SEED)))
        self.set_amplitudes(random_amplitudes(chosen, self._initial_rms))

    def set_amplitudes(self, amplitudes: Array) -> None:
        """Begin an episode with these modal amplitudes [K], (k of y, l of x), at most 6 x 6. Collective."""
        rows, columns = amplitudes.shape
        self.temperature[...] = self._cos_y[:rows].T @ amplitudes @ self._cos_x[:columns]
        self._outcome = self._measure(np.zeros(self.plate.actuators))

    def step(self, action: Array) -> None:
        """Hold the fluxes `action` [kW/m2] for an interval. Collective.

        Raises
        ------
        SimulationDivergedError
            If the temperature is no longer finite; on all ranks.
        """
        offsets = self._block.along_edges(self.plate.ghost_offsets(action))
        for _ in range(self.integrator.supersteps):
            self._superstep(offsets)
        self._outcome = self._measure(np.asarray(action, float))
        if not np.isfinite(self._outcome.mean_square):
            raise SimulationDivergedError("heat.step", "the temperature is not finite")

    def _superstep(self, offsets: Array) -> None:
        """Advance T by tau with the stages of RKL2. Halos are exchanged when no valid ring is left. Collective."""
        block, last = self._block, self.integrator.stages.count
        region = block.region(block.halo - 1)
        block.exchange(self._T)
        kernels.begin(
            self._T[0],
            offsets,
            self.integrator.euler_number,
            self._weights[1, 3],
            self._D,
            self._Z,
            region,
            block.walls,
        )
        valid, first = block.halo - 1, 2
        alone = bool(block.walls.all())
        while first <= last:
            if valid == 0 and not alone:
                block.exchange(self._Z)
                valid = block.halo
            end = last if alone else min(last, first + valid - 1)
            kernels.run_stages(self._Z, self._D, self._weights, first, end, block.owned, valid, block.walls)
            valid, first = valid - (end - first + 1), end + 1
        self.temperature[...] += self._Z[last % 2][block.interior]

    def _measure(self, action: Array) -> PlateState:
        """Project T onto the observed modes, in one reduction. Collective."""
        kernels.moments(self.temperature, self._cos_y[: self._modes], self._cos_x[: self._modes], self._sums)
        means = np.empty_like(self._sums)
        self._comm.Allreduce(self._sums, means)
        means /= self.plate.n**2
        length = self.plate.side / self.plate.actuators_per_side
        return PlateState(
            means[:-1],
            float(means[-1]),
            float(np.mean(action**2)),
            float(action.sum() * length * self.integrator.interval),
        )

    # --- states, scores and pictures ----------------------------------------------------------------------------------

    def get_state(self) -> Array:
        """Return the amplitudes of the observed modes [K]. Local; all ranks return the same."""
        return self._outcome.amplitudes

    def get_score(self) -> float:
        """Return minus the cost of the last step [K2]. Local; all ranks return the same."""
        return -(self._outcome.mean_square + self._flux_weight * self._outcome.flux_square)

    def get_info(self) -> dict[str, float]:
        """Return the parts of the cost [K2], mean and rms of the temperature [K], and the heat put in [kJ/m]. Local."""
        last = self._outcome
        return {
            "temperature_cost": last.mean_square,
            "flux_cost": self._flux_weight * last.flux_square,
            "mean_temperature": float(last.amplitudes[0]),
            "rms_temperature": last.mean_square**0.5,
            "heat": last.heat,
        }

    def get_field(self) -> Field | None:
        """Return the temperature, y upwards, on rank 0. Collective."""
        whole = self._block.gather(self.temperature)
        if whole is None:
            return None
        limit = 2 * self._initial_rms if self._initial_rms > 0 else None
        low, side = None if limit is None else -limit, self.plate.side
        return Field(whole[::-1], "temperature", "K", low, limit, (0.0, side, 0.0, side), ("x (m)", "y (m)"))

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[Array, PlateState]:
        """Return a copy of this rank's temperature, and the last measured values. Local."""
        return self.temperature.copy(), self._outcome

    def restore(self, state: tuple[Array, PlateState]) -> None:
        """Continue from a snapshot. Local."""
        temperature, self._outcome = state
        self.temperature[...] = temperature


def _check_at_least(least: int, **given: int) -> None:
    for name, value in given.items():
        if value < least:
            raise ArgumentValueError("heat.create", f"{name} must be at least {least}, not {value}")


def _check_positive(or_zero: bool = False, **given: float) -> None:
    for name, value in given.items():
        if not (np.isfinite(value) and (value > 0 or (or_zero and value == 0))):
            least = "positive or zero" if or_zero else "positive"
            raise ArgumentValueError("heat.create", f"{name} must be {least}, and finite, not {value}")
