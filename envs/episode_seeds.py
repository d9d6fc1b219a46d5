"""The seeds of the episodes of a vector environment's simulations, drawn as :class:`HPCSimulator` draws its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding

MAX_SEED = 2**31
"""Seeds of episodes are less than this."""


class EpisodeSeeds:
    """A source of seeds for each of some simulations.

    Parameters
    ----------
    count : int
        Number of simulations.

    Attributes
    ----------
    generators : list of numpy.random.Generator
        The source of each simulation.
    given : list of int
        The seed of each source.
    """

    def __init__(self, count: int) -> None:
        made = [seeding.np_random() for _ in range(count)]
        self.generators = [generator for generator, _ in made]
        self.given = [seed for _, seed in made]
        self._next: list[int | None] = [None] * count

    def begin(self, seeds: Sequence[int | None], where: Iterable[int]) -> None:
        """Start the sources of the simulations `where` at the seeds that they have in `seeds`, if they have one."""
        for i in where:
            if seeds[i] is not None:
                self.generators[i], self.given[i] = seeding.np_random(seeds[i])
                self._next[i] = None

    def draw(self, i: int) -> int:
        """Return the seed of the next episode of simulation i, and advance to the seed after it."""
        self._next[i] = None
        return int(self.generators[i].integers(MAX_SEED))

    def peek(self, i: int) -> int:
        """Return the seed that the next episode of simulation i would have."""
        known = self._next[i]
        if known is None:
            before = self.state(i)
            known = int(self.generators[i].integers(MAX_SEED))
            self.go_on_from(i, before)
            self._next[i] = known
        return known

    def state(self, i: int) -> dict[str, Any]:
        """Return the state of the source of simulation i."""
        return dict(self.generators[i].bit_generator.state)

    def go_on_from(self, i: int, state: dict[str, Any]) -> None:
        """Continue the source of simulation i from a state that :meth:`state` has returned."""
        self.generators[i].bit_generator.state = state
        self._next[i] = None


def draw_seed(generator: np.random.Generator) -> int:
    """Return the seed of the next episode of a single simulation."""
    return int(generator.integers(MAX_SEED))
