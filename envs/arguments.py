"""Checks of the arguments that a caller gives to an environment: seeds, indices, options.

A conversion never stands in for a check: 1.7, True and "1" are not integers here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alchemist_ray.errors import ArgumentError, ArgumentValueError

Seeds = int | Sequence[int | None] | None
"""The seed of a reset of many simulations: one for all, one for each, or none."""


def integer(where: str, what: str, value: Any, lowest: int | None = None) -> int:
    """Return `value` as an int.

    Raises
    ------
    ArgumentError
        If it is not an integer of Python or NumPy; a bool is not an integer here.
    ArgumentValueError
        If it is less than `lowest`.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ArgumentError(where, f"{what} must be an integer, not {value!r} ({type(value).__name__})")
    if lowest is not None and value < lowest:
        raise ArgumentValueError(where, f"{what} must be at least {lowest}, not {value}")
    return int(value)


def members(where: str, what: str, values: Any) -> list[Any]:
    """Return the members of a list, a tuple, or an array with one dimension.

    Raises
    ------
    ArgumentError
        If it is something else, such as text, a set or a masked array.
    """
    is_row = isinstance(values, np.ndarray) and values.ndim == 1 and not isinstance(values, np.ma.MaskedArray)
    if not (is_row or (isinstance(values, Sequence) and not isinstance(values, (str, bytes, bytearray)))):
        raise ArgumentError(where, f"{what} must be a list, not {values!r} ({type(values).__name__})")
    return list(values)


def seed_of(where: str, seed: Any) -> int | None:
    """Return the seed of one simulation.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If it is neither None nor an integer of at least 0.
    """
    return None if seed is None else integer(where, "a seed", seed, 0)


def seeds_of(where: str, seed: Any, count: int) -> list[int | None]:
    """Return a seed for each of `count` simulations; with one integer, simulation i gets seed + i.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If a seed is neither None nor an integer of at least 0, or their number is not `count`.
    """
    if seed is None:
        return [None] * count
    if isinstance(seed, (int, np.integer)):
        first = integer(where, "a seed", seed, 0)
        return [first + i for i in range(count)]
    seeds = [seed_of(where, each) for each in members(where, "seed (where it is not one integer)", seed)]
    if len(seeds) != count:
        raise ArgumentValueError(where, f"there are {len(seeds)} seeds for {count} simulations")
    return seeds


def indices_of(where: str, indices: Any, count: int) -> list[int]:
    """Return which of `count` simulations are meant; None means all.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If an index is not an integer, is out of range, or is given twice.
    """
    if indices is None:
        return list(range(count))
    chosen = [integer(where, "an index", each) for each in members(where, "indices", indices)]
    if len(set(chosen)) < len(chosen) or not all(0 <= i < count for i in chosen):
        raise ArgumentValueError(where, f"the indices must be different ones of 0..{count - 1}, not {chosen}")
    return chosen


def option_of(where: str, options: Any, name: str) -> Any:
    """Return the one option that a reset takes; None if it is not given.

    Raises
    ------
    ArgumentError
        If the options are not a mapping, or have another key.
    """
    if options is None:
        return None
    if not isinstance(options, Mapping):
        raise ArgumentError(where, f"options must be a mapping, not {options!r} ({type(options).__name__})")
    for given in options:
        if given != name:
            near = difflib.get_close_matches(str(given), [name], 1)
            hint = f"did you mean {name!r}?" if near else f"the only option is {name!r}"
            raise ArgumentError(where, f"unknown option {given!r}; {hint}")
    return options.get(name)
