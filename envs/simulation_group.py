"""A worker group that has loaded a simulation library, and the simulations in it.

An environment and its forks (:meth:`HPCSimulator.fork`) share a group. The last one to be closed gives it back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from alchemist_ray.client.libraries import Library
from alchemist_ray.envs.settings import EnvSettings
from alchemist_ray.envs.spaces import Bounds
from alchemist_ray.envs.workplace import Workplace
from alchemist_ray.errors import (
    AlchemistError,
    ArgumentError,
    ArgumentValueError,
    GroupDiedError,
    LibraryLoadError,
    NotConnectedError,
    NoWorkersError,
    TaskError,
)

CALLS = ("reset", "step", "get_state", "get_score")
"""The calls of the Alchemist-Library Interface that make a library a simulation."""

CLOSE_SECONDS = 5.0
"""How long a simulation may take to give back what it holds."""

PATIENCE_SECONDS = 15.0
"""How long workers are waited for after a group has died: the server needs a moment to find its slots free."""

GROUP_IS_LOST = (GroupDiedError, NoWorkersError, NotConnectedError)
"""Errors after which there is no group."""


class SimulationGroup:
    """A session, its workers, and the simulation library that they have loaded. Not thread-safe, and of one process.

    Parameters
    ----------
    settings : EnvSettings
        The server, the number of workers, the library.
    wait : float
        Seconds to wait for workers, if the settings do not say longer.

    Attributes
    ----------
    session : AlchemistSession
        The session, of this group alone.
    simulations : SimulationSteps
        Steps the simulations.
    library : Library
        The simulation library, for all other tasks.
    users : int
        Number of environments that share the group.

    Raises
    ------
    ServerUnreachableError, AuthenticationError, NotEnoughWorkersError, GroupStartError
        If the server gives no workers.
    ClusterError
        If Ray does not give the resources of the workers, or has no cluster of the name in the settings.
    LibraryNotFoundError, LibraryRefusedError, LibraryLoadError
        If the library does not load, or is not a simulation: each call that it lacks is named.
    """

    def __init__(self, settings: EnvSettings, wait: float = 0.0) -> None:
        self.settings = settings
        self.users = 1
        self._workplace = Workplace(settings)
        self.session = self._workplace.new_session()
        self.simulations = self.session.simulations
        self._dropped: list[int] = []
        seconds = max(wait, settings.wait or 0.0)
        try:
            self.session.connect(*self._workplace.open(wait))
            self.session.request_workers(
                settings.num_workers, seconds, placement=settings.placement, labels=settings.labels
            )
            self.library = self.session.load_library(settings.lib_name, settings.lib_path)
            _check_calls(self.library)
        except BaseException:
            self.end_session()
            raise

    @property
    def alive(self) -> bool:
        """Whether the workers are alive, as far as is known."""
        try:
            return self.session.has_workers()
        except AlchemistError:
            return False

    def create(self) -> int:
        """Make a simulation with the parameters of the settings; return its number.

        Raises
        ------
        ArgumentError
            If the simulation has no such parameter; the nearest one is named.
        """
        number: int = self.library["create"](**self.settings.params)
        return number

    def spaces(self, simulation: int) -> tuple[Bounds, Bounds]:
        """Return the bounds of a simulation's actions and of its states.

        Raises
        ------
        LibraryLoadError
            If the library declares no space of actions.
        """
        described = self.library["get_spaces"](simulation)
        return bounds_in(self.library.name, described, lambda: self.library["reset"](simulation, 0).shape)

    def drop_snapshot(self, snapshot: int) -> None:
        """Drop a snapshot on the workers, later, before their next task; the garbage collector calls this."""
        self._dropped.append(snapshot)

    def free_dropped(self) -> None:
        """Drop the snapshots on the workers that nothing refers to any longer."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            self.library["drop_snapshots"](dropped)

    def release(self, simulation: int | None) -> None:
        """End the simulation of one environment; end the group if no other environment uses it."""
        self.users -= 1
        if simulation is not None and self.alive:
            with contextlib.suppress(AlchemistError):
                self.end(simulation)
        if self.users <= 0:
            self.end_session()

    def end_session(self) -> None:
        """Give the workers back, and what was started for them."""
        self.session.stop()
        self._workplace.close()

    def end(self, simulation: int) -> None:
        """Have a simulation release its resources."""
        self.library.options(timeout=CLOSE_SECONDS)["close"](simulation)


def _check_calls(library: Library) -> None:
    """Raise an error if a library is not a simulation."""
    tasks = {task.name for task in library.description.tasks}
    missing = [name for name in CALLS if name not in tasks]
    if missing:
        raise LibraryLoadError(
            library.name,
            f"it is not a simulation: it lacks {', '.join(missing)}. A simulation is a subclass of Simulator",
        )
    if "create" not in tasks:
        raise LibraryLoadError(library.name, "it has the calls of a simulation, but is not a subclass of Simulator")


def bounds_in(library: str, described: dict[str, Any], shape: Callable[[], tuple[int, ...]]) -> tuple[Bounds, Bounds]:
    """Return the bounds that a library describes; without a space of states, `shape` returns the shape of a state.

    Raises
    ------
    LibraryLoadError
        If the library declares no space of actions.
    """
    if described["action"] is None:
        raise LibraryLoadError(library, "its simulator declares no action_space, which an agent needs: add one")
    states = described["observation"]
    return Bounds.of(described["action"]), Bounds.unbounded(shape()) if states is None else Bounds.of(states)


def is_failure(error: BaseException) -> bool:
    """Whether an error is a failure of the simulation or its workers, and not a mistake of the caller."""
    if isinstance(error, (ArgumentError, ArgumentValueError)):
        return False
    return isinstance(error, (*GROUP_IS_LOST, TaskError))


def is_lost(error: BaseException, group: SimulationGroup) -> bool:
    """Whether the workers are gone with an error. Ranks that do not come back from a failed task end their group."""
    return isinstance(error, GROUP_IS_LOST) or not group.alive


def restarted(failure: AlchemistError) -> dict[str, Any]:
    """Return the info of a step that a failure has ended."""
    return {"simulator_restarted": True, "simulator_error": str(failure)}
