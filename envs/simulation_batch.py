"""The simulations of a vector environment that one worker group runs, over the failures of the group.

Failures are reported by simulation. With ``on_failure="restart"`` lost workers are replaced here, so that the vector
environment sees failed simulations and never a lost group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.envs.batch_group import Advance, BatchGroup
from alchemist_ray.envs.simulation_group import GROUP_IS_LOST, PATIENCE_SECONDS, is_failure, is_lost
from alchemist_ray.envs.vector_settings import VectorSettings
from alchemist_ray.errors import AlchemistError, from_wire
from alchemist_ray.protocol.batches import INFO, BatchNote, BatchOrder

Array = npt.NDArray[Any]

LEAVE, STEP, RESET, RESET_ENDED = map(
    int, (BatchOrder.LEAVE, BatchOrder.STEP, BatchOrder.RESET, BatchOrder.RESET_ENDED)
)


class SimulationBatch:
    """The simulations of a vector environment that share a worker group, with new workers when the old ones are gone.

    Parameters
    ----------
    settings : VectorSettings
        Of the environment.
    span : range
        The numbers of these simulations in the environment; here they are numbered from 0.
    """

    def __init__(self, settings: VectorSettings, span: range) -> None:
        self.settings = settings
        self.span = span
        self.group: BatchGroup | None = None
        self._streak = [0] * len(span)  # failures of each since its last step that succeeded
        self._interrupted = False  # whether an exception that is not ours has left a call
        self._lost: dict[int, AlchemistError] = {}  # simulations that were lost with their workers and not yet reset

    def open(self, wait: float = 0.0) -> BatchGroup:
        """Return the group; request workers if there are none, and wait for them up to so many seconds."""
        if self.group is None:
            self.group = BatchGroup(self.settings, len(self.span), wait)
        return self.group

    def close(self) -> None:
        """Give the workers back."""
        group, self.group = self.group, None
        if group is not None:
            group.release(group.batch)

    def cancel(self) -> None:
        """Ask the call that runs in another thread to stop; do not wait for it."""
        if self.group is not None:
            self.group.session.cancel()

    def abandon(self) -> None:
        """End the workers together with the call that runs in another thread."""
        group, self.group = self.group, None
        if group is not None:
            group.session.stop()

    def restore(self, snapshots: list[int], places: list[int]) -> Array:
        """Continue simulations from snapshots of this group; return the states of all simulations.

        Raises
        ------
        AlchemistError
            The first failure of a simulation.
        """
        states = self.open().restore(snapshots, places)
        for place in places:
            self._lost.pop(place, None)
        return states

    # --- a step -------------------------------------------------------------------------------------------------------

    def advance(self, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> Advance:
        """Step and reset simulations; `orders` has a :class:`BatchOrder` for each.

        With ``on_failure="restart"`` resets that fail are tried again, with new workers if the old ones are gone.

        Raises
        ------
        AlchemistError
            The failure of a simulation or its workers, unless ``on_failure="restart"`` and there have not been too many
            failures in a row.
        """
        if self._lost:
            return self._advance_survivors(orders, actions, seeds)
        try:
            reply = self.open().advance(orders, actions, seeds)
        except AlchemistError as failure:
            if self._interrupted and isinstance(failure, GROUP_IS_LOST):
                self._interrupted = False  # the interrupt had left a connection in the middle of a message
                self.close()
                return self.advance(orders, actions, seeds)
            return self._recover(failure, orders, seeds)
        except BaseException:
            self._interrupted = True
            raise
        self._interrupted = False
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
        for kind, place, *rest in notes:
            if kind == BatchNote.LAST_STATE:
                advance.last_states[place] = rest[0]
            elif kind == BatchNote.OTHER_INFO:
                advance.infos[place] = rest[0]
            else:
                call, name, fields = rest
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
        """Set the count of failures to 0 for the simulations whose step has succeeded."""
        for place in set(_places(orders, STEP)).difference(failures):
            self._streak[place] = 0

    def _take(self, failure: AlchemistError, places: Iterable[int]) -> None:
        """Count a failure of some simulations; raise it if it is not to be survived."""
        for place in places:
            self._streak[place] += 1
        too_many = max(self._streak) > self.settings.max_restarts
        if self.settings.on_failure != "restart" or too_many or not is_failure(failure):
            raise failure

    def _recover(self, failure: AlchemistError, orders: bytes, seeds: Sequence[int | None]) -> Advance:
        """Go on after a failure of all simulations: carry out the resets, with new workers if the old ones are gone."""
        if is_failure(failure) and self.group is not None and is_lost(failure, self.group):
            self.close()
        everybody = range(len(orders))
        self._take(failure, everybody)
        self._lost = dict.fromkeys(everybody, failure)
        return self._advance_survivors(orders, None, seeds)

    def _advance_survivors(self, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> Advance:
        """Step the simulations that are not lost; of those that are lost, reset the ones whose orders say so."""
        failures = {place: self._lost[place] for place in _places(orders, STEP) if place in self._lost}
        left = bytearray(orders)
        for place in self._lost:
            left[place] = RESET if orders[place] & (RESET | RESET_ENDED) else LEAVE
        if not any(left):
            return Advance(None, np.zeros((len(orders), INFO)), failures=failures)
        if self.group is None:
            self.open(PATIENCE_SECONDS)
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
