"""Checks of the values that a simulator returns and of those that it is given: states, scores, infos, actions, seeds.

A conversion never stands in for a check: text, complex numbers, booleans and masked arrays are not real numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import (
    ArgumentError,
    RemoteTaskError,
    SimulationDivergedError,
    StateMisfitError,
)
from alchemist_ray.mpi_backend.ali.simulator import Box, Simulator

Array = npt.NDArray[Any]

ACTION_KINDS = "iuf"
"""Kinds of NumPy's types that an action may have."""

STATE_KINDS = "biuf"
"""Kinds of NumPy's types that a state may have."""

_NUMBERS = (float, int, np.floating, np.integer)
_BOOLS = (bool, np.bool_)

# --- from a simulator -------------------------------------------------------------------------------------------------


def as_state(task: str, state: Any) -> Array:
    """Return a state as an array in C order. Local.

    Raises
    ------
    RemoteTaskError
        If it is None.
    StateMisfitError
        If it is not made of real numbers, or some of it is masked.
    """
    if type(state) is np.ndarray and state.dtype.kind in STATE_KINDS:
        return np.ascontiguousarray(state) if state.ndim else state
    if state is None:
        raise RemoteTaskError(task, "TypeError", "get_state returned None on rank 0")
    if np.ma.is_masked(state):
        raise StateMisfitError(task, "has masked elements")
    array = np.asarray(state, order="C")
    if array.dtype.kind not in STATE_KINDS:
        raise StateMisfitError(task, f"has dtype {array.dtype}, which is not real")
    return array


def as_score(task: str, score: Any) -> float:
    """Return a score as a float; it may be infinite or NaN. Local.

    Raises
    ------
    RemoteTaskError
        If it is None, or not one real number.
    """
    if type(score) is float:
        return score
    if isinstance(score, _NUMBERS) and not isinstance(score, bool):
        return float(score)
    if score is None:
        raise RemoteTaskError(task, "TypeError", "get_score returned None on rank 0")
    array = np.asarray(score)  # of another array library, or with no dimension
    if array.dtype.kind not in ACTION_KINDS or array.size != 1 or np.ma.is_masked(score):
        raise RemoteTaskError(task, "TypeError", f"get_score returned {score!r} on rank 0, which is not a real number")
    return float(array.item())


def check_score(task: str, score: float) -> None:
    """Raise SimulationDivergedError if a score is not finite. Local."""
    if not math.isfinite(score):
        raise SimulationDivergedError(task, f"its score is {score}")


def as_flag(task: str, finished: Any) -> bool:
    """Return the answer of ``is_finished`` as a bool. Local.

    Raises
    ------
    RemoteTaskError
        If it is not a bool, 0 or 1: the truth of other values is not what their author meant.
    """
    if type(finished) is bool:
        return finished
    if isinstance(finished, (*_BOOLS, int, np.integer)) and finished in (0, 1):
        return bool(finished)
    raise RemoteTaskError(task, "TypeError", f"is_finished returned {finished!r} on rank 0, which is not a bool")


def are_numbers(info: Mapping[str, Any]) -> bool:
    """Whether all values of an info are real numbers. Local."""
    return all(
        type(value) is float or (isinstance(value, _NUMBERS) and not isinstance(value, bool)) for value in info.values()
    )


def check_state(task: str, simulator: Simulator, state: Array) -> None:
    """Check that a state is finite and in the simulator's space. Local.

    Raises
    ------
    SimulationDivergedError
        If it is not finite.
    StateMisfitError
        If it is not in the space.
    """
    space = simulator.observation_space
    misfit = space.misfit(state) if space is not None else ""
    if (misfit or space is None or not space.is_bounded) and not np.isfinite(state).all():
        raise SimulationDivergedError(task, "its state is not finite")
    if misfit:
        raise StateMisfitError(task, misfit)


def first_state(task: str, simulator: Simulator, rank: int) -> Array | None:
    """Return the state after a reset, checked, on rank 0; None elsewhere. Collective over the simulation's ranks."""
    state = simulator.get_state()
    if rank != 0:
        return None
    array = as_state(task, state)
    check_state(task, simulator, array)
    return array


def field_of(task: str, simulator: Simulator, rank: int) -> dict[str, Any] | None:
    """Return a picture as plain values on rank 0; None elsewhere, or if there is none. Collective.

    Raises
    ------
    RemoteTaskError
        If its values are not a matrix of real numbers.
    """
    field = simulator.get_field()
    if field is None or rank != 0:
        return None
    values = np.asarray(field.values)
    if values.ndim != 2 or values.dtype.kind not in STATE_KINDS:
        raise RemoteTaskError(
            task,
            "TypeError",
            f"get_field returned values of shape {values.shape} and dtype {values.dtype}: a picture "
            "is a matrix of real numbers",
        )
    if np.ma.is_masked(field.values):
        raise RemoteTaskError(task, "TypeError", "get_field returned masked values: fill them, with NaN for solid")
    return field.to_wire()


# --- to a simulator ---------------------------------------------------------------------------------------------------


def action_misfit(space: Box | None, action: Array) -> str:
    """Return why an action cannot be given to a simulator, in words; empty if it can. Local."""
    if action.dtype.kind not in ACTION_KINDS:
        return f"has dtype {action.dtype}, which is not a real number"
    misfit = space.misfit(action) if space is not None else ""
    if misfit or (space is not None and space.is_bounded) or np.isfinite(action).all():
        return misfit
    return "is not finite"


def check_integers(task: str, what: str, values: Sequence[Any], *, optional: bool = False) -> None:
    """Raise ArgumentError if a list has a member that is not an integer; with `optional` it may be None. Local."""
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            continue
        if not (optional and value is None):
            raise ArgumentError(task, f"{what} must be integers, not {value!r} ({type(value).__name__})")
