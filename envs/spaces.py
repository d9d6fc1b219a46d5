"""Gymnasium's spaces of a simulation, from what its library says: bounds, names, units.

A library speaks float64, agents mostly float32. The bounds of an observation are rounded outwards, so that a state
that the library admits is in the space; an action is brought back into the library's own bounds, which rounding may
have moved it out of by the last bit.
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


@dataclass(frozen=True)
class Component:
    """What one number of an action or an observation is.

    Attributes
    ----------
    name, unit : str
        Empty where the library says nothing.
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
        Of the components, in C order; empty where the library says nothing.
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
        """Return the bounds of a space about which the library says nothing but its shape."""
        return cls(np.full(shape, -np.inf), np.full(shape, np.inf))

    @cached_property
    def _interval(self) -> Interval:
        return Interval(self.low, self.high)

    @property
    def components(self) -> list[Component]:
        """What each number is, in C order."""

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
            Who was given it, for messages.
        action : array-like
            Of the shape of the space; with `batch`, so many of them.
        batch : int, optional
            Number of actions.

        Raises
        ------
        ArgumentValueError
            If it has another shape, contains NaN, or lies outside by more than rounding; the component is named.
        """
        try:
            taken = np.asarray(action, np.float64)
        except (TypeError, ValueError) as misfit:
            raise ArgumentValueError(where, f"the action is no array of real numbers: {misfit}") from None
        shape = self.low.shape if batch is None else (batch, *self.low.shape)
        if taken.shape != shape:
            raise ArgumentValueError(where, f"the action has shape {taken.shape}, not {shape}")
        if self._interval.holds(taken) if batch is None else ((self.low <= taken) & (taken <= self.high)).all():
            return taken
        clipped = np.clip(taken, self.low, self.high)
        self._check_distance(where, taken, clipped)
        return clipped

    def _check_distance(self, where: str, taken: Array, clipped: Array) -> None:
        """Raise unless an action is out of its bounds by no more than float32 rounds."""
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
        raise ArgumentValueError(where, f"the action{which} is {taken[first]} outside {low}..{high}{place}")
