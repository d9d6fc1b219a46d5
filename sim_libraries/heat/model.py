r"""The model of the heated plate: its geometry, its modes, its time integrator, and the resulting linear system.

This module needs neither MPI nor numba, so both the simulation and controllers on the client can use it.

The deviation T [K] from the target temperature, in a square plate with sides of length L and heated edges, obeys

    dT/dt = kappa (d2T/dx2 + d2T/dy2),      k dT/dn = q  on the edges,

where kappa is the diffusivity [m2/s], k the conductivity [W/(m K)], q the flux into the plate [W/m2], and n the outward
normal.

*Space.* There are n x n cells of width h = L/n. T is at their centres, and central differences give the fluxes between
them; q is the flux through the edges. (These are finite volumes of second order, which conserve heat to rounding.) The
cosines phi_k(x) phi_l(y), phi_0 = 1, phi_k(x) = sqrt(2) cos(pi k x / L) at the cell centres, are exact eigenvectors of
this operator. They are orthonormal in the mean over the cells. Their eigenvalues are lambda_k + lambda_l,

    lambda_k = -(4 kappa / h^2) sin^2(pi k / 2n)  ->  -kappa (pi k / L)^2.

*Time.* The action is held for an interval. The interval is integrated in a number of supersteps of length tau by the
second-order Runge-Kutta-Legendre scheme RKL2 [1]_. The scheme is explicit, and s stages are stable up to

    tau |lambda|_max <= (s^2 + s - 2) / 2,      |lambda|_max = 8 kappa / h^2.

So the work grows with the square root of tau / h^2, while the work of explicit Euler grows with tau / h^2. Let
Z_j = Y_j - Y_0, and let D = tau (A T + f) be the Euler increment, which includes the fluxes f. The stages are

    Z_1 = c_1 D,    Z_j = mu_j Z_(j-1) + nu_j Z_(j-2) + mut_j tau A Z_(j-1) + c_j D,    T <- T + Z_s.

This form reads one array less than that of [1]_, and the fluxes occur in D only.

*Linear system.* The whole scheme is linear with constant coefficients, and it maps each mode to itself. In modal
coordinates one interval of the discretised plate is x <- a * x + B u, where a and B follow from the recursion above
applied to numbers. The simulation computes the same, to rounding. Controllers are designed with this system, and the
simulation is tested against it.

References
----------
.. [1] C. D. Meyer, D. S. Balsara, T. D. Aslam, "A stabilized Runge-Kutta-Legendre method for explicit
   super-time-stepping of parabolic and mixed equations", J. Comput. Phys. 257 (2014) 594-626.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SIDES = ("west", "east", "south", "north")
"""The edges x = 0, x = L, y = 0, y = L, in the order of the actuators."""

KILOWATT = 1000.0

FLUX_WEIGHT = 0.1
"""Weight of the mean square flux through the edges in the cost of a step [K2 / (kW/m2)2]."""


@dataclass(frozen=True)
class Plate:
    """A square plate of cells, with actuators of equal length along its edges.

    Attributes
    ----------
    n : int
        Cells in each direction.
    side : float
        Length of an edge [m].
    diffusivity : float
        kappa [m2/s]; by default that of copper.
    conductivity : float
        k [W/(m K)]; by default that of copper.
    actuators_per_side : int
        Number of actuators on each edge. Edges are in the order of :data:`SIDES`, actuators of an edge along x or y.
    """

    n: int = 512
    side: float = 1.0
    diffusivity: float = 1.17e-4
    conductivity: float = 401.0
    actuators_per_side: int = 2

    @property
    def spacing(self) -> float:
        """Width of a cell [m]."""
        return self.side / self.n

    @property
    def actuators(self) -> int:
        """Number of actuators."""
        return len(SIDES) * self.actuators_per_side

    @property
    def actuator_names(self) -> list[str]:
        """Names of the actuators: ``west_1, west_2, ...``."""
        return [f"{side}_{1 + number}" for side in SIDES for number in range(self.actuators_per_side)]

    def cosines(self, modes: int) -> Array:
        """Return the first `modes` cosines at the cell centres of a row, shape (modes, n)."""
        centres = (np.arange(self.n) + 0.5) / self.n
        k = np.arange(modes)[:, None]
        return np.where(k == 0, 1.0, math.sqrt(2.0)) * np.cos(np.pi * k * centres)

    def eigenvalues(self, modes: int) -> Array:
        """Return the eigenvalues [1/s] of the discretised operator for modes (k of y, l of x), shape (modes, modes)."""
        one = -(4 * self.diffusivity / self.spacing**2) * np.sin(np.pi * np.arange(modes) / (2 * self.n)) ** 2
        return one[:, None] + one[None, :]

    def edge_fluxes(self, action: Array) -> Array:
        """Return the flux [W/m2] into each cell along each edge under an action [kW/m2], shape (4, n)."""
        each = np.asarray(action, float).reshape(len(SIDES), self.actuators_per_side)
        actuator_of_cell = np.arange(self.n) * self.actuators_per_side // self.n
        return KILOWATT * each[:, actuator_of_cell]

    def ghost_offsets(self, action: Array) -> Array:
        """Return by how much (h q / k [K]) ghost cells exceed the cells inside the edges, shape (4, n)."""
        return self.edge_fluxes(action) * (self.spacing / self.conductivity)

    def forcing(self, modes: int) -> Array:
        """Return the rate [K/s] at which each actuator drives each mode at 1 kW/m2, shape (modes, modes, actuators)."""
        phi = self.cosines(modes)
        within = {"west": phi[:, 0], "east": phi[:, -1], "south": phi[:, 0], "north": phi[:, -1]}
        driven = np.empty((modes, modes, self.actuators))
        for number in range(self.actuators):
            fluxes = self.edge_fluxes(np.eye(self.actuators)[number])
            edge = number // self.actuators_per_side
            along = phi @ fluxes[edge] / self.n
            rows, columns = (along, within[SIDES[edge]]) if edge < 2 else (within[SIDES[edge]], along)
            driven[:, :, number] = np.outer(rows, columns)
        return driven * (self.diffusivity / (self.conductivity * self.side))


@dataclass(frozen=True)
class Stages:
    """The coefficients of RKL2 with s stages. Entry j of each array belongs to stage j; entry 0 is unused.

    Attributes
    ----------
    mu, nu : ndarray, shape (s + 1,)
        Weights of the previous stage and of the stage before it.
    mut : ndarray, shape (s + 1,)
        Weight of the operator applied to the previous stage.
    c : ndarray, shape (s + 1,)
        Weight of the Euler increment D.
    """

    mu: Array
    nu: Array
    mut: Array
    c: Array

    @property
    def count(self) -> int:
        """The number of stages, s."""
        return self.mu.size - 1

    @classmethod
    def of(cls, s: int) -> Stages:
        """Return the coefficients for `s` >= 3 stages ([1]_ of this module)."""
        j = np.arange(s + 1)
        safe = np.maximum(j, 2)
        b = np.where(j < 2, 1 / 3, (safe**2 + safe - 2) / (2 * safe * (safe + 1.0)))
        mu, nu, c = np.zeros(s + 1), np.zeros(s + 1), np.zeros(s + 1)
        mu[2:] = (2 * j[2:] - 1) / j[2:] * b[2:] / b[1:-1]
        nu[2:] = -(j[2:] - 1) / j[2:] * b[2:] / b[:-2]
        mut = mu * (4 / (s**2 + s - 2))
        c[1] = b[1] * 4 / (s**2 + s - 2)
        c[2:] = mut[2:] * b[1:-1]
        return cls(mu, nu, mut, c)

    def response(self, z: Array) -> Array:
        """Return Z_s for D = 1 and eigenvalues `z` = lambda tau: T <- T + response (z T + tau f)."""
        older, newest = np.zeros_like(z), np.full_like(z, self.c[1])
        for j in range(2, self.count + 1):
            older, newest = newest, (self.mu[j] + self.mut[j] * z) * newest + self.nu[j] * older + self.c[j]
        return newest


@dataclass(frozen=True)
class Integrator:
    """The time integration of an interval with a constant action.

    Attributes
    ----------
    plate : Plate
        The plate.
    interval : float
        Duration of an action [s].
    supersteps : int
        Number of RKL2 steps in the interval.
    """

    plate: Plate
    interval: float = 60.0
    supersteps: int = 4

    @property
    def tau(self) -> float:
        """Length of a superstep [s]."""
        return self.interval / self.supersteps

    @property
    def euler_number(self) -> float:
        """Return kappa tau / h^2."""
        return self.plate.diffusivity * self.tau / self.plate.spacing**2

    @functools.cached_property
    def stages(self) -> Stages:
        """The coefficients with the smallest odd number of stages that is stable and at least 3.

        With an odd number the highest modes are damped without a change of sign.
        """
        s = max(3, math.ceil((math.sqrt(9 + 64 * self.euler_number) - 1) / 2))
        return Stages.of(s + 1 - s % 2)

    def modal_system(self, modes: int) -> tuple[Array, Array]:
        """Return the effect of one interval on the modes (k, l) < `modes`: x <- a * x + B u, to rounding.

        Returns
        -------
        a : ndarray, shape (modes**2,)
            Factor of each mode.
        B : ndarray, shape (modes**2, actuators)
            Response to the actuators [K per kW/m2]. In both, entry k modes + l belongs to the mode (k of y, l of x).
        """
        z = self.plate.eigenvalues(modes).ravel() * self.tau
        response = self.stages.response(z)
        once = 1 + z * response
        driven = sum(once**i for i in range(self.supersteps)) * response * self.tau
        return once**self.supersteps, driven[:, None] * self.plate.forcing(modes).reshape(modes**2, -1)

    def exact_modal_system(self, modes: int) -> tuple[Array, Array]:
        """Return the same without the error of the time integration."""
        z = self.plate.eigenvalues(modes).ravel() * self.interval
        driven = np.where(z == 0, 1.0, np.expm1(z) / np.where(z == 0, 1.0, z)) * self.interval
        return np.exp(z), driven[:, None] * self.plate.forcing(modes).reshape(modes**2, -1)


INITIAL_MODES = 6
"""Number of cosines in each direction in a random initial temperature."""


def random_amplitudes(seed: int, rms: float) -> Array:
    """Return the modal amplitudes [K] of a smooth random temperature, shape (INITIAL_MODES, INITIAL_MODES).

    They are independent and normal, with standard deviations proportional to 1 / (1 + k^2 + l^2). They are scaled such
    that the mean square temperature, averaged over seeds, is `rms` squared.
    """
    k = np.arange(INITIAL_MODES)
    deviations = 1 / (1.0 + k[:, None] ** 2 + k[None, :] ** 2)
    deviations *= rms / np.linalg.norm(deviations)
    return deviations * np.random.default_rng(seed).standard_normal(deviations.shape)
