"""The infos of a vector environment's step, in the layout of gymnasium's own vector environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.envs.batch_group import Advance
from alchemist_ray.protocol.batches import INFO

Flags = npt.NDArray[np.bool_]

AddInfo = Callable[[dict[str, Any], dict[str, Any], int], dict[str, Any]]
"""Adds the info of one simulation to those of all: ``VectorEnv._add_info``."""


class StepInfos:
    """Arrays with an entry for each simulation; the array ``_key`` says which simulations have ``key``.

    Parameters
    ----------
    count : int
        Number of simulations.
    add : callable
        See :data:`AddInfo`.

    Attributes
    ----------
    infos : dict
        The arrays by name.
    """

    def __init__(self, count: int, add: AddInfo) -> None:
        self.infos: dict[str, Any] = {}
        self._count = count
        self._add = add

    def add(self, i: int, info: dict[str, Any]) -> None:
        """Add the info of simulation i."""
        self._add(self.infos, info, i)

    def add_columns(self, advance: Advance, span: slice, informed: Flags) -> None:
        """Add the infos of the simulations of a group that have the names of its columns, all at once."""
        mask = informed[span]
        if not advance.names or not mask.any():
            return
        for column, name in enumerate(advance.names, INFO):
            if name not in self.infos:
                self.infos[name], self.infos[f"_{name}"] = np.zeros(self._count), np.zeros(self._count, bool)
            self.infos[name][span][mask] = advance.numbers[mask, column]
            self.infos[f"_{name}"][span] |= mask
