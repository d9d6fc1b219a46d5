"""A simulation for tests whose calls return values that are not what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import Box, Field, Simulator

STATE = np.array([1.0, 2.0])

ODD: dict[str, dict[str, Any]] = {
    "complex_state": {"state": STATE + 1j},
    "text_state": {"state": np.array(["1", "2"])},
    "masked_state": {"state": np.ma.masked_greater(STATE, 1.5)},
    "text_score": {"score": "1.5"},
    "complex_score": {"score": 1.5 + 0j},
    "bool_score": {"score": True},
    "text_finished": {"finished": "False"},
    "no_finished": {"finished": None},
    "complex_field": {"field": np.ones((2, 2)) + 1j},
    "flat_field": {"field": np.ones(4)},
    "masked_field": {"field": np.ma.masked_greater(np.ones((2, 2)), 0.5)},
    "array_score": {"score": np.array(1.5)},
    "int_finished": {"finished": 0},
    "bool_info": {"info": {"wet": True}},
}


class Odd(Simulator):
    """A simulation that does nothing; `what` names the odd value."""

    action_space = Box(-np.inf, np.inf, (2,), names=["push", "pull"])

    def __init__(self, comm: MPI.Comm, *, what: str = "") -> None:
        usual = {"state": STATE, "score": 0.5, "finished": False, "info": {}, "field": np.ones((2, 2))}
        self.values = usual | ODD.get(what, {})
        self.fresh = True

    def reset(self, seed: int | None) -> None:
        self.fresh = True

    def step(self, action: np.ndarray) -> None:
        self.fresh = False

    def get_state(self) -> Any:
        return STATE if self.fresh else self.values["state"]

    def get_score(self) -> Any:
        return self.values["score"]

    def is_finished(self) -> Any:
        return self.values["finished"]

    def get_info(self) -> Any:
        return self.values["info"]

    def get_field(self) -> Field:
        return Field(self.values["field"])
