"""The optimal controller of the heated plate: the linear-quadratic regulator.

Let x be the amplitudes of the plate's cosine modes [K]. A step of the discretised plate is x' = A x + B u with a
diagonal A. The cost of an episode is

    J = sum over the steps of  x'^T x' + u^T R u,      R = flux_weight / actuators.

If x has all modes, J is minus the sum of the simulation's scores. The optimal action is u = -K x, where P solves the
discrete algebraic Riccati equation

    P = I + A^T P A - A^T P B K,      K = (R + B^T P B)^-1 B^T P A.

The cost over an infinite horizon is J = x_0^T (P - I) x_0. For an episode of N steps, P is the result of N steps of the
same recursion that starts from I [1]_.

The state of the simulation has the lowest modes only. The other modes do not act on these; at the start they are
independent of them and have mean zero. So their mean, given all observations, is the model's response to the actions.
The controller uses this mean, and it is optimal among all controllers that have the same observations (the separation
principle). Its model does not include the bounds of the actions.

References
----------
.. [1] K. J. Astrom, B. Wittenmark, "Computer-Controlled Systems", 3rd edition, 1997, chapter 11.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import scipy.linalg

from alchemist_ray.sim_libraries.heat.model import FLUX_WEIGHT, Integrator, Plate

Array = npt.NDArray[Any]
Policy = Callable[[Array, int], Array]

MODES = 8
"""Modes in each direction in the controller's model. More modes change its cost by less than 1e-4 of its value."""


@dataclass(frozen=True)
class Regulator:
    """The linear-quadratic regulator of a plate.

    Attributes
    ----------
    integrator : Integrator
        The discretised plate.
    flux_weight : float
        Weight of the flux in the cost, see :class:`~alchemist_ray.sim_libraries.heat.simulator.Heat`.
    modes : int
        Number of modes in each direction in the model.
    """

    integrator: Integrator
    flux_weight: float = FLUX_WEIGHT
    modes: int = MODES

    @classmethod
    def of(cls, params: Mapping[str, Any], modes: int = MODES) -> Regulator:
        """Return the regulator of a simulation with the parameters `params`; missing parameters have their defaults."""
        plate, integrator = (_given(params, kind) for kind in (Plate, Integrator))
        return cls(Integrator(Plate(**plate), **integrator), params.get("flux_weight", FLUX_WEIGHT), modes)

    @functools.cached_property
    def system(self) -> tuple[Array, Array]:
        """The diagonal of A, shape (modes**2,), and B [K per kW/m2], shape (modes**2, actuators)."""
        return self.integrator.modal_system(self.modes)

    @functools.cached_property
    def R(self) -> Array:
        """Cost matrix of the actions, shape (actuators, actuators)."""
        actuators = self.integrator.plate.actuators
        return np.eye(actuators) * (self.flux_weight / actuators)

    @functools.cached_property
    def P(self) -> Array:
        """The solution of the discrete algebraic Riccati equation, shape (modes**2, modes**2).

        The equation is not balanced: actuators drive some modes by rounding errors only, and balancing would amplify
        these errors.
        """
        a, B = self.system
        return np.asarray(scipy.linalg.solve_discrete_are(np.diag(a), B, np.eye(a.size), self.R, balanced=False))

    @functools.cached_property
    def K(self) -> Array:
        """The optimal gain [kW/m2 per K], shape (actuators, modes**2): u = -K x."""
        return self.gain(self.P)

    def gain(self, P: Array) -> Array:
        """Return the optimal gain if x^T P x is the cost of the state after the step."""
        a, B = self.system
        return np.linalg.solve(self.R + B.T @ P @ B, B.T @ P * a)

    def horizon(self, steps: int) -> Array:
        """Return P for an episode of `steps` steps, by the Riccati recursion."""
        a, B = self.system
        P = np.eye(a.size)
        for _ in range(steps):
            PA = P * a
            P = np.eye(a.size) + a[:, None] * PA - (PA.T @ B) @ self.gain(P)
        return P

    def cost(self, x: Array, P: Array | None = None) -> float:
        """Return the optimal cost [K2] of all steps from the amplitudes `x`, shape (modes**2,)."""
        P = self.P if P is None else P
        return float(x @ P @ x - x @ x)


class Controller:
    """The regulator applied to the observations of an environment, one episode at a time.

    Parameters
    ----------
    regulator : Regulator
        The regulator of the plate.
    observed_modes : int
        Number of modes in each direction in an observation.
    low, high : ndarray, shape (actuators,)
        Bounds of the actions [kW/m2]. Actions are clipped to them.
    """

    def __init__(self, regulator: Regulator, observed_modes: int, low: Array, high: Array) -> None:
        if observed_modes > regulator.modes:
            raise ValueError(
                f"the regulator has {regulator.modes} modes in each direction, but must have all {observed_modes} "
                "observed modes: raise its modes"
            )
        self._regulator, self._low, self._high = regulator, low, high
        pairs = itertools.product(range(observed_modes), repeat=2)
        self._observed = np.array([k * regulator.modes + m for k, m in pairs])
        self._x = np.zeros(regulator.modes**2)

    def __call__(self, observation: Array, step: int) -> Array:
        """Return the action [kW/m2] for an observation [K]. Step 0 begins an episode."""
        if step == 0:
            self._x[:] = 0.0
        self._x[self._observed] = observation
        action = np.clip(-self._regulator.K @ self._x, self._low, self._high)
        a, B = self._regulator.system
        self._x = a * self._x + B @ action
        return action


def make(env: gymnasium.Env[Any, Any], modes: int = MODES) -> Policy:
    """Return the optimal controller of a heat environment.

    Parameters
    ----------
    env : gymnasium.Env
        An :class:`~alchemist_ray.envs.HPCSimulator` of the library ``heat``, or wrappers around one that do not change
        observations and actions.
    modes : int
        Number of modes in each direction in the controller's model. It is raised to that of the observations.

    Returns
    -------
    policy : callable
        ``policy(observation, step)`` returns the action. `step` counts from 0 in each episode.
    """
    simulator: Any = env.unwrapped
    space = simulator.action_space
    observed = round(simulator.observation_space.shape[0] ** 0.5)
    regulator = Regulator.of(simulator.settings.params, max(modes, observed))
    controller = Controller(regulator, observed, space.low, space.high)
    return lambda observation, step: controller(observation, step).astype(space.dtype)


def _given(params: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    return {name: params[name] for name in kind.__dataclass_fields__ if name in params}
