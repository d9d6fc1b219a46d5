"""The base class of simulations in Python, and the spaces and pictures that they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts.bounds import Interval
from alchemist_ray.mpi_backend.ali.context import TaskContext

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Box:
    """The arrays between two bounds: the actions that a simulation takes, or the states that it returns.

    Attributes
    ----------
    low, high : float or sequence of float
        The bounds, one for all components or one for each; they may be infinite.
    shape : tuple of int, optional
        Shape of the arrays; by default the shape of the bounds.
    names, units : sequence of str
        Name and unit of each component; may be empty.
    """

    low: float | Sequence[float]
    high: float | Sequence[float]
    shape: tuple[int, ...] | None = None
    names: Sequence[str] = ()
    units: Sequence[str] = ()

    def bounds(self) -> tuple[Array, Array]:
        """Return the bounds as two float64 arrays of the shape of the box."""
        return self._bounds

    @cached_property
    def _bounds(self) -> tuple[Array, Array]:
        low, high = np.asarray(self.low, float), np.asarray(self.high, float)
        shape = self.shape if self.shape is not None else np.broadcast_shapes(low.shape, high.shape)
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)

    @cached_property
    def _interval(self) -> Interval:
        return Interval(*self._bounds)

    @cached_property
    def is_bounded(self) -> bool:
        """Whether all arrays in the box are finite."""
        return bool(np.isfinite(self._bounds).all())

    def misfit(self, value: Array) -> str:
        """Return in words why `value` does not lie in the box; empty if it does."""
        low, high = self._bounds
        if value.shape != low.shape:
            return f"has shape {value.shape}, not {low.shape}"
        if value.dtype.kind not in "biuf":
            return f"has dtype {value.dtype}, which is not real"
        if self._interval.holds(value):
            return ""
        inside = (low <= value) & (value <= high)
        if np.isnan(value).any():
            return f"contains NaN{self._where(np.isnan(value))}"
        first = tuple(int(i) for i in np.argwhere(~inside)[0])
        return f"is {value[first]} outside {low[first]}..{high[first]}{self._where(~inside)}"

    def _where(self, wrong: npt.NDArray[np.bool_]) -> str:
        if wrong.ndim == 0:
            return ""
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        flat = int(np.ravel_multi_index(first, wrong.shape))
        name = f" ({self.names[flat]})" if flat < len(self.names) and self.names[flat] else ""
        return f" in component {first[0] if len(first) == 1 else first}{name}"

    def to_wire(self) -> dict[str, Any]:
        """Return the box as plain values."""
        low, high = self.bounds()
        return {
            "low": np.ascontiguousarray(low),
            "high": np.ascontiguousarray(high),
            "names": list(self.names),
            "units": list(self.units),
        }


@dataclass(frozen=True)
class Field:
    """A picture of a simulation as numbers; the client colours it.

    Attributes
    ----------
    values : ndarray, shape (ny, nx)
        Real numbers; the first row is the top of the picture. NaN is drawn as a solid.
    name, unit : str
        Name and unit of the values.
    low, high : float, optional
        Values at the ends of the colour scale; by default the smallest and the largest value.
    extent : (float, float, float, float), optional
        Coordinates of the picture's left, right, bottom and top edge; without them the picture has no axes.
    axes : (str, str)
        Names of the horizontal and the vertical coordinate, with their units, such as ``("x (m)", "y (m)")``.
    """

    values: Array
    name: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    extent: tuple[float, float, float, float] | None = None
    axes: tuple[str, str] = ("", "")

    def to_wire(self) -> dict[str, Any]:
        """Return the field as plain values; `extent` and `axes` only where they are given."""
        values = np.ascontiguousarray(self.values, np.float32)
        wire = {"values": values, "name": self.name, "unit": self.unit, "low": self.low, "high": self.high}
        if self.extent is not None:
            wire |= {"extent": [float(edge) for edge in self.extent], "axes": list(self.axes)}
        return wire


class Simulator(ABC):
    """An MPI simulation that is stepped from outside. Every method is collective over `comm`.

    A library is a module with one such class. Its constructor's keyword arguments become the parameters of the task
    ``create``. Its other methods become the tasks ``reset, step, get_state, get_score`` of one simulation or many::

        class Heat(Simulator):
            \"\"\"The heat equation on a ring.\"\"\"

            action_space = Box(-1.0, 1.0, (1,), names=["heating"], units=["K/s"])

            def __init__(self, comm: MPI.Comm, *, n: int = 128) -> None:
                self.comm = comm
                ...

    If something goes wrong on one rank only, such as a field with NaN or infinity, the ranks must learn it by a
    reduction before any rank raises, because the other ranks would wait in MPI. The error for this is
    :class:`~alchemist_ray.errors.SimulationDivergedError`. A simulation can be reset after any error.

    Attributes
    ----------
    context : TaskContext
        The context of the running call: progress, cancellation, log, scratch directory, memory for matrices. It is set
        before each call, including the constructor.
    action_space, observation_space : Box or None
        The spaces of the actions and states, as class attributes or set by the constructor; None: anything. An action
        outside its space is refused before any rank sees it.
    """

    context: TaskContext
    action_space: Box | None = None
    observation_space: Box | None = None

    @abstractmethod
    def __init__(self, comm: MPI.Comm) -> None:
        """Make the simulation on the ranks of `comm`; keyword arguments are its parameters."""

    @abstractmethod
    def reset(self, seed: int | None) -> None:
        """Start again from the beginning. The same seed gives exactly the same simulation."""

    @abstractmethod
    def step(self, action: Array) -> None:
        """Advance by one step under `action`, which is the same on every rank."""

    @abstractmethod
    def get_state(self) -> Array | None:
        """Return the state that the agent sees, at least on rank 0; the results of other ranks are ignored."""

    @abstractmethod
    def get_score(self) -> float | None:
        """Return the score of the last step, at least on rank 0."""

    def is_finished(self) -> bool:
        """Whether the simulation has reached its end, at least on rank 0. By default it never does."""
        return False

    def get_info(self) -> Mapping[str, float] | None:
        """Return more numbers about the last step by name, at least on rank 0: the agent's `info`."""
        return None

    def get_field(self) -> Field | None:
        """Return a picture of the present state, at least on rank 0. Simulations without pictures omit this method."""
        raise NotImplementedError

    def snapshot(self) -> Any:
        """Return this rank's part of the data needed to continue bit for bit, including the random generators.

        The snapshot stays in this rank's memory, and must not change when the simulation goes on. A simulation that
        cannot make snapshots omits this method.
        """
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        """Continue from a snapshot that :meth:`snapshot` returned; it must not be changed.

        The snapshot may come from another simulation with the same parameters and the same number of ranks. A
        simulation can be restored before its first reset.
        """
        raise NotImplementedError

    def abilities(self) -> list[str]:
        """Return the ones of ``snapshot`` and ``field`` that the simulation implements. Local."""
        kind = type(self)
        can = {"snapshot": kind.snapshot is not Simulator.snapshot, "field": kind.get_field is not Simulator.get_field}
        return [name for name, implemented in can.items() if implemented]

    def close(self) -> None:  # noqa: B027 - most simulations have nothing to release
        """Release the resources of the simulation."""
