"""Linear cooling schedules for annealing, with fixed temperatures or with temperatures relative to the first state.

The depth of the potential differs from episode to episode, and all temperatures and energies scale with it. A fixed
schedule has the same temperatures in all episodes. A scaled schedule starts and ends at the same multiples of the
depth, as far as the first state shows the depth. That state is a liquid at the temperature T0 = 0.4 times the depth. T0
is estimated from the structural energy, because for 13 atoms this fluctuates by 5 % at a given depth, and the kinetic
temperature by 13 %.

The best schedule of each kind was found by trying a grid of starts and ends on separate seeds
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
"""Index of the structural energy in the state."""

ENERGY_TO_TEMPERATURE = -0.136
"""Temperature / structural energy per atom, for a cluster of 13 atoms that was melted at 0.4 times the depth."""

START, END = 0.6, 0.1
"""Temperatures of the best fixed schedule for ``experiments/ppo_lammps_md.yaml``, as found by that search."""

SCALED_START, SCALED_END = 0.65, 0.5
"""Temperatures of the best scaled schedule, in units of :func:`scale_by_energy`."""


def linear_temperature(step: int, actions: int, start: float, end: float) -> float:
    """Return the temperature of action number `step` of `actions`. The first is at `start`, the last at `end`."""
    return start + (end - start) * step / max(actions - 1, 1)


def scale_by_energy(state: Array) -> float:
    """Return the temperature of the first state, estimated from its structural energy, which fluctuates less."""
    return ENERGY_TO_TEMPERATURE * float(state[STRUCTURAL_ENERGY])


def make(env: gymnasium.Env[Any, Any], start: float = START, end: float = END, actions: int = 20) -> Policy:
    """Return the linear cooling schedule from `start` to `end` in `actions` steps, for an annealing environment.

    Parameters
    ----------
    env : gymnasium.Env
        An environment of the library ``lammps_md``.
    start, end : float
        Temperatures of the first and the last action. They are clipped to the bounds of the action space.
    actions : int
        Number of actions in an episode.

    Returns
    -------
    policy : callable
        ``policy(observation, step)`` returns the action.
    """
    return _linear(env, lambda state: 1.0, start, end, actions)


def make_scaled(
    env: gymnasium.Env[Any, Any], start: float = SCALED_START, end: float = SCALED_END, actions: int = 20
) -> Policy:
    """Return the linear schedule from `start` to `end` times the temperature estimated from the first state.

    Parameters
    ----------
    env : gymnasium.Env
        An environment of the library ``lammps_md`` with a cluster of 13 atoms and `reference_energy` 0.
    start, end : float
        Temperatures of the first and the last action, in units of :func:`scale_by_energy` of the first state.
    actions : int
        Number of actions in an episode.

    Returns
    -------
    policy : callable
        ``policy(observation, step)`` returns the action. It must be called from step 0 on, one episode at a time.
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
