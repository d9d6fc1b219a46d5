"""The states, scores and infos of a team's simulations, in arrays with a row for each simulation.

The leaders agree on the layout (shape and type of a state, names of the info) when they have the first states and
infos; then it stays. The rows of all teams, one after the other, are those of the batch. An error, the last state of an
episode that has ended, or an info with other names does not fit into a row, and goes into a *note*
(:class:`~alchemist_ray.protocol.batches.BatchNote`).
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import AlchemistError, RemoteTaskError, to_wire
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.protocol.batches import INFO, SCORE, BatchNote

Array = npt.NDArray[Any]
Note = list[Any]


class Records:
    """The rows of a team's simulations.

    Attributes
    ----------
    states : ndarray, shape (n, ...)
        The states that the agents see.
    numbers : ndarray of float64, shape (n, 2 + number of names)
        Scores, outcomes, info, in the columns that the protocol names.
    names : tuple of str
        Of the info.
    """

    def __init__(self, n: int, shape: Sequence[int], dtype: str, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.states = np.zeros((n, *shape), dtype)
        self._shape, self._dtype = self.states.shape[1:], self.states.dtype
        self.numbers = np.zeros((n, INFO + len(self.names)))

    def named(self, names: Sequence[str]) -> Records:
        """Return records with the same states and scores, and other names."""
        renamed = Records(len(self.states), self.states.shape[1:], self.states.dtype.str, names)
        renamed.states[...] = self.states
        renamed.numbers[:, SCORE] = self.numbers[:, SCORE]
        return renamed

    def fits(self, state: Array) -> bool:
        """Whether a state has the shape and type of the other states."""
        return state.shape == self._shape and state.dtype == self._dtype

    def misfit(self, state: Array) -> str:
        """Return, in words, how a state differs from the other states."""
        return (
            f"has shape {state.shape} and dtype {state.dtype}, but others of the batch have {self._shape} and "
            f"{self._dtype}"
        )


def failure_note(ctx: TaskContext, simulation: int, call: str, failure: BaseException) -> Note:
    """Return the note of a failure; the traceback of an exception of the library goes into the log."""
    if not isinstance(failure, AlchemistError):
        ctx.log.error("A simulation of a batch has failed:\n%s", "".join(traceback.format_exception(failure)))
    return [BatchNote.FAILURE.value, simulation, call, *to_wire(as_typed(ctx.task, failure))]


def as_typed(task: str, failure: BaseException) -> AlchemistError:
    """Return an error that crosses the wire; an exception of the library keeps its name and text."""
    if isinstance(failure, AlchemistError):
        return failure
    return RemoteTaskError(task, type(failure).__name__, str(failure))
