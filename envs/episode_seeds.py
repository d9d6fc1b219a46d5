"""The seeds of the episodes of a vector environment's simulations, drawn as :class:`HPCSimulator` draws its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from alchemist_ray.envs.hpc_simulator import MAX_SEED
from alchemist_ray.errors import ArgumentValueError

Given = int | Sequence[int | None] | None
"""What a reset is given: one for all, one for each, or none."""


class EpisodeSeeds:
    """A source of seeds for each of some simulations.

    Parameters
    ----------
    count : int
        Number of simulations.
    """

    def __init__(self, count: int) -> None:
        self._generators = [np.random.default_rng() for _ in range(count)]
        self._next: list[int | None] = [None] * count

    def begin(self, seed: Given, where: Iterable[int]) -> None:
        """Have the seeds of the simulations `where` follow from those given; with an integer, i gets seed + i.

        Raises
        ------
        ArgumentValueError
            If there are not as many seeds as simulations; nothing has happened then.
        """
        given = self._for_each(seed)
        for i in where:
            if given[i] is not None:
                self._generators[i], _ = seeding.np_random(given[i])
                self._next[i] = None

    def _for_each(self, seed: Given) -> list[int | None]:
        count = len(self._generators)
        if seed is None:
            return [None] * count
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(count)]
        seeds = [None if each is None else int(each) for each in seed]
        if len(seeds) != count:
            raise ArgumentValueError("HPCVectorEnv.reset", f"there are {len(seeds)} seeds for {count} simulations")
        return seeds

    def draw(self, i: int) -> int:
        """Return the seed of the next episode of simulation i, and go on to the one after it."""
        self._next[i] = None
        return int(self._generators[i].integers(MAX_SEED))

    def peek(self, i: int) -> int:
        """Return the seed that the next episode of simulation i would have."""
        known = self._next[i]
        if known is None:
            before = self.state(i)
            known = int(self._generators[i].integers(MAX_SEED))
            self.go_on_from(i, before)
            self._next[i] = known
        return known

    def state(self, i: int) -> dict[str, Any]:
        """Return what the seeds of simulation i follow from."""
        return dict(self._generators[i].bit_generator.state)

    def go_on_from(self, i: int, state: dict[str, Any]) -> None:
        """Have the seeds of simulation i follow from such a state."""
        self._generators[i].bit_generator.state = state
        self._next[i] = None
