"""Many simulations of one kind, each on a part of the group's ranks, advanced by one call.

Each team (:mod:`.teams`) runs its simulations one after the other; all teams run at the same time. A failure of one
simulation is caught here: the ranks of its team agree on it, the simulation must be reset before its next step, and the
caller is told which simulation it was and why. No other simulation notices.

States and scores go into arrays that are kept (:mod:`.batch_records`), which every leader sends to the client itself.
Where a simulation has one rank, a step of the whole batch needs no MPI, and no rank waits for another.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import (
    AlchemistError,
    ArgumentValueError,
    PeerFailedError,
    StateMisfitError,
)
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.simulations.batch_arguments import BatchArguments, BoxBounds
from alchemist_ray.mpi_backend.ali.simulations.batch_records import Note, Records, as_typed, failure_note
from alchemist_ray.mpi_backend.ali.simulations.teams import Teams
from alchemist_ray.mpi_backend.ali.simulations.values import (
    are_numbers,
    as_flag,
    as_score,
    as_state,
    check_score,
    check_state,
    field_of,
)
from alchemist_ray.mpi_backend.ali.simulator import Box, Simulator
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.protocol.batches import INFO, OUTCOME, SCORE, BatchNote, BatchOrder, BatchOutcome

Array = npt.NDArray[Any]

STEP, RESET, RESET_ENDED = int(BatchOrder.STEP), int(BatchOrder.RESET), int(BatchOrder.RESET_ENDED)
FINISHED, FAILED, ENDED, INFORMED = map(
    int, (BatchOutcome.FINISHED, BatchOutcome.FAILED, BatchOutcome.ENDED, BatchOutcome.INFORMED)
)
LAST_STATE, OTHER_INFO = BatchNote.LAST_STATE.value, BatchNote.OTHER_INFO.value

TeamAnswer = tuple[Array | None, Array, list[str], list[Note]]
"""States, numbers, names of the info and notes: the result of a step."""

_Result = tuple[int, Array, float | None, Mapping[str, Any] | None]
"""Place, state, score and info from the calls of a simulator; after a reset without score and info."""


class Batch:
    """Simulations on the teams of a group. Every method is collective over the group, unless it says otherwise.

    Parameters
    ----------
    ctx : TaskContext
        Of the task that makes it.
    make : callable
        Makes a simulator from a context, whose communicator is the simulation's own.
    count, ranks_each : int
        Number of simulations, and of the ranks of each (0: an equal share of all ranks).

    Attributes
    ----------
    teams : Teams
        How the ranks are divided.
    arguments : BatchArguments
        The check of the arguments of a step, on ranks that have simulations.
    simulators : list of Simulator
        Those of this rank's team; a *place* is an index into them.

    Raises
    ------
    ArgumentValueError
        If the numbers make no sense.
    Exception
        The exception of making a simulator; on ranks without an exception, PeerFailedError.
    """

    def __init__(self, ctx: TaskContext, make: Callable[[TaskContext], Simulator], count: int, ranks_each: int) -> None:
        self.count = count
        self.teams = Teams(ctx.comm, ctx.task, count, ranks_each)
        self._own = self.teams.own
        team = self.teams.comm
        self._comms = [team.Dup() if self.teams.ranks_each > 1 else team for _ in self._own]
        self.simulators: list[Simulator] = []
        try:
            with Agreement(ctx.comm):
                for comm in self._comms:
                    self.simulators.append(make(dataclasses.replace(ctx, comm=comm)))
        except BaseException:
            self.close(ctx)
            raise
        first = self.simulators[0] if self._own else None
        self.arguments = BatchArguments(count, first.action_space if first else None)
        self._observations = BoxBounds(first.observation_space if first and first.observation_space else _ANYTHING)
        self._ready = bytearray(len(self._own))
        self._flags = np.zeros((2, len(self._own)), np.int8)
        self._failed, self._ended = self._flags
        self._outcomes = [0] * len(self._own)
        self._errors: dict[int, BaseException] = {}
        self._results: list[_Result] = []
        self._notes: list[Note] = []
        self._records: Records | None = None
        self._names_are_known = False

    def close(self, ctx: TaskContext) -> None:
        """End the simulations and free the communicators; raise the first exception of that at the end."""
        failures: list[BaseException] = []
        for simulator in self.simulators:
            try:
                simulator.close()
            except BaseException as failure:  # noqa: BLE001 - the library's own code
                failures.append(failure)
        if self.teams.ranks_each > 1:
            for comm in self._comms:
                comm.Free()
        self.teams.free()
        if failures:
            raise failures[0]

    def enter(self, ctx: TaskContext) -> None:
        """Give the simulators of this rank the context of a task. Local."""
        if self.teams.ranks_each == 1 and self.simulators:
            own = dataclasses.replace(ctx, comm=self.teams.comm)
            for simulator in self.simulators:
                simulator.context = own
            return
        for simulator, comm in zip(self.simulators, self._comms, strict=True):
            simulator.context = dataclasses.replace(ctx, comm=comm)

    # --- a step -------------------------------------------------------------------------------------------------------

    def advance(self, ctx: TaskContext, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> None:
        """Step and reset simulations as `orders` say; see :meth:`.batches.Batches.advance_batch`."""
        if not self._own:
            return
        self.arguments.check(ctx.task, orders, actions, seeds)
        self._begin(ctx)
        start = self._own.start
        own_orders = orders[start : self._own.stop]
        if any(order & STEP for order in orders):
            for place, order in enumerate(own_orders):
                if order & STEP:
                    self._attempt(place, self._step, ctx.task, None if actions is None else actions[start + place])
            self._record(ctx, stepping=True)
            self._agree(ctx, "step")
        resets = [
            place
            for place, order in enumerate(own_orders)
            if order & RESET or (order & RESET_ENDED and (self._ended[place] or self._failed[place]))
        ]
        if resets:
            self._flags[...] = 0
        for place in resets:
            self._keep_last_state(place, own_orders[place])
            self._attempt(place, self._reset, ctx.task, seeds[start + place] if seeds else None)
        if resets or self._records is None:
            self._record(ctx, stepping=False)
        if resets:
            self._agree(ctx, "reset")

    def restore(self, ctx: TaskContext, parts: Mapping[int, Any]) -> None:
        """Continue simulations from the parts of snapshots that belong to this rank.

        `parts` has the same simulations on every rank of a team.
        """
        if not self._own:
            return
        self._begin(ctx)
        for simulation, part in parts.items():
            self._attempt(simulation - self._own.start, self._restore, ctx.task, part)
        self._record(ctx, stepping=False)
        self._agree(ctx, "restore")

    def _begin(self, ctx: TaskContext) -> None:
        self.enter(ctx)
        self._flags[...] = 0
        self._outcomes = [0] * len(self._own)
        self._notes = []

    def _attempt(self, place: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call something for one simulation; note its failure. Collective over the simulation's ranks."""
        try:
            call(place, *arguments)
        except BaseException as failure:  # noqa: BLE001 - the library's own code
            self._errors[place] = failure
            self._failed[place] = 1

    def _step(self, place: int, task: str, action: Array) -> None:
        simulator = self.simulators[place]
        if not self._ready[place]:
            raise ArgumentValueError(task, f"simulation {self._own[place]} has not been reset: reset it first")
        simulator.step(action)
        state, score = simulator.get_state(), simulator.get_score()
        finished, info = simulator.is_finished(), simulator.get_info()
        if not self.teams.leads:
            return
        self._results.append((place, as_state(task, state), as_score(task, score), info))
        if as_flag(task, finished):
            self._ended[place] = 1
            self._outcomes[place] = FINISHED

    def _reset(self, place: int, task: str, seed: int | None) -> None:
        self._ready[place] = 0
        self.simulators[place].reset(seed)
        self._take_first_state(place, task)

    def _restore(self, place: int, task: str, part: Any) -> None:
        self.simulators[place].restore(part)
        self._take_first_state(place, task)

    def _take_first_state(self, place: int, task: str) -> None:
        state = self.simulators[place].get_state()
        if self.teams.leads:
            self._results.append((place, as_state(task, state), None, None))
        self._ready[place] = 1

    def _keep_last_state(self, place: int, order: int) -> None:
        """Note the state in which an episode has ended, before the next one takes its place. Local."""
        if not order & STEP or not self.teams.leads:
            return
        if self._records is not None and not self._outcomes[place] & FAILED:
            self._notes.append([LAST_STATE, self._own[place], self._records.states[place].copy()])
        self._outcomes[place] |= ENDED

    def _agree(self, ctx: TaskContext, stage: str) -> None:
        """Tell all ranks of each team which simulations have ended or failed. Collective over the team."""
        if self.teams.ranks_each > 1:
            self.teams.any_of(self._flags)
            if self._failed.any():
                self._errors = self._of_team(self._errors)
        for place, failure in self._errors.items():
            self._ready[place] = 0
            self._outcomes[place] = self._outcomes[place] & ENDED | FAILED
            self._notes.append(failure_note(ctx, self._own[place], stage, failure))
        self._errors = {}

    def _of_team(self, errors: dict[int, BaseException]) -> dict[int, BaseException]:
        """Return, for each simulation that has failed, the first error that is its cause. Collective over the team."""
        told = {place: failure for place, failure in errors.items() if not isinstance(failure, PeerFailedError)}
        speakable = {place: as_typed("a simulation", failure) for place, failure in told.items()}
        found: dict[int, BaseException] = {}
        for of_rank in self.teams.comm.allgather(speakable):
            found = {**of_rank, **found}
        return {**errors, **found}

    # --- states and scores --------------------------------------------------------------------------------------------

    def _record(self, ctx: TaskContext, *, stepping: bool) -> None:
        """Put the results of the simulators into the records, if they fit. Collective over the leaders."""
        if not self.teams.leads:
            return
        results, self._results = self._results, []
        if self._records is None or (stepping and not self._names_are_known):
            self._agree_on_layout(results)
        records = self._records
        if records is None or not results:
            return
        for place, state, score, info in results:
            if not records.fits(state):
                self._refuse(place, StateMisfitError(ctx.task, records.misfit(state)))
                continue
            records.states[place] = state
            if score is not None:
                records.numbers[place, SCORE] = score
                if info or records.names:
                    self._write_info(records, place, info or {})
                else:
                    self._outcomes[place] |= INFORMED
        self._check_records(ctx, records, results)

    def _write_info(self, records: Records, place: int, info: Mapping[str, Any]) -> None:
        if tuple(info) == records.names and are_numbers(info):
            records.numbers[place, INFO:] = list(info.values())
            self._outcomes[place] |= INFORMED
        elif info:
            self._notes.append([OTHER_INFO, self._own[place], dict(info)])

    def _check_records(self, ctx: TaskContext, records: Records, results: Sequence[_Result]) -> None:
        """Check the new states and scores, all at once; if one is wrong, find out which."""
        scores = records.numbers[:, SCORE]
        if self._observations.hold(records.states) and math.isfinite(scores.sum()):
            return
        for place, _, score, _ in results:
            try:
                if place not in self._errors:
                    check_state(ctx.task, self.simulators[place], records.states[place])
                    check_score(ctx.task, score or 0.0)
            except AlchemistError as misfit:
                self._refuse(place, misfit)

    def _refuse(self, place: int, misfit: AlchemistError) -> None:
        self._errors.setdefault(place, misfit)
        self._failed[place] = 1

    def _agree_on_layout(self, results: Sequence[_Result]) -> None:
        """Agree on the shape and type of states, and on the names of the infos. Collective over the leaders."""
        own = None
        if results:
            _, state, score, info = results[0]
            names = None if score is None else list(info) if info and are_numbers(info) else []
            own = list(state.shape), state.dtype.str, names
        given = [of_team for of_team in self.teams.leaders.allgather(own) if of_team is not None]
        if not given:
            return
        names = next((names for _, _, names in given if names is not None), None)
        if self._records is None or names:
            shape, dtype, _ = given[0]
            earlier = self._records
            self._records = (
                earlier.named(names or ()) if earlier else Records(len(self._own), shape, dtype, names or ())
            )
        self._names_are_known = names is not None

    def own_part(self) -> TeamAnswer | None:
        """Return the result of the last call for this team's simulations, on its leader; None elsewhere. Local."""
        if not self.teams.leads:
            return None
        records = self._records
        if records is None:
            numbers = np.zeros((len(self._own), INFO))
            numbers[:, OUTCOME] = self._outcomes
            return None, numbers, [], self._notes
        records.numbers[:, OUTCOME] = self._outcomes
        return records.states, records.numbers, list(records.names), self._notes

    def whole(self) -> TeamAnswer | None:
        """Return the result of the last call for all simulations, on rank 0; None elsewhere."""
        own = self.own_part()
        parts = None if own is None else self.teams.collect(list(own))
        if parts is None:
            return None
        states, numbers, names, notes = zip(*parts, strict=True)
        every_state = None if states[0] is None else np.concatenate(states)
        return every_state, np.concatenate(numbers), names[0], [note for of_team in notes for note in of_team]

    # --- pictures, snapshots ------------------------------------------------------------------------------------------

    def snapshot(self, ctx: TaskContext, simulations: Sequence[int]) -> dict[int, Any]:
        """Return this rank's parts of the snapshots of some simulations.

        Raises
        ------
        Exception
            The exception of a simulator; on ranks without an exception, PeerFailedError.
        """
        self.enter(ctx)
        with Agreement(ctx.comm):
            return {
                simulation: self._able(ctx, simulation, "snapshot").snapshot()
                for simulation in simulations
                if simulation in self._own
            }

    def fields(self, ctx: TaskContext, simulations: Sequence[int]) -> list[dict[str, Any] | None] | None:
        """Return pictures of some simulations, as plain values, on rank 0; None elsewhere."""
        self.enter(ctx)
        taken: list[Any] = []
        with Agreement(ctx.comm):
            for simulation in simulations:
                if simulation in self._own:
                    simulator = self._able(ctx, simulation, "field")
                    taken.append([simulation, field_of(ctx.task, simulator, self.teams.comm.rank)])
        collected = self.teams.collect(taken)
        if collected is None:
            return None
        by_number = dict(pair for of_team in collected for pair in of_team)
        return [by_number[simulation] for simulation in simulations]

    def _able(self, ctx: TaskContext, simulation: int, ability: str) -> Simulator:
        place = simulation - self._own.start
        simulator = self.simulators[place]
        if not self._ready[place]:
            raise ArgumentValueError(ctx.task, f"simulation {simulation} has not been reset: reset it first")
        if ability not in simulator.abilities():
            raise ArgumentValueError(ctx.task, f"{type(simulator).__name__} does not implement it")
        return simulator


_ANYTHING = Box(-np.inf, np.inf)
