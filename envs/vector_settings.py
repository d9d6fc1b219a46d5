"""The keys of a vector environment: those of an environment, and how its simulations share workers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from gymnasium.vector import AutoresetMode

from alchemist_ray.envs.settings import EnvSettings, check_key
from alchemist_ray.errors import ArgumentValueError

_WHERE = "env_config"


@dataclass(frozen=True)
class VectorSettings(EnvSettings):
    """What a vector environment is told, in addition to :class:`EnvSettings`; `num_workers` are the ranks of one group.

    Attributes
    ----------
    num_envs : int
        Number of simulations.
    num_groups : int
        Worker groups that share the simulations, each with `num_workers` ranks. Groups step at the same time. A group
        that dies takes only its own simulations with it.
    workers_per_simulation : int, optional
        Ranks of a simulation. By default the ranks of a group are divided evenly among its simulations, at least one
        for each; simulations that share ranks run one after the other.
    autoreset_mode : gymnasium.vector.AutoresetMode or str
        When a simulation whose episode is over begins another one: in the next step, in the same step, or when
        :meth:`HPCVectorEnv.reset` says so.
    """

    num_envs: int = 1
    num_groups: int = 1
    workers_per_simulation: int | None = None
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP

    def __post_init__(self) -> None:
        super().__post_init__()
        check_key("num_envs", self.num_envs, (int,), 1)
        check_key("num_groups", self.num_groups, (int,), 1)
        check_key("workers_per_simulation", self.workers_per_simulation, (int, type(None)), 1)
        if self.num_groups > self.num_envs:
            raise ArgumentValueError(
                _WHERE, f"num_groups must be at most num_envs, which is {self.num_envs}, not {self.num_groups}"
            )
        if (self.workers_per_simulation or 1) > self.num_workers:
            raise ArgumentValueError(
                _WHERE,
                f"workers_per_simulation must be at most num_workers, which is {self.num_workers}, not "
                f"{self.workers_per_simulation}",
            )
        object.__setattr__(self, "autoreset_mode", self._mode())  # a frozen dataclass, set once

    def _mode(self) -> AutoresetMode:
        by_name = {mode.name.lower(): mode for mode in AutoresetMode}
        try:
            return by_name.get(str(self.autoreset_mode).lower()) or AutoresetMode(self.autoreset_mode)
        except ValueError:
            modes = ", ".join(mode.name for mode in AutoresetMode)
            raise ArgumentValueError(
                _WHERE, f"autoreset_mode must be one of {modes}, not {self.autoreset_mode!r}"
            ) from None

    @property
    def mode(self) -> AutoresetMode:
        """The autoreset mode."""
        return AutoresetMode(self.autoreset_mode)

    def spans(self) -> list[range]:
        """Return the simulations of each group."""
        bounds = [self.num_envs * group // self.num_groups for group in range(self.num_groups + 1)]
        return [range(start, stop) for start, stop in itertools.pairwise(bounds)]
