"""What a step of a batch has led to, as records of one size: a row for each simulation.

A row holds the state, the score, what became of the simulation, and its info. Its layout (shape and type of a state,
names of the info) is agreed on by the leaders when the first states and infos are there, and stays. So a step is one
Gatherv of rows from arrays that are there already, into one that is there already, with nothing encoded in between.
What does not fit a row (an error, the last state of an episode that has ended, an info of other names) goes into a
*note*, which the leader sends after its rows; the first of them says how long that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali.teams import Teams
from alchemist_ray.protocol.values import encode

Array = npt.NDArray[Any]
Note = list[Any]

FINISHED, FAILED, ENDED, INFORMED = 1, 2, 4, 8
"""What became of a simulation, in bits: it has come to its end; a call of it has failed; it had ended, and has begun
anew in the same step; its row has its info."""

SCORE, OUTCOME, INFO = 0, 1, 2
"""Columns of the numbers of a row: the score, the bits above, and from here on the info."""


class Records:
    """The rows of this rank's team; on rank 0 of the group, those of all. Leaders only.

    Attributes
    ----------
    states : ndarray, shape (n, ...)
        Of the simulations of the team.
    numbers : ndarray of float64, shape (n, 2 + number of names)
        Scores, outcomes, info.
    names : tuple of str
        Of the info.
    """

    def __init__(self, teams: Teams, shape: Sequence[int], dtype: str, names: Sequence[str]) -> None:
        self._teams = teams
        self.names = tuple(names)
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        row = np.dtype(
            [
                ("state", self.dtype, self.shape),
                ("numbers", np.float64, (INFO + len(self.names),)),
                ("note", np.int64),
            ]
        )
        self._all = np.zeros(teams.starts[-1] if teams.number == 0 else len(teams.own), row)
        rows = self._all[: len(teams.own)]
        self.states, self.numbers, self._notes = rows["state"], rows["numbers"], rows["note"]
        octets = self._all.view(np.uint8)
        counts = [row.itemsize * (end - start) for start, end in zip(teams.starts, teams.starts[1:], strict=False)]
        self._send: Any = MPI.IN_PLACE if teams.number == 0 else [octets, MPI.BYTE]
        self._receive: Any = [octets, counts, None, MPI.BYTE] if teams.number == 0 else None

    def take_over(self, earlier: Records) -> None:
        """Take the states and scores of records that had other names."""
        self.states[...] = earlier.states
        self.numbers[:, SCORE] = earlier.numbers[:, SCORE]

    def fits(self, state: Array) -> bool:
        """Whether a state has the shape and the type of all others."""
        return state.shape == self.shape and state.dtype == self.dtype

    def misfit(self, state: Array) -> str:
        """Return, in words, how a state differs from what all others are."""
        return (
            f"has shape {state.shape} and dtype {state.dtype}, where others of the batch have {self.shape} and "
            f"{self.dtype}"
        )

    def gather(self, notes: list[Note]) -> tuple[Array, Array, list[Note]] | None:
        """Return all states, numbers and notes on rank 0 of the group, None elsewhere. Collective over the leaders."""
        teams = self._teams
        octets = encode(notes) if notes and teams.number > 0 else b""
        self._notes[0] = len(octets)
        if teams.teams > 1:
            teams.leaders.Gatherv(self._send, self._receive, root=0)
        if teams.number > 0:
            if octets:
                teams.send_to_first(octets)
            return None
        lengths = self._all["note"][teams.starts[:-1]]
        if lengths.any():
            notes = notes + [note for of_team in teams.receive_on_first(lengths.tolist()) for note in of_team or ()]
        return self._all["state"], self._all["numbers"], notes
