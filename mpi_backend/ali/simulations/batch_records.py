"""What the simulations of a team have come to, in arrays with a row for each.

The layout (shape and type of a state, names of the info) is agreed on by the leaders when the first states and infos
are there, and stays: the rows of all teams, one after the other, are those of the batch. What does not fit a row (an
error, the last state of an episode that has ended, an info of other names) goes into a *note*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Note = list[Any]

FINISHED, FAILED, ENDED, INFORMED = 1, 2, 4, 8
"""What became of a simulation, in bits: it has come to its end; a call of it has failed; it had ended, and has begun
anew in the same step; its row has its info."""

SCORE, OUTCOME, INFO = 0, 1, 2
"""Columns of the numbers of a row: the score, the bits above, and from here on the info."""


class Records:
    """The rows of a team's simulations.

    Attributes
    ----------
    states : ndarray, shape (n, ...)
        What the agents see.
    numbers : ndarray of float64, shape (n, 2 + number of names)
        Scores, outcomes, info.
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
        """Whether a state has the shape and the type of all others."""
        return state.shape == self._shape and state.dtype == self._dtype

    def misfit(self, state: Array) -> str:
        """Return, in words, how a state differs from what all others are."""
        return (
            f"has shape {state.shape} and dtype {state.dtype}, where others of the batch have {self._shape} and "
            f"{self._dtype}"
        )
