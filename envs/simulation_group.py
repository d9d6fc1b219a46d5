"""A worker group that has a simulation library loaded, and the simulations in it.

Environments that have come out of one another (``fork``) share a group; the last one to be closed gives it back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from alchemist_ray.client.libraries import Library
from alchemist_ray.client.session import AlchemistSession
from alchemist_ray.envs.settings import EnvSettings
from alchemist_ray.envs.spaces import Bounds
from alchemist_ray.errors import (
    AlchemistError,
    ArgumentError,
    ArgumentValueError,
    GroupDiedError,
    LibraryLoadError,
    NotConnectedError,
    NotEnoughWorkersError,
    NoWorkersError,
    TaskError,
)

CALLS = ("reset", "step", "get_state", "get_score")
"""The calls of the Alchemist-Library Interface that make a library a simulation."""

CLOSE_SECONDS = 5.0
"""How long a simulation may take to give back what it holds."""

GROUP_IS_LOST = (GroupDiedError, NoWorkersError, NotConnectedError)
"""Errors after which there is no group."""


class SimulationGroup:
    """A session, its workers, and the simulation library that they have loaded. Not thread-safe.

    Parameters
    ----------
    settings : EnvSettings
        Which server, how many workers, which library.

    Raises
    ------
    ServerUnreachableError, AuthenticationError, NotEnoughWorkersError, GroupStartError
        If there are no workers to be had.
    LibraryNotFoundError, LibraryRefusedError, LibraryLoadError
        If the library does not load, or is no simulation: each call that it lacks is named.
    """

    def __init__(self, settings: EnvSettings) -> None:
        self.settings = settings
        self.users = 1
        self.session = AlchemistSession(verbose=False, task_timeout=settings.reset_timeout)
        self._dropped: list[int] = []
        try:
            self.session.connect(settings.hostname, settings.port, settings.token)
            self.session.request_workers(settings.num_workers)
            self.library = self.session.load_library(settings.lib_name, settings.lib_path)
            _check_calls(self.library)
        except BaseException:
            self.session.stop()
            raise

    @property
    def alive(self) -> bool:
        """Whether the workers are there, as far as is known."""
        try:
            return self.session.has_workers()
        except AlchemistError:
            return False

    def create(self) -> int:
        """Make a simulation with the parameters of the settings; return its number.

        Raises
        ------
        ArgumentError
            If there is no such parameter; the nearest one is named.
        """
        number: int = self.library["create"](**self.settings.params)
        return number

    def spaces(self, simulation: int) -> tuple[Bounds, Bounds, tuple[str, ...]]:
        """Return the bounds of a simulation's actions and states, and what it can do beside the usual.

        Raises
        ------
        LibraryLoadError
            If the library does not say what an action is.
        """
        said = self.library["get_spaces"](simulation)
        return bounds_in(self.library.name, said, lambda: self.library["reset"](simulation, 0).shape)

    def step(self, simulation: int, action: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float, bool, dict[str, Any]]:
        """Advance a simulation by one step; return its state, its score, whether it has ended, and its info."""
        return self.session.step_simulation(self.library.name, simulation, action, self.settings.step_timeout)

    def drop_snapshot(self, snapshot: int) -> None:
        """Have the workers forget a snapshot, when they are next asked for something; called by garbage collectors."""
        self._dropped.append(snapshot)

    def free_dropped(self) -> None:
        """Have the workers forget the snapshots that nobody refers to any longer."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            self.library["drop_snapshots"](dropped)

    def release(self, simulation: int | None) -> None:
        """End a simulation for one who used the group; end the group if that was the last one."""
        self.users -= 1
        if simulation is not None and self.alive:
            with contextlib.suppress(AlchemistError):
                self.end(simulation)
        if self.users <= 0:
            self.session.stop()

    def end(self, simulation: int) -> None:
        """Have a simulation give back what it holds."""
        self.library.options(timeout=CLOSE_SECONDS)["close"](simulation)


def _check_calls(library: Library) -> None:
    """Raise unless a library is a simulation."""
    tasks = {task.name for task in library.description.tasks}
    missing = [name for name in CALLS if name not in tasks]
    if missing:
        raise LibraryLoadError(
            library.name, f"it is no simulation: it lacks {', '.join(missing)}. A simulation is a subclass of Simulator"
        )
    if "create" not in tasks:
        raise LibraryLoadError(library.name, "it has the calls of a simulation, but is no subclass of Simulator")


def bounds_in(
    library: str, said: dict[str, Any], shape: Callable[[], tuple[int, ...]]
) -> tuple[Bounds, Bounds, tuple[str, ...]]:
    """Return what a library says of its spaces; where it says nothing of its states, `shape` finds theirs out.

    Raises
    ------
    LibraryLoadError
        If the library does not say what an action is.
    """
    if said["action"] is None:
        raise LibraryLoadError(
            library, "its simulator declares no action_space, so no agent could know what to do: add one"
        )
    states = said["observation"]
    return (
        Bounds.of(said["action"]),
        Bounds.unbounded(shape()) if states is None else Bounds.of(states),
        tuple(said["can"]),
    )


def is_failure(error: BaseException) -> bool:
    """Whether an error is a failure of the simulation or its workers, rather than of who called it."""
    if isinstance(error, (ArgumentError, ArgumentValueError)):
        return False
    return isinstance(error, (*GROUP_IS_LOST, TaskError))


def is_lost(error: BaseException, group: SimulationGroup) -> bool:
    """Whether the workers are gone with an error. Ranks that did not come back from it have taken all with them."""
    return isinstance(error, GROUP_IS_LOST) or not group.alive


def with_patience(open_group: Callable[[], SimulationGroup], seconds: float) -> SimulationGroup:
    """Return the group that `open_group` opens; while the workers of the one that died are not free, try again.

    Raises
    ------
    NotEnoughWorkersError
        If they are not free after `seconds`.
    """
    end, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return open_group()
        except NotEnoughWorkersError:
            if time.monotonic() >= end:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
