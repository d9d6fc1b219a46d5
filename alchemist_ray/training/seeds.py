"""What a training's seed becomes.

RLlib counts on from the seed it is given: environment i of sampling process j begins with seed + j + i. Given 1 and 2,
two trainings with thirty-two environments each would begin with thirty-one equal episodes. So RLlib is given a number
that is drawn from the training's seed, and trainings with neighbouring seeds have nothing in common.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MAX_SEED = 2**30
"""RLlib's seeds are below this: what it adds stays within the 32 bits that NumPy's generator takes."""


def rllib_seed(seed: int) -> int:
    """Return the seed that RLlib is given for a training: the same for the same training seed, on every machine."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0]) % MAX_SEED


def environment_seeds(seeds: Iterable[int], environments: int) -> set[int]:
    """Return the seeds with which the environments of some trainings begin.

    Parameters
    ----------
    seeds : iterable of int
        Of the trainings.
    environments : int
        How far RLlib counts on from its seed.
    """
    return {rllib_seed(seed) + place for seed in seeds for place in range(environments)}
