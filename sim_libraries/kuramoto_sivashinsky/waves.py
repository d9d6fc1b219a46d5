"""Steady and travelling waves of the equation without forcing, computed by Newton's method, to validate the simulation.

A wave ``u(x - c t)`` solves ``u_xx + u_xxxx + u u_x - c u_x = 0``. The Jacobian has two zero eigenvalues, one for
translations and one for the mean. So the linear equations are solved by least squares, with a prescribed phase and
mean. The code uses dense NumPy arrays and shares nothing with the simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Wave:
    """A solution that travels without changing its shape.

    Attributes
    ----------
    u : ndarray
        Samples of the wave.
    speed : float
        Speed c; 0 for an equilibrium.
    eigenvalues : ndarray of complex
        Growth rates of disturbances in the frame of the wave, the largest first, without the two zeros.
    modes : ndarray
        The disturbances, one column for each eigenvalue.
    """

    u: Array
    speed: float
    eigenvalues: Array
    modes: Array

    @property
    def energy(self) -> float:
        """Energy <u^2>/2."""
        return float(np.mean(self.u**2) / 2)


def operators(points: int, length: float) -> tuple[Array, Array, Array]:
    """Return three matrices: the projection onto the modes below points/3, and d/dx and -d2/dx2 - d4/dx4 on these."""
    index = np.fft.fftfreq(points, 1 / points)
    kept = np.abs(index) < points / 3
    k = 2 * np.pi / length * index * kept
    transform = np.fft.fft(np.eye(points), axis=0)
    projection, derivative, linear = (
        np.fft.ifft(each[:, None] * transform, axis=0).real for each in (kept, 1j * k, k**2 - k**4)
    )
    return projection, derivative, linear


def find_wave(u: Array, length: float, speed: float = 0.0) -> Wave:
    """Return the wave near the samples `u` and `speed`. Local.

    Raises
    ------
    ArithmeticError
        If Newton's method does not converge.
    """
    projection, derivative, linear = operators(u.size, length)
    wave, c = projection @ u - u.mean(), speed
    phase, mean = np.append(derivative @ wave, 0.0), np.append(np.ones(u.size), 0.0)
    start = wave
    for _ in range(60):
        residual = linear @ wave - derivative @ wave**2 / 2 + c * derivative @ wave
        jacobian = (linear - derivative * wave + c * derivative) @ projection
        if np.abs(residual).max() < 1e-11:
            return _with_modes(wave, c, jacobian)
        matrix = np.vstack([np.column_stack([jacobian, derivative @ wave]), phase, mean])
        right = np.concatenate([-residual, [phase[:-1] @ (start - wave), 0.0]])
        change = np.linalg.lstsq(matrix, right, rcond=1e-12)[0]
        change *= min(1.0, 2.0 / np.abs(change).max())
        wave, c = wave + projection @ change[:-1], c + change[-1]
    raise ArithmeticError("Newton's method did not converge: start closer to a wave")


def _with_modes(u: Array, speed: float, jacobian: Array) -> Wave:
    values, vectors = np.linalg.eig(jacobian)
    order = [i for i in np.argsort(-values.real) if abs(values[i]) > 1e-7]
    return Wave(u, float(speed), values[order], vectors[:, order])
