"""A simulation for tests of batches: random walks that end by chance and fail if their action tells them to."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import SimulationDivergedError
from alchemist_ray.mpi_backend.ali import Box, Field, Simulator, TaskContext, task

FINE, DIVERGE, RAISE, NAN, LEAVE, RESHAPE, NO_SCORE, DIE, HANG, FAIL_TO_RESET = range(10)


class Walk(Simulator):
    """A random walk; each rank draws a share of its first coordinate.

    Parameters
    ----------
    chance : float
        Probability that a step is the last.
    odd_infos : bool
        Whether every third info has other names.
    """

    action_space = Box([-1.0, 0.0], [1.0, 9.0], names=["drift", "fault"])
    observation_space = Box(-100.0, 100.0, (3,), names=["x", "y", "z"])

    def __init__(self, comm: MPI.Comm, *, chance: float = 0.15, odd_infos: bool = False) -> None:
        if not 0 <= chance <= 1:
            raise ValueError(f"chance must be between 0 and 1, not {chance}")
        self.comm, self.chance, self.odd_infos = comm, chance, odd_infos
        self.may_reset = True

    def reset(self, seed: int | None) -> None:
        if not self.may_reset:
            self.may_reset = True
            raise SimulationDivergedError(self.context.task, "it was told not to begin")
        self.common = np.random.default_rng([seed or 0, 0])
        self.own = np.random.default_rng([seed or 0, 1 + self.comm.rank])
        self.where, self.steps, self.is_last = self.common.standard_normal(3), 0, False
        self.fault = FINE

    def step(self, action: np.ndarray) -> None:
        self.fault = int(action[1])
        self.fail()
        share, total = self.own.standard_normal(1), np.empty(1)
        self.comm.Allreduce(share, total)
        self.where = self.where + 0.1 * self.common.standard_normal(3) + action[0]
        self.where[0] += total[0]
        self.is_last = self.common.random() < self.chance
        self.steps += 1

    def fail(self) -> None:
        if self.fault == DIVERGE:
            raise SimulationDivergedError(self.context.task, "it was told to")
        if self.fault == RAISE:
            raise RuntimeError("out of luck")
        if self.fault == DIE and self.comm.rank == self.comm.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault in (DIE, HANG):
            time.sleep(3600)
        if self.fault == FAIL_TO_RESET:
            self.may_reset = False
            raise RuntimeError("and the next reset fails too")

    def get_state(self) -> np.ndarray | None:
        if self.comm.rank > 0:
            return None
        if self.fault == NAN:
            return np.array([0.0, np.nan, 0.0])
        if self.fault == LEAVE:
            return np.array([0.0, 0.0, 1e3])
        return self.where[:2] if self.fault == RESHAPE else self.where

    def get_score(self) -> float | None:
        return None if self.fault == NO_SCORE else float(self.where.sum())

    def is_finished(self) -> bool:
        return self.is_last

    def get_info(self) -> dict[str, float]:
        if self.odd_infos and self.steps % 3 == 0:
            return {"third": float(self.steps)}
        return {"steps": float(self.steps), "y": float(self.where[1])}

    def get_field(self) -> Field:
        return Field(np.add.outer(np.arange(4.0), np.arange(6.0)) + self.where[0], "height", "m")

    def snapshot(self) -> Any:
        return self.where.copy(), self.steps, self.common.bit_generator.state, self.own.bit_generator.state

    def restore(self, state: Any) -> None:
        where, self.steps, common, own = state
        self.where, self.is_last, self.fault = where.copy(), False, FINE
        self.common, self.own = np.random.default_rng(), np.random.default_rng()
        self.common.bit_generator.state, self.own.bit_generator.state = common, own


@task
def pids(ctx: TaskContext) -> list[int]:
    """Return the process ids of the ranks."""
    return list(ctx.comm.allgather(os.getpid()))
