"""A simulation for tests: the heat equation on a ring that is distributed over the ranks and heated at two places."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import Box, Simulator, TaskContext, task

__version__ = "0.7"


class Ring(Simulator):
    """Heat on a ring of cells.

    Parameters
    ----------
    n : int
        Number of cells.
    diffusivity : float
        Share of the difference to its neighbours that a cell takes over in each step.
    """

    action_space = Box(-1.0, 1.0, (2,), names=["first", "second"], units=["K", "K"])

    def __init__(self, comm: MPI.Comm, *, n: int = 16, diffusivity: float = 0.2) -> None:
        if n < comm.size:
            raise ValueError(f"n must be at least {comm.size}, not {n}")
        self.comm, self.n, self.diffusivity = comm, n, diffusivity
        self.first = [n * rank // comm.size for rank in range(comm.size + 1)]
        self.steps = 0

    def reset(self, seed: int | None) -> None:
        whole = np.random.default_rng(seed).standard_normal(self.n)
        self.u = whole[self.first[self.comm.rank] : self.first[self.comm.rank + 1]].copy()
        self.steps = 0

    def step(self, action: np.ndarray) -> None:
        for place, heat in zip((0, self.n // 2), action, strict=True):
            local = place - self.first[self.comm.rank]
            if 0 <= local < self.u.size:
                self.u[local] += heat
        left, right = (self.comm.rank - 1) % self.comm.size, (self.comm.rank + 1) % self.comm.size
        before = self.comm.sendrecv(self.u[-1], right, source=left)
        after = self.comm.sendrecv(self.u[0], left, source=right)
        padded = np.concatenate([[before], self.u, [after]])
        self.u = self.u + self.diffusivity * (padded[:-2] - 2 * self.u + padded[2:])
        self.steps += 1

    def get_state(self) -> np.ndarray | None:
        parts = self.comm.gather(self.u)
        return np.concatenate(parts) if parts else None

    def get_score(self) -> float | None:
        total = self.comm.reduce(float(np.sum(self.u**2)))
        return None if total is None else -total

    def is_finished(self) -> bool:
        return self.steps >= 5


@task
def version_of_mpi(ctx: TaskContext) -> str:
    """Return the version of MPI; a library with a simulator may also have other tasks."""
    return MPI.Get_library_version().split()[0]
