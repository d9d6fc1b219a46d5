"""The simulator of the flow past a cylinder: actions, states, score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError, SimulationDivergedError
from alchemist_ray.mpi_backend.ali import Box, Field, Simulator, TaskContext
from alchemist_ray.sim_libraries.cylinder_flow.developed import PHASES, DevelopedFlow, developed_flow
from alchemist_ray.sim_libraries.cylinder_flow.flow import HALO, ChannelFlow, FlowState
from alchemist_ray.sim_libraries.cylinder_flow.geometry import CENTRE, ChannelGeometry
from alchemist_ray.sim_libraries.cylinder_flow.lattice import Array

__version__ = "1.0"

ROUND = [(0.75 * np.cos(angle), 0.75 * np.sin(angle)) for angle in np.arange(0, 360, 30) * np.pi / 180]
WAKE = [(x, y) for x in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0) for y in (-0.75, 0.0, 0.75)]
VORTICITY_SHOWN = 8.0

ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "resolution": (lambda value: value in range(20, 201, 10), "a multiple of 10 from 20 to 200"),
    "reynolds": (lambda value: 0 < value <= 400, "above 0 and at most 400"),
    "length": (lambda value: 8 <= value <= 100, "from 8 to 100"),
    "u_max": (lambda value: 0 < value <= 0.15, "above 0 and at most 0.15"),
    "actuation": (lambda value: value in ("rotation", "jets"), "'rotation' or 'jets'"),
    "amplitude": (lambda value: 0 < value <= 5, "above 0 and at most 5"),
    "action_time": (lambda value: 0.01 <= value <= 10, "from 0.01 to 10"),
    "lift_penalty": (lambda value: 0 <= value <= 10, "from 0 to 10"),
    "start_time": (lambda value: 0 <= value <= 1000, "from 0 to 1000"),
}
"""Parameter -> a check of its value, and the text that describes valid values."""


@dataclass(frozen=True)
class FlowMeans:
    """Means over the last action: the coefficients of drag, of lift, and of the actuator's power."""

    drag: float
    lift: float
    power: float


@dataclass(frozen=True)
class FlowSnapshot:
    """The state to continue from: this rank's part of the flow, and the values of the episode."""

    flow: FlowState
    outcome: FlowMeans
    uncontrolled_drag: float
    steps: int


class CylinderFlow(Simulator):
    """Control the vortex street behind a cylinder in a channel, by rotating the cylinder or by two jets.

    The channel is that of the benchmark 2D-2 of Schaefer and Turek (1996). It is 4.1 D high, the centre of the cylinder
    is 2 D from the inlet and 2 D from the lower wall, and the inflow is parabolic with the mean velocity U. An episode
    begins in the developed vortex street, at a phase that the seed draws.

    Parameters
    ----------
    resolution : int
        Lattice nodes per diameter, a multiple of 10, at least 20. The default length has 90.2 resolution^2 nodes.
    reynolds : float
        Reynolds number U D / viscosity.
    length : float
        Length of the channel, in D.
    u_max : float
        Largest inflow velocity in lattice units: 1.5 U, and 0.58 times the Mach number. A smaller value is slower and
        closer to incompressible flow.
    actuation : {"rotation", "jets"}
        Meaning of the action: the surface speed of the cylinder (counter-clockwise), or the velocity in the middle of
        a jet at the top, while a jet at the bottom sucks in as much.
    amplitude : float
        Largest action, in U.
    action_time : float
        Duration of an action, in D/U. The speed of the actuator changes at a constant rate and reaches the action at
        the end.
    lift_penalty : float
        Weight of the mean lift in the score.
    start_time : float
        Time for which the flow develops before the first episode, in D/U.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        *,
        resolution: int = 20,
        reynolds: float = 100.0,
        length: float = 22.0,
        u_max: float = 0.1,
        actuation: Literal["rotation", "jets"] = "rotation",
        amplitude: float = 0.15,
        action_time: float = 0.25,
        lift_penalty: float = 0.2,
        start_time: float = 40.0,
    ) -> None:
        self.comm = comm
        if not hasattr(self, "context"):
            self.context = TaskContext(comm, "cylinder_flow.create")
        self._check(
            resolution=resolution,
            reynolds=reynolds,
            length=length,
            u_max=u_max,
            actuation=actuation,
            amplitude=amplitude,
            action_time=action_time,
            lift_penalty=lift_penalty,
            start_time=start_time,
        )
        self._flow = ChannelFlow(comm, ChannelGeometry(resolution, length), reynolds, u_max, actuation)
        self._key = (resolution, reynolds, length, u_max, actuation)
        self._lift_penalty, self._start_time = lift_penalty, start_time
        self._steps_per_action = round(action_time * self._flow.time_unit)
        self._ramp = np.arange(1, self._steps_per_action + 1) / self._steps_per_action
        self._set_spaces(actuation, amplitude)
        self._outcome = FlowMeans(0.0, 0.0, 0.0)
        self._uncontrolled_drag, self._steps = 0.0, 0

    def _check(self, **parameters: Any) -> None:
        for name, value in parameters.items():
            allowed, said = ALLOWED[name]
            if not allowed(value):
                raise ArgumentValueError(self.context.task, f"{name} must be {said}, not {value!r}")
        resolution, length = parameters["resolution"], parameters["length"]
        most = round(length * resolution) // HALO
        if self.comm.size > most:
            reason = f"resolution {resolution} and length {length} allow at most {most} workers"
            raise ArgumentValueError(self.context.task, f"{reason}, not {self.comm.size}")

    def _set_spaces(self, actuation: str, amplitude: float) -> None:
        self.action_space = Box(
            -amplitude, amplitude, (1,), ["peripheral speed" if actuation == "rotation" else "upper jet"], ["U"]
        )
        resolution = self._flow.channel.resolution
        self._probe_x, self._probe_y = ((CENTRE + np.array([*ROUND, *WAKE])) * resolution).astype(int).T
        names = [f"pressure {x:.2f} {y:.2f}" for x, y in ROUND]
        names += [f"velocity {component} {x:.2f} {y:.2f}" for component in "xy" for x, y in WAKE]
        units = ["rho U^2"] * len(ROUND) + ["U"] * (2 * len(WAKE) + 1)
        self.observation_space = Box(-np.inf, np.inf, (len(units),), [*names, "actuator"], units)

    @property
    def work_per_step(self) -> tuple[float, str]:
        """Lattice updates in a step, in millions."""
        return self._flow.channel.nx * self._flow.channel.ny * self._steps_per_action / 1e6, "MLUP"

    def reset(self, seed: int | None) -> None:
        """Begin in the developed vortex street, at a phase that the seed draws.

        The first reset in a process computes the street, which takes seconds.

        Raises
        ------
        SimulationDivergedError
            If the street is not finite: the resolution is too low for the Reynolds number, or `u_max` is too large.
        """
        developed = self._develop()
        part = self.comm.bcast(float(np.random.default_rng(seed).random()))
        phase, later = divmod(part * PHASES, 1)
        self._flow.set_state(developed.states[int(phase)])
        self._flow.advance(np.zeros(int(later * developed.period / PHASES)))
        self._outcome = FlowMeans(developed.drag, 0.0, 0.0)
        self._uncontrolled_drag, self._steps = developed.drag, 0

    def _develop(self) -> DevelopedFlow:
        def report(done: float, total: float) -> None:
            self.context.progress(done, total, "the vortex street develops")

        developed = developed_flow(self._flow, self._key, self._start_time, report)
        self._check_finite(developed.drag)
        return developed

    def _check_finite(self, drag: float) -> None:
        if not np.isfinite(drag):
            raise SimulationDivergedError(self.context.task, "the drag is not finite")

    def step(self, action: Array) -> None:
        """Change the speed of the actuator to `action` at a constant rate, during one action time.

        Raises
        ------
        SimulationDivergedError
            If the flow is no longer finite.
        """
        flow = self._flow
        target = float(np.asarray(action).reshape(-1)[0]) * flow.u_mean
        forces = flow.advance(flow.speed + (target - flow.speed) * self._ramp)
        drag, lift, power = map(float, flow.coefficients(forces).mean(axis=0))
        self._check_finite(drag)
        self._outcome = FlowMeans(drag, lift, -power)
        self._steps += 1

    def get_state(self) -> Array | None:
        """Return pressures around the cylinder, velocities in its wake and the actuator's speed, on rank 0."""
        flow, n = self._flow, len(ROUND)
        density, ux, uy = flow.probe(self._probe_x, self._probe_y)
        if self.comm.rank != 0:
            return None
        pressure = density[:n] / (3 * flow.u_mean**2)
        return np.concatenate([pressure, ux[n:] / flow.u_mean, uy[n:] / flow.u_mean, [flow.speed / flow.u_mean]])

    def get_score(self) -> float:
        """Return the reduction of the mean drag compared with no control, minus the penalty for the mean lift."""
        return self._uncontrolled_drag - self._outcome.drag - self._lift_penalty * abs(self._outcome.lift)

    def get_info(self) -> Mapping[str, float]:
        """Return the coefficients of the last action, and the time since the reset in D/U."""
        return {
            "drag": self._outcome.drag,
            "lift": self._outcome.lift,
            "power": self._outcome.power,
            "uncontrolled_drag": self._uncontrolled_drag,
            "time": self._steps * self._steps_per_action / self._flow.time_unit,
        }

    def get_field(self) -> Field | None:
        """Return the vorticity, in U/D, on rank 0."""
        moments = self._flow.gather()
        if moments is None:
            return None
        channel = self._flow.channel
        ux, uy = np.where(channel.solid, 0, moments[1:]) / self._flow.u_mean
        vorticity = (np.gradient(uy, axis=1) - np.gradient(ux, axis=0)) * channel.resolution
        vorticity[channel.solid] = np.nan
        extent = (0.0, channel.nx / channel.resolution, 0.0, channel.ny / channel.resolution)
        return Field(vorticity[::-1], "vorticity", "U/D", -VORTICITY_SHOWN, VORTICITY_SHOWN, extent, ("x (D)", "y (D)"))

    def snapshot(self) -> FlowSnapshot:
        """Return this rank's part of the state. Local."""
        return FlowSnapshot(self._flow.state(), self._outcome, self._uncontrolled_drag, self._steps)

    def restore(self, state: FlowSnapshot) -> None:
        """Continue from a snapshot. Local."""
        self._flow.set_state(state.flow)
        self._outcome, self._uncontrolled_drag, self._steps = state.outcome, state.uncontrolled_drag, state.steps
