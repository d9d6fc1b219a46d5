"""A simulation's state, kept by the workers: what :meth:`HPCSimulator.snapshot` returns."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, NoReturn

from alchemist_ray.envs.simulation_group import SimulationGroup


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
        State of the generator that the seeds of later episodes are drawn from.
    """

    steps: int
    running: bool
    random: dict[str, Any]


class Snapshot:
    """A simulation's state, in the memory of the workers; it goes when nobody refers to it any longer.

    It lives in the worker group of the environment that has taken it, and is of use to that environment and its forks.
    It does not pickle.

    Attributes
    ----------
    number : int
        By which the workers know it.
    episode : EpisodeState
        What the environment knew when it was taken.
    """

    def __init__(self, group: SimulationGroup, number: int, episode: EpisodeState) -> None:
        self.group = group
        self.number = number
        self.episode = episode
        weakref.finalize(self, group.drop_snapshot, number)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a snapshot is in the memory of its environment's workers and does not pickle")

    def __repr__(self) -> str:
        return f"<Snapshot {self.number} of {self.group.settings.lib_name} after {self.episode.steps} steps>"
