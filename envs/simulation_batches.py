"""All simulations of a vector environment: a batch in each of its worker groups, called at the same time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from alchemist_ray.envs.batch_group import Advance
from alchemist_ray.envs.simulation_batch import SimulationBatch
from alchemist_ray.envs.snapshot import Snapshot
from alchemist_ray.envs.spaces import Bounds
from alchemist_ray.envs.vector_settings import VectorSettings

Array = npt.NDArray[Any]
T = TypeVar("T")

INTERRUPT_SECONDS = 2.0
"""How long an interrupt waits for the calls of several groups to stop before it ends the groups."""


class SimulationBatches:
    """The simulations of a vector environment, by worker group.

    Parameters
    ----------
    settings : VectorSettings
        Of the environment.

    Attributes
    ----------
    slices : list of slice
        The simulations of each group.
    """

    def __init__(self, settings: VectorSettings) -> None:
        self._batches = [SimulationBatch(settings, span) for span in settings.spans()]
        self._pool: ThreadPoolExecutor | None = None
        self.slices = [slice(span.start, span.stop) for span in settings.spans()]

    def __iter__(self) -> Iterator[SimulationBatch]:
        return iter(self._batches)

    def open(self) -> None:
        """Request the workers of all groups."""
        self._on_all([batch.open for batch in self._batches])

    def spaces(self) -> tuple[Bounds, Bounds]:
        """Return the bounds of the actions and of the states of one simulation."""
        self.open()
        return self._batches[0].open().spaces()

    def close(self) -> None:
        """Give the workers back."""
        for batch in self._batches:
            batch.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def advance(self, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> list[Advance]:
        """Step and reset simulations as :meth:`SimulationBatch.advance` does; return the result of each group."""
        if len(self._batches) == 1:
            return [self._batches[0].advance(orders, actions, seeds)]
        calls = [
            functools.partial(batch.advance, orders[span], None if actions is None else actions[span], seeds[span])
            for batch, span in zip(self._batches, self.slices, strict=True)
        ]
        return self._on_all(calls)

    def fields(self) -> list[dict[str, Any]]:
        """Return the numbers of the pictures of all simulations."""
        groups = [batch.open() for batch in self._batches]
        taken = self._on_all([functools.partial(group.library["get_batch_fields"], group.batch) for group in groups])
        return [field for of_group in taken for field in of_group]

    def snapshot(self, chosen: Sequence[int], make: Callable[[Any, int, int], Snapshot]) -> list[Snapshot]:
        """Keep the states of simulations; ``make(group, number, i)`` makes the handle for simulation i."""
        taken: dict[int, Snapshot] = {}
        for batch in self._batches:
            own = [i for i in chosen if i in batch.span]
            if own:
                group = batch.open()
                numbers = group.snapshot([i - batch.span.start for i in own])
                taken.update({i: make(group, number, i) for i, number in zip(own, numbers, strict=True)})
        return [taken[i] for i in chosen]

    def numbers_of(self, where: str, snapshots: Mapping[int, Snapshot]) -> dict[int, int]:
        """Return the numbers on the workers of the snapshots for some simulations.

        Raises
        ------
        ArgumentValueError
            If the group that runs a simulation cannot restore its snapshot.
        """
        return {
            i: snapshot.number_in(batch.group, where, f"the workers that run simulation {i}")
            for batch in self._batches
            for i, snapshot in snapshots.items()
            if i in batch.span
        }

    def restore(self, numbers: Mapping[int, int]) -> dict[int, Array]:
        """Continue simulations from the snapshots with these numbers; return their states."""
        states: dict[int, Array] = {}
        for batch in self._batches:
            own = [i for i in numbers if i in batch.span]
            if own:
                places = [i - batch.span.start for i in own]
                of_group = batch.restore([numbers[i] for i in own], places)
                states.update({i: np.asarray(of_group[place]) for i, place in zip(own, places, strict=True)})
        return states

    # --- all groups at once -------------------------------------------------------------------------------------------

    def _on_all(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Return the results of one call to each group, made at the same time; wait for all before one raises."""
        if len(self._batches) == 1:
            return [call() for call in calls]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(len(self._batches))
        futures = [self._pool.submit(call) for call in calls]
        try:
            failures = [failure for future in futures if (failure := future.exception()) is not None]
        except BaseException:
            self._stop(futures)
            raise
        if failures:
            raise failures[0]
        return [future.result() for future in futures]

    def _stop(self, futures: Sequence[Future[Any]]) -> None:
        """End the calls that an interrupt has left running, so that no thread of theirs meets the next call."""
        for batch in self._batches:
            batch.cancel()
        wait(futures, INTERRUPT_SECONDS)
        for batch, future in zip(self._batches, futures, strict=True):
            if not future.done():
                batch.abandon()
        wait(futures)
