"""Opposition control of the vortex street: rotate the cylinder in proportion to the transverse velocity in its wake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SENSOR = "velocity y 1.50 0.00"


def make(env: gymnasium.Env[Any, Any], gain: float = 0.7) -> Callable[[Array, int], Array]:
    """Return a proportional controller for a cylinder flow environment with rotation.

    The surface speed is `gain` times the transverse velocity 1.5 D behind the centre, clipped to the action space. The
    default gain is the best of a few that were tried.

    Parameters
    ----------
    env : gymnasium.Env
        An :class:`~alchemist_ray.envs.HPCSimulator` of the library ``cylinder_flow``, or wrappers around one that do
        not change observations and actions.
    gain : float
        Surface speed divided by transverse velocity.

    Returns
    -------
    policy : callable
        ``policy(observation, step)`` returns the action.
    """
    simulator: Any = env.unwrapped
    space = simulator.action_space
    sensor = [component.name for component in simulator.observation_components].index(SENSOR)

    def policy(observation: Array, step: int) -> Array:
        return np.clip(gain * observation[sensor : sensor + 1], space.low, space.high).astype(space.dtype)

    return policy
