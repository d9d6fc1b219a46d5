"""The contract of the task ``advance_batch`` of a simulation library: orders, outcomes, columns and notes.

A step of a batch is a loop over many simulations. Arithmetic with :class:`enum.IntFlag` is slow in Python, so such
loops take the integers of the flags (``int(BatchOrder.STEP)``) or compare whole arrays of them.
"""

from __future__ import annotations

from enum import IntFlag, StrEnum


class BatchOrder(IntFlag):
    """An order to one simulation; a byte for each simulation. Parts of an order are carried out from STEP to the right.

    Attributes
    ----------
    LEAVE
        Leave the simulation as it is.
    STEP
        Take a step.
    RESET
        Reset the simulation, after the step if there is one.
    RESET_ENDED
        Reset the simulation if it has come to its end or has failed.
    """

    LEAVE = 0
    STEP = 1
    RESET = 2
    RESET_ENDED = 4


class BatchOutcome(IntFlag):
    """The outcome of an order, in the column :data:`OUTCOME` of the numbers.

    Attributes
    ----------
    FINISHED
        The simulation has come to its end.
    FAILED
        A call of the simulation has failed, and the simulation must be reset.
    ENDED
        The simulation had come to its end or had failed, and was reset by the same order.
    INFORMED
        The columns from :data:`INFO` on hold the info of this step.
    """

    FINISHED = 1
    FAILED = 2
    ENDED = 4
    INFORMED = 8


class BatchNote(StrEnum):
    """The first member of a note: a fact about one simulation that has no place in the numbers.

    Attributes
    ----------
    FAILURE
        ``[FAILURE, simulation, call, error, fields]``: the call (``"step", "reset", "restore"``) that failed.
    LAST_STATE
        ``[LAST_STATE, simulation, state]``: the last state of an episode after which the simulation was reset.
    OTHER_INFO
        ``[OTHER_INFO, simulation, info]``: an info whose names are not those of the columns.
    """

    FAILURE = "failure"
    LAST_STATE = "state"
    OTHER_INFO = "info"


SCORE, OUTCOME, INFO = 0, 1, 2
"""Columns of the numbers of a batch: the score, the outcome, and the first column of the info."""
