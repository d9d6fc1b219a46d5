"""Gymnasium's spaces of a simulation, from the description of its library: bounds, names, units.

A library uses float64, agents mostly float32. The bounds of an observation are rounded outwards, so that every state
that the library admits is in the space. An action that rounding has moved out of the library's bounds by the last bit
is clipped to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import gymnasium
import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.layouts.bounds import Interval

Array = npt.NDArray[Any]

REAL_KINDS = "iuf"
"""Kinds of NumPy's types that are real numbers; a bool is not a number here."""


@dataclass(frozen=True)
class Component:
    """The meaning of one number of an action or an observation.

    Attributes
    ----------
    name, unit : str
        Empty where the library does not give one.
    low, high : float
        Its bounds.
    """

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Bounds:
    """The arrays between two bounds, with the meaning of their components.

    Attributes
    ----------
    low, high : ndarray of float64
        The library's own bounds.
    names, units : tuple of str
        Of the components, in C order; empty where the library gives none.
    """

    low: Array
    high: Array
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @classmethod
    def of(cls, box: Mapping[str, Any]) -> Self:
        """Return the bounds that a library's ``get_spaces`` describes."""
        return cls(np.asarray(box["low"]), np.asarray(box["high"]), tuple(box["names"]), tuple(box["units"]))

    @classmethod
    def unbounded(cls, shape: tuple[int, ...]) -> Self:
        """Return the bounds of a space of which only the shape is known."""
        return cls(np.full(shape, -np.inf), np.full(shape, np.inf))

    @cached_property
    def _interval(self) -> Interval:
        most = np.finfo(np.float64).max  # in place of infinity: an infinite action is in no space
        return Interval(np.maximum(self.low, -most), np.minimum(self.high, most))

    @property
    def components(self) -> list[Component]:
        """The meaning of each number, in C order."""

        def at(texts: tuple[str, ...], place: int) -> str:
            return texts[place] if place < len(texts) else ""

        pairs = zip(self.low.ravel().tolist(), self.high.ravel().tolist(), strict=True)
        return [Component(at(self.names, i), at(self.units, i), low, high) for i, (low, high) in enumerate(pairs)]

    def space(self, dtype: str) -> gymnasium.spaces.Box:
        """Return gymnasium's space, of `dtype`, with every array that lies between the bounds."""
        kind = np.dtype(dtype).type
        low, high = self.low.astype(kind), self.high.astype(kind)
        low = np.where(low > self.low, np.nextafter(low, kind(-np.inf)), low)
        high = np.where(high < self.high, np.nextafter(high, kind(np.inf)), high)
        return gymnasium.spaces.Box(low, high, dtype=kind)

    def admit(self, where: str, action: Any, batch: int | None = None) -> Array:
        """Return an action as the library takes it: float64, between its bounds.

        Parameters
        ----------
        where : str
            Name of the call, for messages.
        action : array-like
            Of the shape of the space; with `batch`, an array of that many actions.
        batch : int, optional
            Number of actions.

        Raises
        ------
        ArgumentValueError
            If it is not made of real numbers, has another shape, is not finite, or lies outside by more than rounding;
            the component is named.
        """
        taken = real_array(where, "the action", action)
        shape = self.low.shape if batch is None else (batch, *self.low.shape)
        if taken.shape != shape:
            raise ArgumentValueError(where, f"the action has shape {taken.shape}, not {shape}")
        low, high = self._interval.low, self._interval.high
        if self._interval.holds(taken) if batch is None else ((low <= taken) & (taken <= high)).all():
            return taken
        clipped = np.clip(taken, low, high)
        self._check_distance(where, taken, clipped)
        return clipped

    def _check_distance(self, where: str, taken: Array, clipped: Array) -> None:
        """Raise if an action is out of its bounds by more than a rounding error of float32."""
        with np.errstate(invalid="ignore"):
            outside = ~(np.abs(taken - clipped) <= 4e-7 * np.maximum(np.abs(clipped), 1e-30))
        if not outside.any():
            return
        first = tuple(int(i) for i in np.argwhere(outside)[0])
        component = first[taken.ndim - self.low.ndim :]
        flat = int(np.ravel_multi_index(component, self.low.shape)) if component else 0
        name = f" ({self.names[flat]})" if flat < len(self.names) and self.names[flat] else ""
        place = f" in component {component[0] if len(component) == 1 else component}{name}" if component else name
        which = f" of simulation {first[0]}" if taken.ndim > self.low.ndim else ""
        low, high = self.low[component], self.high[component]
        range_ = "the finite numbers" if low <= taken[first] <= high else f"{low}..{high}"
        raise ArgumentValueError(where, f"the action{which} is {taken[first]} outside {range_}{place}")


def real_array(where: str, what: str, value: Any) -> Array:
    """Return `value` as an array of float64.

    NumPy converts text, complex numbers, booleans and masked arrays without an error. Here they are refused.

    Raises
    ------
    ArgumentValueError
        If it is not made of real numbers (text, complex numbers, booleans, dates and objects are refused), if its rows
        have different lengths, or if some of it is masked.
    """
    if type(value) is np.ndarray and value.dtype.kind in REAL_KINDS:
        return np.asarray(value, np.float64)
    if _is_masked(value):
        raise ArgumentValueError(where, f"{what} has masked elements: fill them first, e.g. with filled(0.0)")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as misfit:
        raise ArgumentValueError(where, f"{what} is not an array of real numbers: {misfit}") from None
    if array.dtype.kind not in REAL_KINDS or _has_bool(value):
        kind = "bool" if _has_bool(value) else array.dtype
        raise ArgumentValueError(where, f"{what} is not an array of real numbers, but of type {kind}")
    return array.astype(np.float64)


def _is_masked(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_masked, value))
    return bool(np.ma.is_masked(value))


def _has_bool(value: Any) -> bool:
    """Whether a bool is among the members of a list, where NumPy takes it for the number 0 or 1."""
    if isinstance(value, (list, tuple)):
        return any(map(_has_bool, value))
    return isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) == np.bool_
