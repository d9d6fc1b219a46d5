"""A simulation's state that the workers keep: the result of :meth:`HPCSimulator.snapshot`."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from typing import Any, NoReturn

from alchemist_ray.envs.simulation_group import SimulationGroup
from alchemist_ray.errors import ArgumentError, ArgumentValueError


@dataclass(frozen=True)
class EpisodeState:
    """Where an episode stands, on the environment's side.

    Attributes
    ----------
    steps : int
        Taken since the reset.
    running : bool
        Whether the episode has not ended.
    random : dict
        State of the generator that draws the seeds of later episodes.
    """

    steps: int
    running: bool
    random: dict[str, Any]


class Snapshot:
    """A simulation's state in the memory of the workers. It is dropped when nothing refers to it any longer.

    It lives in the worker group of the environment that has taken it. That environment and its forks can restore it.
    It does not pickle, and a forked child process cannot use it.

    Attributes
    ----------
    number : int
        Its number on the workers.
    episode : EpisodeState
        Where the episode stood when the snapshot was taken.
    """

    def __init__(self, group: SimulationGroup, number: int, episode: EpisodeState) -> None:
        self.group = group
        self.number = number
        self.episode = episode
        self._pid = os.getpid()
        weakref.finalize(self, group.drop_snapshot, number)

    def number_in(self, group: SimulationGroup | None, where: str, whose: str) -> int:
        """Return the number of the snapshot in a group.

        Parameters
        ----------
        group : SimulationGroup or None
            The group that is to restore it.
        where, whose : str
            The call, and the owner of the group, for messages.

        Raises
        ------
        ArgumentValueError
            If the snapshot is in another group, or belongs to the parent of this process.
        """
        if self._pid != os.getpid():
            raise ArgumentValueError(
                where,
                f"{self!r} belongs to process {self._pid}, from which this process was forked. Here the environment "
                "has its own workers: reset it, and take a snapshot here",
            )
        if self.group is not group:
            raise ArgumentValueError(
                where,
                f"{self!r} is not in the memory of {whose}: a snapshot can be restored only by the worker group that "
                "has taken it, while that group lives",
            )
        return self.number

    def __reduce__(self) -> NoReturn:
        raise TypeError("a snapshot is in the memory of its environment's workers and does not pickle")

    def __repr__(self) -> str:
        return f"<Snapshot {self.number} of {self.group.settings.lib_name} after {self.episode.steps} steps>"


def checked_snapshot(where: str, what: str, value: Any) -> Snapshot:
    """Return `value` if it is a snapshot.

    Raises
    ------
    ArgumentError
        If it is something else.
    """
    if not isinstance(value, Snapshot):
        raise ArgumentError(where, f"{what} must be a Snapshot, not {value!r} ({type(value).__name__})")
    return value
