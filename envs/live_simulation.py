"""The simulation of an :class:`HPCSimulator`: its workers, opened and replaced, and where its episode stands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.envs.environment import LiveState
from alchemist_ray.envs.settings import EnvSettings
from alchemist_ray.envs.simulation_group import PATIENCE_SECONDS, SimulationGroup, is_failure, is_lost
from alchemist_ray.envs.spaces import Bounds
from alchemist_ray.errors import AlchemistError, StateMisfitError

Array = npt.NDArray[Any]


@dataclass(kw_only=True)
class LiveSimulation(LiveState):
    """A simulation in a worker group, for one process.

    Attributes
    ----------
    settings : EnvSettings
        Of the environment.
    bounds : (Bounds, Bounds) or None
        Of the actions and the states, once they are known.
    group : SimulationGroup or None
        The workers, once they are needed.
    simulation : int
        The number of the simulation on the workers.
    begun : bool
        Whether the simulation has a state, and `steps` is the number of its steps.
    running : bool
        Whether it can be stepped: it has begun, and the episode is not over.
    interrupted : bool
        Whether an exception that is not ours, such as KeyboardInterrupt, has left a call of the simulation.
    steps, failures : int
        Steps since the reset; failures since the last step that succeeded.
    state : ndarray
        The last state.
    picture : ndarray or None
        The last picture.
    """

    settings: EnvSettings
    bounds: tuple[Bounds, Bounds] | None = None
    group: SimulationGroup | None = None
    simulation: int = 0
    begun: bool = False
    running: bool = False
    interrupted: bool = False
    steps: int = 0
    failures: int = 0
    state: Array = field(default_factory=lambda: np.empty(0))
    picture: npt.NDArray[np.uint8] | None = None

    def open(self, wait: float = 0.0) -> SimulationGroup:
        """Return the group, with the simulation in it; request workers if there are none, and wait for them."""
        if self.group is None:
            group = SimulationGroup(self.settings, wait)
            try:
                return self.enter(group)
            except BaseException:
                group.release(None)
                raise
        return self.group

    def enter(self, group: SimulationGroup) -> SimulationGroup:
        """Make the simulation in a group, and learn its bounds; return the group."""
        simulation = group.create()
        if (
            self.bounds is None
        ):  # before the first reset: finding the shape of an undeclared state resets the simulation
            self.bounds = group.spaces(simulation)
        self.group, self.simulation = group, simulation
        return group

    def leave(self) -> None:
        """Give up the group; :meth:`open` makes a new one."""
        group, self.group = self.group, None
        self.begun = self.running = False
        if group is not None:
            group.release(self.simulation)

    def begin(self, seed: int, snapshot: int | None) -> Array:
        """Reset the simulation, or continue from a snapshot; return its state.

        With ``on_failure="restart"`` failures are tried again, with new workers if the old ones are gone.
        """
        attempts = 1 + (self.settings.max_restarts if self.settings.on_failure == "restart" else 0)
        attempts += self.interrupted  # the interrupt may have left a connection in the middle of a message
        if self.group is not None and not self.group.alive:
            self.leave()
        while True:
            attempts -= 1
            try:
                return self._begin_once(seed, snapshot)
            except AlchemistError as failure:
                if attempts <= 0 or not is_failure(failure):
                    raise

    def _begin_once(self, seed: int, snapshot: int | None) -> Array:
        with self.noting():
            group = self.open(PATIENCE_SECONDS if self.failures else 0.0)
            group.free_dropped()
            task, argument = ("reset", seed) if snapshot is None else ("restore", snapshot)
            return self.checked(group.library[task](self.simulation, argument))

    def checked(self, state: Array) -> Array:
        """Keep a state that the workers have returned, if it has the declared shape; return it.

        Raises
        ------
        StateMisfitError
            If it has another shape.
        """
        if self.bounds is not None and state.shape != self.bounds[1].low.shape:
            reason = f"has shape {state.shape}, not {self.bounds[1].low.shape}"
            raise StateMisfitError(f"{self.settings.lib_name}.step", reason)
        self.state = state
        return state

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note that a call of the simulation has failed or was interrupted, while the exception passes."""
        try:
            yield
        except AlchemistError as failure:
            if is_failure(failure):
                self.note(failure)
            raise
        except BaseException:
            self.interrupted = True
            raise
        self.interrupted = False

    def note(self, failure: AlchemistError) -> None:
        """Note that the simulation has failed, or that the workers are gone."""
        self.failures += 1
        self.begun = self.running = False
        if self.group is not None and is_lost(failure, self.group):
            self.leave()
