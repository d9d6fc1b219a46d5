"""Long waves from the sea: a random sum of waves in a channel with walls.

Each component is a linear long wave over the depth H. It has a frequency omega and an integer number m of half waves
between the walls, whose distance is W:

    eta = a cos(kx x - omega t + phase) cos(ky y),   ky = m pi / W,   kx = sqrt(omega^2 / (g H) - ky^2)

The velocities follow from u_t = -g eta_x and v_t = -g eta_y. The amplitudes are those of a JONSWAP spectrum (Hasselmann
et al. 1973, peak enhancement 3.3) with a given significant height. The phases and m are random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alchemist_ray.sim_libraries.shallow_water.kernels import GRAVITY

Doubles = npt.NDArray[np.float64]

_COMPONENTS = 24
_PEAK_ENHANCEMENT = 3.3
_STEEPEST = 0.4
"""Largest ky/k. No wave deviates from the x axis by more than 24 degrees."""


def jonswap(frequency: Doubles, peak: float) -> Doubles:
    """Return the JONSWAP spectrum at angular frequencies, in an arbitrary unit."""
    width = np.where(frequency <= peak, 0.07, 0.09)
    bump = np.exp(-0.5 * ((frequency - peak) / (width * peak)) ** 2)
    return frequency**-5 * np.exp(-1.25 * (peak / frequency) ** 4) * _PEAK_ENHANCEMENT**bump


@dataclass(frozen=True)
class Waves:
    """A sum of waves. Each attribute has one entry for each wave.

    Attributes
    ----------
    amplitude : ndarray
        Amplitudes in m.
    omega, kx, ky : ndarray
        Angular frequencies in rad/s, and wave numbers in rad/m.
    phase : ndarray
        Phases in rad.
    """

    amplitude: Doubles
    omega: Doubles
    kx: Doubles
    ky: Doubles
    phase: Doubles

    @classmethod
    def random(cls, rng: np.random.Generator, height: float, peak_period: float, depth: float, width: float) -> Waves:
        """Return waves with significant height `height` and peak period `peak_period` in a channel with walls."""
        peak = 2 * np.pi / peak_period
        edges = np.linspace(0.7 * peak, 2.2 * peak, _COMPONENTS + 1)
        omega = edges[:-1] + np.diff(edges) * rng.random(_COMPONENTS)
        energy = jonswap(omega, peak) * np.diff(edges)
        wavenumber = omega / np.sqrt(GRAVITY * depth)
        most = np.floor(_STEEPEST * wavenumber * width / np.pi).astype(int)
        ky = rng.integers(0, most + 1) * np.pi / width
        # The mean of cos^2(ky y) over the width is 1/2 if ky > 0, so such a wave needs twice the squared amplitude.
        energy *= (height / 4) ** 2 / energy.sum() * np.where(ky > 0, 2, 1)
        phase = rng.uniform(0, 2 * np.pi, _COMPONENTS)
        return cls(np.sqrt(2 * energy), omega, np.sqrt(wavenumber**2 - ky**2), ky, phase)

    def at(self, x: Doubles, y: Doubles, t: float) -> tuple[Doubles, Doubles, Doubles]:
        """Return the surface elevation (m) and velocity (m/s) at places that broadcast against each other."""
        shape = np.broadcast_shapes(x.shape, y.shape)
        eta, u, v = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for a, omega, kx, ky, phase in zip(self.amplitude, self.omega, self.kx, self.ky, self.phase, strict=True):
            theta = kx * x - omega * t + phase
            rising, across = a * np.cos(theta), np.cos(ky * y)
            eta += rising * across
            u += GRAVITY * kx / omega * rising * across
            v -= GRAVITY * ky / omega * a * np.sin(theta) * np.sin(ky * y)
        return eta, u, v


class WavesAtLine:
    """Waves at x = 0 in the rows `y`, prepared for fast evaluation at many times.

    Parameters
    ----------
    waves : Waves
        The incoming waves.
    y : ndarray, shape (n,)
        Coordinates of the rows in m.
    """

    def __init__(self, waves: Waves, y: Doubles) -> None:
        self._waves = waves
        across, sideways = np.cos(np.outer(y, waves.ky)), np.sin(np.outer(y, waves.ky))
        self._eta = across * waves.amplitude
        self._u = self._eta * (GRAVITY * waves.kx / waves.omega)
        self._v = -sideways * (waves.amplitude * GRAVITY * waves.ky / waves.omega)

    def __call__(self, t: float) -> tuple[Doubles, Doubles, Doubles]:
        """Return the surface elevation (m) and velocity (m/s) at the time `t` (s). Local."""
        theta = self._waves.phase - self._waves.omega * t
        rising = np.cos(theta)
        return self._eta @ rising, self._u @ rising, self._v @ np.sin(theta)
