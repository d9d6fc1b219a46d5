"""Linear cooling schedules of an annealing: of given temperatures, or in terms of the first state.

What is annealed differs from episode to episode in the depth of its potential, and all its temperatures and energies
scale with it. A schedule of given temperatures serves all of them alike. One in terms of the first state, that of a
liquid at T0 = 0.4 times the depth, begins and ends at the same multiples of the depth, as far as that is seen. T0 is
taken from the structural energy: of 13 atoms, that fluctuates by 5 % about what is proportional to the depth, the
kinetic temperature itself by 13 %.

The best of each kind is found by trying all starts and ends of a grid on seeds of its own
(``experiments/validate/lammps_md.py --search``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Policy = Callable[[Array, int], Array]

STRUCTURAL_ENERGY = 2
"""The component of the state."""

ENERGY_TO_TEMPERATURE = -0.136
"""Of a cluster of 13 atoms that was melted at 0.4 times the depth: its temperature / structural energy per atom."""

START, END = 0.6, 0.1
"""Temperatures of the best linear schedule for ``experiments/ppo_lammps_md.yaml``, as found by that search."""

SCALED_START, SCALED_END = 0.65, 0.5
"""Of the best one in terms of the first state, times :func:`scale_by_energy`."""


def linear_temperature(step: int, actions: int, start: float, end: float) -> float:
    """Return the temperature of action number `step` of `actions`, the first at `start` and the last at `end`."""
    return start + (end - start) * step / max(actions - 1, 1)


def scale_by_energy(state: Array) -> float:
    """Return the temperature of the first state as its structural energy tells it, which fluctuates less."""
    return ENERGY_TO_TEMPERATURE * float(state[STRUCTURAL_ENERGY])


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
    return _linear(env, lambda state: 1.0, start, end, actions)


def make_scaled(
    env: gymnasium.Env[Any, Any], start: float = SCALED_START, end: float = SCALED_END, actions: int = 20
) -> Policy:
    """Return the linear schedule whose `start` and `end` are in terms of what the first state tells of the substance.

    Parameters
    ----------
    env : gymnasium.Env
        Of the library ``lammps_md``, a cluster of 13 atoms, `reference_energy` 0.
    start, end : float
        Temperatures of the first and of the last action, in terms of :func:`scale_by_energy` of the first state.
    actions : int
        Of an episode.

    Returns
    -------
    policy : callable
        ``policy(observation, step)`` gives the action; for one episode, from its first step.
    """
    return _linear(env, scale_by_energy, start, end, actions)


def _linear(
    env: gymnasium.Env[Any, Any], scale: Callable[[Array], float], start: float, end: float, actions: int
) -> Policy:
    space: Any = env.action_space
    unit = 1.0

    def policy(observation: Array, step: int) -> Array:
        nonlocal unit
        if step == 0:
            unit = scale(observation)
        temperature = unit * linear_temperature(step, actions, start, end)
        return np.clip([temperature], space.low, space.high).astype(space.dtype)

    return policy
