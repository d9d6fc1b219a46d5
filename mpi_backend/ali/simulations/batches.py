"""The tasks of batches: many simulations of one kind, stepped by one call.

Rank 0 returns the results; the other ranks return None, as tasks may.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.signatures import Signature, describe_function
from alchemist_ray.mpi_backend.ali.simulations.batch import Batch, TeamAnswer
from alchemist_ray.mpi_backend.ali.simulations.calls import spaces_of
from alchemist_ray.mpi_backend.ali.simulations.values import check_integers
from alchemist_ray.mpi_backend.ali.simulator import Simulator
from alchemist_ray.mpi_backend.matrices.agreement import Agreement


@dataclass(frozen=True)
class _KeptState:
    """A simulation's state, on one rank.

    Attributes
    ----------
    team, ranks_each : int
        The team whose simulation it was, and the number of its ranks.
    part : Any
        The part that the simulator has returned on this rank, if the rank is of that team.
    """

    team: int
    ranks_each: int
    part: Any


class Batches:
    """The batches of simulations of one kind in a session, and the tasks that drive them.

    Parameters
    ----------
    kind : type of Simulator
        What is simulated.
    create : callable
        The task that makes a single simulation, whose parameters are those of the simulations of a batch.
    """

    def __init__(self, kind: type[Simulator], create: Callable[..., int]) -> None:
        self._kind = kind
        self._create = create
        self._parameters: Signature | None = None
        self._batches: dict[int, Batch] = {}
        self._snapshots: dict[int, _KeptState] = {}
        self._numbers = itertools.count(1)

    def tasks(self) -> dict[str, Callable[..., Any]]:
        """Return the tasks by name."""
        own = (
            self.create_batch,
            self.advance_batch,
            self.get_batch_spaces,
            self.get_batch_fields,
            self.snapshot_batch,
            self.restore_batch,
            self.drop_batch_snapshots,
            self.close_batch,
        )
        return {function.__name__: function for function in own}

    def create_batch(
        self, ctx: TaskContext, count: int, ranks_each: int = 0, parameters: dict[str, Any] | None = None
    ) -> int:
        """Make many simulations with equal parameters; return the number of the batch.

        Parameters
        ----------
        count : int
            Number of simulations.
        ranks_each : int
            MPI ranks of each. By default the ranks are divided evenly, at least one for each; simulations that share
            ranks run one after the other.
        parameters : dict
            The parameters of the task `create`.

        Raises
        ------
        ArgumentError
            If the simulations have no such parameter (the nearest one is named), or it is of the wrong type.
        """
        given = self._checked(ctx, parameters or {})

        def make(own: TaskContext) -> Simulator:
            simulator = self._kind.__new__(self._kind)
            simulator.context = own
            simulator.__init__(own.comm, **given)  # type: ignore[misc]  # so that the constructor has the context
            return simulator

        batch = Batch(ctx, make, count, ranks_each)
        number = next(self._numbers)
        self._batches[number] = batch
        return number

    def _checked(self, ctx: TaskContext, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of the simulations as their constructor expects them."""
        if self._parameters is None:
            self._parameters = describe_function(self._kind.__name__, "create", self._create)
        for name in parameters:
            if not isinstance(name, str):
                raise ArgumentError(ctx.task, f"the names of parameters must be str, not {name!r}")
        signature = self._parameters
        signature.description.check_bound(ctx.task, parameters)
        return {name: signature.converted(name, value) for name, value in parameters.items()}

    def _find(self, ctx: TaskContext, batch: int) -> Batch:
        found = self._batches.get(batch)
        if found is None:
            known = ", ".join(map(str, self._batches)) or "none"
            raise ArgumentValueError(ctx.task, f"there is no batch {batch} (there is {known}): call create_batch")
        return found

    def advance_batch(
        self,
        ctx: TaskContext,
        batch: int,
        orders: bytes,
        actions: np.ndarray | None = None,
        seeds: list[Any] = [],  # noqa: B006 - never changed
    ) -> TeamAnswer | None:
        """Step some simulations of a batch, reset others, and leave others as they are.

        Parameters
        ----------
        batch : int
            The batch.
        orders : bytes
            One for each simulation, a sum of 1: step it; 2: then reset it; 4: then reset it if it has come to its end
            or has failed (:class:`~alchemist_ray.protocol.batches.BatchOrder`).
        actions : ndarray, shape (count, ...)
            One for each simulation; those of simulations that are not stepped are ignored.
        seeds : list of int or None
            For each simulation, for its reset; empty: None for all.

        Returns
        -------
        states : ndarray, shape (count, ...)
            The new states; the old state of a simulation that is left as it is.
        numbers : ndarray of float64, shape (count, 2 + number of names)
            The score of the last step, the outcome, and the info of the step. The outcome is a sum of 1: the simulation
            has come to its end; 2: it has failed, and must be reset; 4: it had come to its end or had failed, and was
            reset; 8: the info is that of this step (:class:`~alchemist_ray.protocol.batches.BatchOutcome`).
        names : list of str
            Of the info.
        notes : list of list
            Facts that have no place in the numbers: ``["state", i, state]``, the last state of the episode of
            simulation i that has ended and after which it was reset; ``["failure", i, call, error, fields]``;
            ``["info", i, info]``, an info whose names are not `names`.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If an order is unknown, a seed is not an integer or None, or an action is not made of real numbers or not in
            its space: nothing has happened then.
        """
        found = self._find(ctx, batch)
        found.advance(ctx, orders, actions, seeds)
        return found.whole()

    def advance_flat(
        self, ctx: TaskContext, batch: int, orders: bytes, octets: bytes, seeds: list[Any]
    ) -> TeamAnswer | None:
        """Do the same as :meth:`advance_batch`, with the components of the actions in one row of float64.

        The leader of each team returns the result for its simulations.
        """
        found = self._find(ctx, batch)
        found.advance(ctx, orders, found.arguments.shaped(ctx.task, octets), seeds)
        return found.own_part()

    def get_batch_spaces(self, ctx: TaskContext, batch: int) -> dict[str, Any] | None:
        """Return the result of `get_spaces` for one simulation, and ``ranks_each``: the number of ranks of each."""
        found = self._find(ctx, batch)
        first = found.simulators[0] if ctx.comm.rank == 0 else None
        return None if first is None else {**spaces_of(first), "ranks_each": found.teams.ranks_each}

    def get_batch_fields(
        self, ctx: TaskContext, batch: int, simulations: list[int] | None = None
    ) -> list[dict[str, Any] | None] | None:
        """Return the numbers of pictures of simulations (by default of all), as `get_field` does."""
        found = self._find(ctx, batch)
        return found.fields(ctx, _chosen(ctx, found, simulations))

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot_batch(self, ctx: TaskContext, batch: int, simulations: list[int] | None = None) -> list[int]:
        """Keep everything that is needed to continue simulations (by default all) bit for bit; return numbers."""
        found = self._find(ctx, batch)
        chosen = _chosen(ctx, found, simulations)
        parts = found.snapshot(ctx, chosen)
        numbers = []
        for simulation in chosen:
            numbers.append(next(self._numbers))
            team = found.teams.team_of(simulation)
            self._snapshots[numbers[-1]] = _KeptState(team, found.teams.ranks_each, parts.get(simulation))
        return numbers

    def restore_batch(
        self, ctx: TaskContext, batch: int, snapshots: list[int], simulations: list[int] | None = None
    ) -> TeamAnswer | None:
        """Continue simulations (by default all) from snapshots: one for each, or one for all.

        Returns
        -------
        states, numbers, names, notes
            As of `advance_batch`.
        """
        found = self._find(ctx, batch)
        chosen = _chosen(ctx, found, simulations)
        check_integers(ctx.task, "snapshots", snapshots)
        if len(snapshots) not in (1, len(chosen)):
            raise ArgumentValueError(
                ctx.task,
                f"there are {len(snapshots)} snapshots for {len(chosen)} simulations: give one for each or for all",
            )
        wanted = list(zip(chosen, itertools.cycle(snapshots), strict=False))
        for number in snapshots:
            self._check_snapshot(ctx, found, number)
        found.restore(ctx, self._bring(ctx, found, wanted))
        return found.whole()

    def _check_snapshot(self, ctx: TaskContext, batch: Batch, number: int) -> None:
        snapshot = self._snapshots.get(number)
        if snapshot is None:
            raise ArgumentValueError(
                ctx.task, f"there is no snapshot {number}: it was dropped, or belongs to another group"
            )
        if snapshot.ranks_each != batch.teams.ranks_each:
            raise ArgumentValueError(
                ctx.task,
                f"snapshot {number} is of a simulation on {snapshot.ranks_each} ranks, and these have "
                f"{batch.teams.ranks_each}",
            )

    def _bring(self, ctx: TaskContext, batch: Batch, wanted: Sequence[tuple[int, int]]) -> dict[int, Any]:
        """Return this rank's parts of snapshots for the simulations of its team, from other teams where necessary.

        Every rank goes through the moves in the same order, so a rank that waits for another never waits in a circle.
        """
        teams = batch.teams
        moves = dict.fromkeys(
            (number, team)
            for simulation, number in wanted
            if (team := teams.team_of(simulation)) != self._snapshots[number].team
        )
        with Agreement(ctx.comm):
            pickled = {
                number: pickle.dumps(self._snapshots[number].part)
                for number in {number for number, _ in moves}
                if self._snapshots[number].team == teams.number
            }
        parts: dict[int, Any] = {}
        for number, team in moves:
            self._move(ctx.comm, teams.ranks_each, self._snapshots[number].team, team, number, pickled, parts)
        return {
            simulation: parts[number] if number in parts else self._snapshots[number].part
            for simulation, number in wanted
            if simulation in teams.own
        }

    def _move(
        self,
        comm: MPI.Comm,
        ranks_each: int,
        source: int,
        target: int,
        number: int,
        pickled: dict[int, bytes],
        parts: dict[int, Any],
    ) -> None:
        """Copy the parts of a snapshot from one team to another, rank by rank."""
        team, place = divmod(comm.rank, ranks_each)
        if team == source:
            comm.send(pickled[number], dest=target * ranks_each + place)
        elif team == target:
            parts[number] = pickle.loads(comm.recv(source=source * ranks_each + place))  # noqa: S301 - of this MPI job

    def drop_batch_snapshots(self, ctx: TaskContext, snapshots: list[int]) -> None:
        """Drop snapshots of batches; a snapshot that is already gone is not an error."""
        check_integers(ctx.task, "snapshots", snapshots)
        for number in snapshots:
            self._snapshots.pop(number, None)

    def close_batch(self, ctx: TaskContext, batch: int) -> None:
        """End the simulations of a batch."""
        found = self._find(ctx, batch)
        del self._batches[batch]
        found.close(ctx)


def _chosen(ctx: TaskContext, batch: Batch, simulations: list[int] | None) -> list[int]:
    """Return which simulations are meant.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If a number is not an integer, the batch has no such simulation, or one is named twice.
    """
    if simulations is None:
        return list(range(batch.count))
    check_integers(ctx.task, "simulations", simulations)
    for simulation in simulations:
        if not 0 <= simulation < batch.count:
            raise ArgumentValueError(ctx.task, f"there is no simulation {simulation} in a batch of {batch.count}")
    if len(set(simulations)) < len(simulations):
        raise ArgumentValueError(ctx.task, f"a simulation is named twice in {simulations}")
    return simulations
