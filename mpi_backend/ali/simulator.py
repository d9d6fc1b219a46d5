"""What the author of a simulation writes."""

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
    """The arrays between two bounds: what a simulation takes as an action, or gives as its state.

    Attributes
    ----------
    low, high : float or sequence of float
        The bounds, for all components or for each; they may be infinite.
    shape : tuple of int, optional
        Of the arrays; by default that of the bounds.
    names, units : sequence of str
        What each component is, and in what unit; empty where there is nothing to say.
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
        """Whether all that lies in the box is finite."""
        return bool(np.isfinite(self._bounds).all())

    def misfit(self, value: Array) -> str:
        """Return why `value` does not lie in the box, in words; empty if it does."""
        low, high = self._bounds
        if value.shape != low.shape:
            return f"has shape {value.shape}, not {low.shape}"
        if value.dtype.kind not in "biuf":
            return f"has dtype {value.dtype}, not a real one"
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
    """A picture of a simulation, in numbers: the client colours it.

    Attributes
    ----------
    values : ndarray, shape (ny, nx)
        Real; the first row is the top of the picture. NaN is drawn as solid.
    name, unit : str
        What is seen.
    low, high : float, optional
        Values at the ends of the colour scale; by default the smallest and the largest of `values`.
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
    ``create``; what follows are the tasks ``reset, step, get_state, get_score`` of one simulation or of many::

        class Heat(Simulator):
            \"\"\"The heat equation on a ring.\"\"\"

            action_space = Box(-1.0, 1.0, (1,), names=["heating"], units=["K/s"])

            def __init__(self, comm: MPI.Comm, *, n: int = 128) -> None:
                self.comm = comm
                ...

    What goes wrong on one rank only, such as a field that is no longer finite, is made known to all by a reduction
    before any rank raises, since the others would wait for it in MPI; the error for it is
    :class:`~alchemist_ray.errors.SimulationDivergedError`. A simulation can be reset after any error.

    Attributes
    ----------
    context : TaskContext
        The surroundings of the call that runs, set before each, the constructor included: progress, cancellation, log,
        scratch directory, memory for matrices.
    action_space, observation_space : Box or None
        Of the actions and states, of the class or set by the constructor; None: anything. An action outside its space
        is refused before any rank sees it.
    """

    context: TaskContext
    action_space: Box | None = None
    observation_space: Box | None = None

    @abstractmethod
    def __init__(self, comm: MPI.Comm) -> None:
        """Make the simulation on the ranks of `comm`; keyword arguments are its parameters."""

    @abstractmethod
    def reset(self, seed: int | None) -> None:
        """Begin anew; with the same seed, exactly as before."""

    @abstractmethod
    def step(self, action: Array) -> None:
        """Advance by one step under `action`, which is the same on every rank."""

    @abstractmethod
    def get_state(self) -> Array | None:
        """Return the state that the agent sees: on rank 0 at least; what other ranks return is not looked at."""

    @abstractmethod
    def get_score(self) -> float | None:
        """Return the score of the last step: on rank 0 at least."""

    def is_finished(self) -> bool:
        """Whether the simulation has come to its end, on rank 0 at least; by default it never does."""
        return False

    def get_info(self) -> Mapping[str, float] | None:
        """Return what else there is to say of the last step, by name, on rank 0 at least: the agent's `info`."""
        return None

    def get_field(self) -> Field | None:
        """Return a picture of the present state, on rank 0 at least. Simulations that have none leave this as it is."""
        raise NotImplementedError

    def snapshot(self) -> Any:
        """Return all that it takes to continue bit for bit: this rank's part, the state of random generators included.

        What is returned stays in this rank's memory. It must not change when the simulation goes on. Simulations that
        cannot do this leave it as it is.
        """
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        """Continue from what :meth:`snapshot` has returned, which must stay as it is.

        The snapshot may be that of another simulation with the same parameters on as many ranks. A simulation that has
        not been reset can be restored.
        """
        raise NotImplementedError

    def abilities(self) -> list[str]:
        """Return which of ``snapshot`` and ``field`` the simulation implements. Local."""
        kind = type(self)
        can = {"snapshot": kind.snapshot is not Simulator.snapshot, "field": kind.get_field is not Simulator.get_field}
        return [name for name, implemented in can.items() if implemented]

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give back what the simulation holds."""
