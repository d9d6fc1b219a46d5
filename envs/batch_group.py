"""A worker group with a batch of simulations in it: the part of a vector environment that one group runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.envs.simulation_group import CLOSE_SECONDS, SimulationGroup, bounds_in, restarted
from alchemist_ray.envs.spaces import Bounds
from alchemist_ray.envs.vector_settings import VectorSettings
from alchemist_ray.errors import AlchemistError, from_wire
from alchemist_ray.protocol.batches import INFO, OUTCOME, BatchNote, BatchOrder, BatchOutcome

Array = npt.NDArray[Any]
Reply = tuple[Array | None, Array, list[str], list[list[Any]]]

_RESET, _INFORMED = int(BatchOrder.RESET), int(BatchOutcome.INFORMED)


class BatchGroup(SimulationGroup):
    """A worker group with a batch of simulations in it.

    Parameters
    ----------
    settings : VectorSettings
        The server, the number of workers, the library.
    count : int
        Number of simulations.
    """

    def __init__(self, settings: VectorSettings, count: int, wait: float = 0.0) -> None:
        super().__init__(settings, wait)
        self.count = count
        try:
            self.batch: int = self.library["create_batch"](
                count, settings.workers_per_simulation or 0, dict(settings.params)
            )
        except BaseException:
            self.end_session()
            raise

    def spaces(self, simulation: int = 0) -> tuple[Bounds, Bounds]:
        """Return the bounds of the actions and of the states.

        Raises
        ------
        LibraryLoadError
            If the library declares no space of actions.
        """
        described = self.library["get_batch_spaces"](self.batch)
        resets = bytes([_RESET]) * self.count
        return bounds_in(
            self.library.name, described, lambda: self.library["advance_batch"](self.batch, resets)[0].shape[1:]
        )

    def advance(self, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> Reply:
        """Run the task ``advance_batch``, with the time limit of the settings."""
        resets = any(order & _RESET for order in orders)
        seconds = self.settings.reset_timeout if resets else self.settings.step_timeout
        return self.simulations.advance_batch(self.settings.lib_name, self.batch, orders, actions, seeds, seconds)

    def snapshot(self, places: list[int]) -> list[int]:
        """Keep the states of simulations; return the numbers of the snapshots."""
        self.free_dropped()
        numbers: list[int] = self.library["snapshot_batch"](self.batch, places)
        return numbers

    def restore(self, snapshots: list[int], places: list[int]) -> Array:
        """Continue simulations from snapshots of this group; return the states of all simulations.

        Raises
        ------
        AlchemistError
            The first failure of a simulation.
        """
        states, _, _, notes = self.library["restore_batch"](self.batch, snapshots, places)
        for _, _, _, name, fields in (note for note in notes if note[0] == BatchNote.FAILURE):
            raise from_wire(name, fields)
        return np.asarray(states)

    def end(self, simulation: int) -> None:
        """Have all simulations release their resources."""
        self.library.options(timeout=CLOSE_SECONDS)["close_batch"](simulation)

    def free_dropped(self) -> None:
        """Drop the snapshots on the workers that nothing refers to any longer."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            self.library["drop_batch_snapshots"](dropped)


@dataclass
class Advance:
    """The state of the simulations of a batch after a step or a reset.

    Attributes
    ----------
    states : ndarray, shape (n, ...), or None
        Valid where a simulation was stepped or reset without a failure; None: nowhere.
    numbers : ndarray of float64, shape (n, 2 + number of names)
        Scores, outcomes, info; see :mod:`~alchemist_ray.protocol.batches`.
    names : sequence of str
        Of the info.
    last_states : dict
        By simulation: the last state of an episode after which it was reset.
    infos : dict
        By simulation: an info that has other names.
    failures : dict
        By simulation: the error that its step has failed with, or that its workers were lost with.
    """

    states: Array | None
    numbers: Array
    names: Sequence[str] = ()
    last_states: dict[int, Array] = field(default_factory=dict)
    infos: dict[int, dict[str, Any]] = field(default_factory=dict)
    failures: dict[int, AlchemistError] = field(default_factory=dict)

    def info_of(self, place: int) -> dict[str, Any]:
        """Return the info of a simulation, or the reason why its step has failed."""
        failure = self.failures.get(place)
        if failure is not None:
            return restarted(failure)
        if place in self.infos:
            return self.infos[place]
        if not int(self.numbers[place, OUTCOME]) & _INFORMED:
            return {}
        return dict(zip(self.names, self.numbers[place, INFO:].tolist(), strict=True))
