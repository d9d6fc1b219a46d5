"""The part of a vector environment that one worker group simulates: a batch of simulations, and what becomes of them.

What fails is reported by simulation. With ``on_failure="restart"`` workers that are gone are replaced here, so that
whoever steps the batch sees simulations that have failed, and never a group that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.envs.simulation_group import (
    CLOSE_SECONDS,
    SimulationGroup,
    bounds_in,
    is_failure,
    is_lost,
    with_patience,
)
from alchemist_ray.envs.spaces import Bounds
from alchemist_ray.envs.vector_settings import VectorSettings
from alchemist_ray.errors import AlchemistError, from_wire

Array = npt.NDArray[Any]
Reply = tuple[Array | None, Array, list[str], list[list[Any]]]

LEAVE, STEP, RESET, RESET_ENDED = 0, 1, 2, 4
"""Orders to a simulation, in bits, as the library's task ``advance_batch`` takes them: step; then reset; then reset if
the simulation has come to its end or has failed."""

FINISHED, FAILED, INFORMED = 1, 2, 8
"""What became of a simulation, in bits, as that task tells: it has ended; it has failed; its info is there."""

SCORE, OUTCOME, INFO = 0, 1, 2
"""Columns of the numbers that it returns; from the last on, the info."""

PATIENCE_SECONDS = 15.0
"""How long workers are asked for anew after a group has died: the server takes a moment to find its slots free."""


class BatchGroup(SimulationGroup):
    """A worker group with a batch of simulations in it.

    Parameters
    ----------
    settings : VectorSettings
        Which server, how many workers, which library.
    count : int
        Number of simulations.
    """

    def __init__(self, settings: VectorSettings, count: int) -> None:
        super().__init__(settings)
        self.count = count
        try:
            self.batch: int = self.library["create_batch"](
                count, settings.workers_per_simulation or 0, dict(settings.params)
            )
        except BaseException:
            self.session.stop()
            raise

    def spaces(self, simulation: int = 0) -> tuple[Bounds, Bounds, tuple[str, ...]]:
        """Return the bounds of the actions and states, and what the simulations can do beside the usual.

        Raises
        ------
        LibraryLoadError
            If the library does not say what an action is.
        """
        said = self.library["get_batch_spaces"](self.batch)
        everybody = bytes([RESET]) * self.count
        return bounds_in(
            self.library.name, said, lambda: self.library["advance_batch"](self.batch, everybody)[0].shape[1:]
        )

    def advance(self, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> Reply:
        """Run the task ``advance_batch``, with the time that the settings allow for it."""
        resets = any(order & RESET for order in orders)
        seconds = self.settings.reset_timeout if resets else self.settings.step_timeout
        return self.session.advance_batch(self.library.name, self.batch, orders, actions, seeds, seconds)

    def end(self, simulation: int) -> None:
        """Have all simulations give back what they hold."""
        self.library.options(timeout=CLOSE_SECONDS)["close_batch"](simulation)

    def free_dropped(self) -> None:
        """Have the workers forget the snapshots that nobody refers to any longer."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            self.library["drop_batch_snapshots"](dropped)


@dataclass
class Advance:
    """What has become of the simulations of a batch.

    Attributes
    ----------
    states : ndarray, shape (n, ...), or None
        Valid where a simulation was stepped or reset without a failure; None: nowhere.
    numbers : ndarray of float64, shape (n, 2 + number of names)
        Scores, outcomes, info.
    names : sequence of str
        Of the info.
    last_states : dict
        Of simulations that were reset after their episode had ended: the state before.
    infos : dict
        Infos that have other names.
    failures : dict
        Of simulations whose step has failed, or that were lost with their workers: the error.
    """

    states: Array | None
    numbers: Array
    names: Sequence[str] = ()
    last_states: dict[int, Array] = field(default_factory=dict)
    infos: dict[int, dict[str, Any]] = field(default_factory=dict)
    failures: dict[int, AlchemistError] = field(default_factory=dict)

    def info_of(self, place: int) -> dict[str, Any]:
        """Return the info of a simulation, or why its step has failed."""
        failure = self.failures.get(place)
        if failure is not None:
            return {"simulator_restarted": True, "simulator_error": str(failure)}
        if place in self.infos:
            return self.infos[place]
        if not int(self.numbers[place, OUTCOME]) & INFORMED:
            return {}
        return dict(zip(self.names, self.numbers[place, INFO:].tolist(), strict=True))


class SimulationBatch:
    """The simulations of a vector environment that share a worker group, with new workers when those are gone.

    Parameters
    ----------
    settings : VectorSettings
        Of the environment.
    span : range
        Which of its simulations these are; they are numbered from 0 here.
    """

    def __init__(self, settings: VectorSettings, span: range) -> None:
        self.settings = settings
        self.span = span
        self.group: BatchGroup | None = None
        self._streak = [0] * len(span)  # failures of each since its last step that succeeded
        self._lost: dict[int, AlchemistError] = {}  # simulations that went with their workers, until they are reset

    def open(self) -> BatchGroup:
        """Return the group; ask for workers if there are none."""
        if self.group is None:
            self.group = BatchGroup(self.settings, len(self.span))
        return self.group

    def close(self) -> None:
        """Give the workers back."""
        group, self.group = self.group, None
        if group is not None:
            group.release(group.batch)

    def restore(self, snapshots: list[int], places: list[int]) -> Array:
        """Have simulations continue from snapshots of this group; return the states of all.

        Raises
        ------
        AlchemistError
            What the first that fails in it fails with.
        """
        group = self.open()
        states, _, _, notes = group.library["restore_batch"](group.batch, snapshots, places)
        for _, _, _, name, fields in (note for note in notes if note[0] == "failure"):
            raise from_wire(name, fields)
        for place in places:
            self._lost.pop(place, None)
        return np.asarray(states)

    # --- a step -------------------------------------------------------------------------------------------------------

    def advance(self, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> Advance:
        """Step and reset simulations; see :attr:`STEP`.

        Resets that fail are tried again with ``on_failure="restart"``, with new workers if the old ones are gone.

        Raises
        ------
        AlchemistError
            What a simulation or its workers fail with, unless ``on_failure="restart"`` and there have not been too many
            failures in a row.
        """
        if self._lost:
            return self._advance_survivors(orders, actions, seeds)
        try:
            reply = self.open().advance(orders, actions, seeds)
        except AlchemistError as failure:
            return self._begin_anew(failure, orders, seeds)
        advance = Advance(*reply[:3])
        if reply[3]:
            return self._read_notes(advance, reply[3], orders, seeds)
        if any(self._streak):
            self._forgive(orders, ())
        return advance

    def _read_notes(
        self, advance: Advance, notes: Iterable[list[Any]], orders: bytes, seeds: Sequence[int | None]
    ) -> Advance:
        unsuccessful = bytearray(len(orders))
        for kind, place, *said in notes:
            if kind == "state":
                advance.last_states[place] = said[0]
            elif kind == "info":
                advance.infos[place] = said[0]
            else:
                call, name, fields = said
                failure = from_wire(name, fields)
                failure.add_note(f"This was simulation {self.span[place]} of {self.settings.num_envs}.")
                self._take(failure, [place])
                if call == "step":
                    advance.failures[place] = failure
                else:
                    unsuccessful[place] = RESET
        self._forgive(orders, advance.failures)
        if any(unsuccessful):
            again = self.advance(bytes(unsuccessful), None, seeds)
            if advance.states is None or again.states is None:
                advance.states = again.states
            else:
                places = _places(unsuccessful, RESET)
                advance.states = advance.states.copy()
                advance.states[places] = again.states[places]
        return advance

    def _forgive(self, orders: bytes, failures: Iterable[int]) -> None:
        """Begin to count anew for those whose step has succeeded."""
        for place in set(_places(orders, STEP)).difference(failures):
            self._streak[place] = 0

    def _take(self, failure: AlchemistError, places: Iterable[int]) -> None:
        """Count a failure of some simulations, or raise it."""
        for place in places:
            self._streak[place] += 1
        too_many = max(self._streak) > self.settings.max_restarts
        if self.settings.on_failure != "restart" or too_many or not is_failure(failure):
            raise failure

    def _begin_anew(self, failure: AlchemistError, orders: bytes, seeds: Sequence[int | None]) -> Advance:
        """Go on after a failure of all simulations: reset those that are to be, with new workers if need be."""
        if is_failure(failure) and self.group is not None and is_lost(failure, self.group):
            self.close()
        everybody = range(len(orders))
        self._take(failure, everybody)
        self._lost = dict.fromkeys(everybody, failure)
        return self._advance_survivors(orders, None, seeds)

    def _advance_survivors(self, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> Advance:
        """Step those that are not lost; reset, of those that are, those that may be."""
        failures = {place: self._lost[place] for place in _places(orders, STEP) if place in self._lost}
        left = bytearray(orders)
        for place in self._lost:
            left[place] = RESET if orders[place] & (RESET | RESET_ENDED) else LEAVE
        if not any(left):
            return Advance(None, np.zeros((len(orders), INFO)), failures=failures)
        if self.group is None:
            with_patience(self.open, PATIENCE_SECONDS)
        lost, self._lost = self._lost, {}
        try:
            advance = self.advance(bytes(left), actions, seeds)
        except BaseException:
            self._lost = lost
            raise
        self._lost.update((place, error) for place, error in lost.items() if left[place] == LEAVE)
        for place, error in failures.items():
            advance.failures.setdefault(place, error)
        return advance


def _places(orders: bytes | bytearray, bit: int) -> list[int]:
    return [place for place, order in enumerate(orders) if order & bit]
