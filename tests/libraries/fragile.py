"""A simulation for tests: a random walk that can be told to fail."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import SimulationDivergedError
from alchemist_ray.mpi_backend.ali import Box, Field, Simulator, TaskContext, task


class Fragile(Simulator):
    """A random walk in two dimensions. The first rank keeps x, the last rank keeps y.

    Parameters
    ----------
    fault : str
        The fault at step `at`: ``diverge``, ``die``, ``hang``, ``raise``, ``alone`` (the last rank raises, the others
        wait for it), ``nan``, ``leave`` (the declared space), or nothing. With ``snapshot`` the last rank cannot take a
        snapshot, with ``restore`` it cannot be restored, and with ``stateless`` it has no state.
    at : int
        The step, counted from 1.
    lifetime : bool
        Whether steps are counted from the creation of the simulation instead of its reset.
    once : str
        A path. The fault makes this file, and does not happen again if the file exists.
    """

    action_space = Box([-1.0, -0.1], [1.0, 0.1], names=["push", "nudge"], units=["m", "m"])
    observation_space = Box(-100.0, 100.0, (3,), names=["x", "y", "time"], units=["m", "m", "s"])

    def __init__(self, comm: MPI.Comm, *, fault: str = "", at: int = 0, lifetime: bool = False, once: str = "") -> None:
        self.comm, self.fault, self.at, self.lifetime, self.once = comm, fault, at, lifetime, once
        self.lived = 0

    def reset(self, seed: int | None) -> None:
        self.random = np.random.default_rng(seed)
        self.where, self.steps = self.random.standard_normal(2), 0

    def step(self, action: np.ndarray) -> None:
        self.steps += 1
        self.lived += 1
        if (self.lived if self.lifetime else self.steps) == self.at and not (self.once and os.path.exists(self.once)):
            self.comm.Barrier()
            if self.once and self.comm.rank == 0:
                open(self.once, "w").close()
            self.fail()
        self.where = self.where + action + 0.01 * self.random.standard_normal(2)

    def fail(self) -> None:
        if self.fault == "diverge":
            raise SimulationDivergedError(self.context.task, "it was told to")
        if self.fault == "raise":
            raise RuntimeError("out of luck")
        if self.fault == "die" and self.comm.rank == self.comm.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "alone":
            if self.comm.rank == self.comm.size - 1:
                raise RuntimeError("out of luck, alone")
            self.comm.Barrier()
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "nan":
            self.where[0] = np.nan
        if self.fault == "leave":
            self.where[0] = 1e3

    def get_state(self) -> np.ndarray | None:
        if self.fault == "stateless":
            return None
        y = self.comm.bcast(self.where[1], self.comm.size - 1)
        return np.array([self.where[0], y, self.steps])

    def get_score(self) -> float:
        return float(-np.sum(self.where**2))

    def get_info(self) -> dict[str, float]:
        return {"distance": float(np.hypot(*self.where))}

    def get_field(self) -> Field:
        return Field(np.add.outer(np.arange(4.0), np.arange(6.0)) - 3 + self.where[0], "height", "m")

    def snapshot(self) -> object:
        if self.fault == "snapshot" and self.comm.rank == self.comm.size - 1 and not os.path.exists(self.once):
            open(self.once, "w").close()
            raise MemoryError
        return self.where.copy(), self.steps, self.random.bit_generator.state

    def restore(self, state: object) -> None:
        if self.fault == "restore":
            raise RuntimeError("it cannot be restored")
        where, self.steps, random = state
        self.where, self.random = where.copy(), np.random.default_rng()
        self.random.bit_generator.state = random


@task
def pid_of_last(ctx: TaskContext) -> int:
    """Return the process id of the last rank."""
    return int(ctx.comm.bcast(os.getpid(), ctx.comm.size - 1))
