"""The optimal controller of the heated plate: the linear-quadratic regulator.

In the amplitudes x of its cosine modes [K] the discretised plate goes from step to step by x' = A x + B u, A diagonal,
and an episode costs

    J = sum over the steps of  x'^T x' + u^T R u,      R = flux_weight / actuators,

which are the scores of the simulation with the sign turned, if all modes are in x. The optimal action is u = -K x with

    P = I + A^T P A - A^T P B K,      K = (R + B^T P B)^-1 B^T P A,

the discrete algebraic Riccati equation, and J = x_0^T (P - I) x_0 for ever after; for an episode of N steps P is what N
steps of the same recursion make of I [1]_.

The simulation shows the lowest modes only. The others do not act on these, and begin independent of them with mean
zero, so that their mean, given all that was seen, is what the model makes of the actions alone: the controller uses
that, and is optimal among all that see what it sees (the separation principle). Only the bounds of the actions are not
in its model.

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
"""Modes in each direction that the controller knows of; more change its cost by less than 1e-4 of itself."""


@dataclass(frozen=True)
class Regulator:
    """The linear-quadratic regulator of a plate.

    Attributes
    ----------
    integrator : Integrator
        The discretised plate.
    flux_weight : float
        As of :class:`~alchemist_ray.sim_libraries.heat.Heat`.
    modes : int
        How many modes in each direction it knows of.
    """

    integrator: Integrator
    flux_weight: float = FLUX_WEIGHT
    modes: int = MODES

    @classmethod
    def of(cls, params: Mapping[str, Any], modes: int = MODES) -> Regulator:
        """Return that of a simulation with the parameters `params`; those that are not given are the defaults."""
        plate, integrator = (_given(params, kind) for kind in (Plate, Integrator))
        return cls(Integrator(Plate(**plate), **integrator), params.get("flux_weight", FLUX_WEIGHT), modes)

    @functools.cached_property
    def system(self) -> tuple[Array, Array]:
        """The diagonal of A, shape (modes**2,), and B [K per kW/m2], shape (modes**2, actuators)."""
        return self.integrator.modal_system(self.modes)

    @functools.cached_property
    def R(self) -> Array:
        """What actions cost, shape (actuators, actuators)."""
        actuators = self.integrator.plate.actuators
        return np.eye(actuators) * (self.flux_weight / actuators)

    @functools.cached_property
    def P(self) -> Array:
        """The solution of the discrete algebraic Riccati equation, shape (modes**2, modes**2).

        Not balanced: no actuator drives some modes but by rounding errors, which balancing would blow up.
        """
        a, B = self.system
        return np.asarray(scipy.linalg.solve_discrete_are(np.diag(a), B, np.eye(a.size), self.R, balanced=False))

    @functools.cached_property
    def K(self) -> Array:
        """The optimal gain [kW/m2 per K], shape (actuators, modes**2): u = -K x."""
        return self.gain(self.P)

    def gain(self, P: Array) -> Array:
        """Return the optimal gain if x^T P x is what the state after the step is worth."""
        a, B = self.system
        return np.linalg.solve(self.R + B.T @ P @ B, B.T @ P * a)

    def horizon(self, steps: int) -> Array:
        """Return P for an episode of so many steps, by the Riccati recursion."""
        a, B = self.system
        P = np.eye(a.size)
        for _ in range(steps):
            PA = P * a
            P = np.eye(a.size) + a[:, None] * PA - (PA.T @ B) @ self.gain(P)
        return P

    def cost(self, x: Array, P: Array | None = None) -> float:
        """Return the optimal cost [K2] of all that follows on the amplitudes `x`, shape (modes**2,)."""
        P = self.P if P is None else P
        return float(x @ P @ x - x @ x)


class Controller:
    """The regulator with the observations of an environment; of one episode at a time.

    Parameters
    ----------
    regulator : Regulator
    observed_modes : int
        How many modes in each direction an observation has.
    low, high : ndarray, shape (actuators,)
        Bounds of the actions [kW/m2], to which they are clipped.
    """

    def __init__(self, regulator: Regulator, observed_modes: int, low: Array, high: Array) -> None:
        if observed_modes > regulator.modes:
            raise ValueError(
                f"the regulator must know all {observed_modes} modes that are observed, not {regulator.modes}"
            )
        self._regulator, self._low, self._high = regulator, low, high
        pairs = itertools.product(range(observed_modes), repeat=2)
        self._observed = np.array([k * regulator.modes + m for k, m in pairs])
        self._x = np.zeros(regulator.modes**2)

    def __call__(self, observation: Array, step: int) -> Array:
        """Return the action [kW/m2] for an observation [K]; step 0 begins an episode."""
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
        An :class:`~alchemist_ray.envs.HPCSimulator` of the library ``heat``, or wrappers around one that leave
        observations and actions as they are.
    modes : int
        How many modes in each direction the controller knows of, at least those observed.

    Returns
    -------
    policy : callable
        ``policy(observation, step)`` gives the action; `step` counts from 0 in each episode.
    """
    simulator: Any = env.unwrapped
    space = simulator.action_space
    observed = round(simulator.observation_space.shape[0] ** 0.5)
    regulator = Regulator.of(simulator.settings.params, max(modes, observed))
    controller = Controller(regulator, observed, space.low, space.high)
    return lambda observation, step: controller(observation, step).astype(space.dtype)


def _given(params: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    return {name: params[name] for name in kind.__dataclass_fields__ if name in params}
