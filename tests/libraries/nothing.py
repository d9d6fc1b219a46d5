"""A simulation that does nothing, to measure the cost of a step without the simulation."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import Box, Simulator


class Nothing(Simulator):
    """Four numbers that never change."""

    action_space = Box(-1.0, 1.0, (2,))
    observation_space = Box(-1.0, 1.0, (4,))

    def __init__(self, comm: MPI.Comm) -> None:
        self.state = np.zeros(4)

    def reset(self, seed: int | None) -> None:
        pass

    def step(self, action: np.ndarray) -> None:
        pass

    def get_state(self) -> np.ndarray:
        return self.state

    def get_score(self) -> float:
        return 0.0
