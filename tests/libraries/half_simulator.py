"""A simulation for tests that lacks two calls."""

from __future__ import annotations

import numpy as np

from alchemist_ray.mpi_backend.ali import Simulator


class Half(Simulator):
    """It cannot be stepped."""

    def __init__(self, comm: object) -> None:
        pass

    def reset(self, seed: int | None) -> None:
        pass

    def get_state(self) -> np.ndarray:
        return np.zeros(1)
