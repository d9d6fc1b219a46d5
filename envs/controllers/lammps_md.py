"""Cooling schedules of an annealing: linear in time, and one that follows the energy.

The best linear schedule is found by trying all starts and ends of a grid on seeds of its own
(``experiments/validate_lammps_md.py --search``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Policy = Callable[[Array, int], Array]

START, END = 0.6, 0.1
"""Temperatures of the best linear schedule for ``experiments/ppo_lammps_md.yaml``, as found by that search."""


def linear_temperature(step: int, actions: int, start: float, end: float) -> float:
    """Return the temperature of action number `step` of `actions`, the first at `start` and the last at `end`."""
    return start + (end - start) * step / max(actions - 1, 1)


def make(env: gymnasium.Env[Any, Any], start: float = START, end: float = END, actions: int = 20) -> Policy:
    """Return the linear cooling schedule from `start` to `end` in `actions` steps of an annealing environment.

    Parameters
    ----------
    env : gymnasium.Env
        Of the library ``lammps_md``.
    start, end : float
        Temperatures of the first and of the last action; beyond the bounds of the action space, those are taken.
    actions : int
        Of an episode.

    Returns
    -------
    policy : callable
        ``policy(observation, step)`` gives the action.
    """
    space: Any = env.action_space

    def policy(observation: Array, step: int) -> Array:
        temperature = linear_temperature(step, actions, start, end)
        return np.clip([temperature], space.low, space.high).astype(space.dtype)

    return policy
