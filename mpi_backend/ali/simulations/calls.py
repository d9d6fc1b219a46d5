"""The tasks of a simulator: many simulations of one kind, which the client knows by number.

Rank 0 returns the results; the other ranks return None, as tasks may.
"""

from __future__ import annotations

import inspect
import itertools
import math
import sys
import typing
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError, LibraryLoadError, SimulationDivergedError
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.simulations.values import (
    action_misfit,
    as_flag,
    as_score,
    as_state,
    check_integers,
    check_score,
    check_state,
    field_of,
    first_state,
)
from alchemist_ray.mpi_backend.ali.simulator import Simulator

Array = npt.NDArray[Any]


def simulator_of(library: str, module: ModuleType) -> type[Simulator] | None:
    """Return the simulator that `module` defines; None if it defines none. Local.

    Raises
    ------
    LibraryLoadError
        If it lacks a call (each is named), or the module defines several.
    """
    defined = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Simulator) and _is_within(value.__module__, module.__name__)
    ]
    whole = [kind for kind in defined if not inspect.isabstract(kind)]
    if defined and not whole:
        kind = defined[-1]
        raise LibraryLoadError(
            library, f"the simulator {kind.__name__} lacks {', '.join(sorted(kind.__abstractmethods__))}"
        )
    if len(whole) > 1:
        names = ", ".join(kind.__name__ for kind in whole)
        raise LibraryLoadError(library, f"it defines the simulators {names}: put each into its own library")
    return whole[0] if whole else None


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


class Simulations:
    """The simulations of one kind in a session, and the tasks that drive them. All are collective over the group.

    Parameters
    ----------
    kind : type of Simulator
        What is simulated.
    """

    def __init__(self, kind: type[Simulator]) -> None:
        self._kind = kind
        self._simulations: dict[int, Simulator] = {}
        self._ready: set[int] = set()
        self._snapshots: dict[int, Any] = {}
        self._numbers = itertools.count(1)

    def tasks(self) -> dict[str, Callable[..., Any]]:
        """Return the tasks by name."""
        own = (
            self.reset,
            self.step,
            self.get_state,
            self.get_score,
            self.get_field,
            self.get_spaces,
            self.snapshot,
            self.restore,
            self.drop_snapshots,
            self.close,
        )
        return {"create": self._create(), **{function.__name__: function for function in own}}

    def _create(self) -> Callable[..., int]:
        """Return the task that makes a simulation; its parameters are those of the constructor without `comm`."""

        def create(ctx: TaskContext, **parameters: Any) -> int:
            number = next(self._numbers)  # before anything can fail: the ranks must go on counting alike
            simulator = self._kind.__new__(self._kind)
            simulator.context = ctx
            simulator.__init__(ctx.comm, **parameters)  # type: ignore[misc]  # so that the constructor has the context
            self._simulations[number] = simulator
            return number

        own = own_parameters(self._kind)
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        named = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
        signature = inspect.Signature([context, *named], return_annotation=int)
        create.__signature__ = signature  # type: ignore[attr-defined]  # inspect looks for it
        written = {p.name: p.annotation for p in own if p.annotation is not p.empty}
        globals_of_kind = vars(sys.modules[self._kind.__module__])
        hints = typing.get_type_hints(SimpleNamespace(__annotations__=written), globals_of_kind, include_extras=True)
        create.__annotations__ = {"ctx": TaskContext, **hints, "return": int}
        create.__doc__ = f"{inspect.getdoc(self._kind) or self._kind.__name__}\n\n{_CREATE_NOTE}"
        return create

    def _find(self, ctx: TaskContext, simulation: int) -> Simulator:
        found = self._simulations.get(simulation)
        if found is None:
            known = ", ".join(map(str, self._simulations)) or "none"
            raise ArgumentValueError(ctx.task, f"there is no simulation {simulation} (there is {known}): call create")
        found.context = ctx
        return found

    def _find_ready(self, ctx: TaskContext, simulation: int) -> Simulator:
        found = self._find(ctx, simulation)
        if simulation not in self._ready:
            raise ArgumentValueError(ctx.task, f"simulation {simulation} has not been reset: call reset first")
        return found

    def _find_able(self, ctx: TaskContext, simulation: int, ability: str) -> Simulator:
        found = self._find_ready(ctx, simulation)
        if ability not in found.abilities():
            raise ArgumentValueError(ctx.task, f"{type(found).__name__} does not implement it")
        return found

    def reset(self, ctx: TaskContext, simulation: int, seed: int | None = None) -> Array | None:
        """Reset a simulation, with the same seed to exactly the same start; return its state."""
        found = self._find(ctx, simulation)
        self._ready.discard(simulation)
        found.reset(seed)
        self._ready.add(simulation)
        return first_state(ctx.task, found, ctx.comm.rank)

    def step(
        self, ctx: TaskContext, simulation: int, action: np.ndarray | float
    ) -> tuple[Array, float, bool, dict[str, float]] | None:
        """Advance a simulation by one step under `action`.

        Returns
        -------
        state : ndarray
        score : float
        finished : bool
            Whether the simulation has come to its end.
        info : dict
            What else the simulation says of the step.

        Raises
        ------
        ArgumentValueError
            If it has not been reset, or the action is not made of real numbers, or not in its space: nothing has
            happened then.
        SimulationDivergedError
            If it is no longer finite: it must be reset.
        """
        found = self._find_ready(ctx, simulation)
        return self._advance(ctx, simulation, found, np.asarray(action))

    def step_flat(
        self, ctx: TaskContext, simulation: int, action: Array
    ) -> tuple[Array, float, bool, dict[str, float]] | None:
        """Do the same as :meth:`step`, with the components of the action in one row."""
        found = self._find_ready(ctx, simulation)
        if found.action_space is not None:
            shape = found.action_space.bounds()[0].shape
            if action.size == math.prod(shape):
                action = action.reshape(shape)
        return self._advance(ctx, simulation, found, action)

    def _advance(
        self, ctx: TaskContext, simulation: int, found: Simulator, action: Array
    ) -> tuple[Array, float, bool, dict[str, float]] | None:
        misfit = action_misfit(found.action_space, action)
        if misfit:
            raise ArgumentValueError(ctx.task, f"the action {misfit}")
        try:
            found.step(action)
        except SimulationDivergedError:  # on every rank; a fault that only rank 0 finds must not make the ranks differ
            self._ready.discard(simulation)
            raise
        return outcome(ctx, found)

    def get_state(self, ctx: TaskContext, simulation: int) -> Array | None:
        """Return the state of a simulation."""
        state = self._find_ready(ctx, simulation).get_state()
        return as_state(ctx.task, state) if ctx.comm.rank == 0 else None

    def get_score(self, ctx: TaskContext, simulation: int) -> float | None:
        """Return the score of a simulation's last step."""
        score = self._find_ready(ctx, simulation).get_score()
        return as_score(ctx.task, score) if score is not None and ctx.comm.rank == 0 else None

    def get_spaces(self, ctx: TaskContext, simulation: int) -> dict[str, Any]:
        """Return the spaces of a simulation's actions and states, and what else it can do.

        Returns
        -------
        spaces : dict
            ``action, observation``: ``low, high, names, units``, or None; ``can``: those of ``snapshot, field`` that it
            implements.
        """
        return spaces_of(self._find(ctx, simulation))

    def get_field(self, ctx: TaskContext, simulation: int) -> dict[str, Any] | None:
        """Return a picture of a simulation in numbers: ``values`` (ny, nx), ``name, unit, low, high``."""
        return field_of(ctx.task, self._find_able(ctx, simulation, "field"), ctx.comm.rank)

    def snapshot(self, ctx: TaskContext, simulation: int) -> int:
        """Keep everything that is needed to continue a simulation bit for bit; return the number of the snapshot."""
        found = self._find_able(ctx, simulation, "snapshot")
        number = next(self._numbers)
        self._snapshots[number] = found.snapshot()
        return number

    def restore(self, ctx: TaskContext, simulation: int, snapshot: int) -> Array | None:
        """Continue a simulation from a snapshot of itself or of another one with equal parameters; return its state."""
        found = self._find(ctx, simulation)
        if snapshot not in self._snapshots:
            raise ArgumentValueError(
                ctx.task, f"there is no snapshot {snapshot}: it was dropped, or is of another group"
            )
        self._ready.discard(simulation)
        found.restore(self._snapshots[snapshot])
        self._ready.add(simulation)
        return first_state(ctx.task, found, ctx.comm.rank)

    def drop_snapshots(self, ctx: TaskContext, snapshots: list[int]) -> None:
        """Drop snapshots; a snapshot that is already gone is not an error."""
        check_integers(ctx.task, "snapshots", snapshots)
        for number in snapshots:
            self._snapshots.pop(number, None)

    def close(self, ctx: TaskContext, simulation: int) -> None:
        """End a simulation."""
        found = self._find(ctx, simulation)
        del self._simulations[simulation]
        self._ready.discard(simulation)
        found.close()


def spaces_of(simulator: Simulator) -> dict[str, Any]:
    """Return the spaces of a simulator, and what else it can do, as plain values. Local."""
    spaces = {"action": simulator.action_space, "observation": simulator.observation_space}
    return {
        **{name: box.to_wire() if box is not None else None for name, box in spaces.items()},
        "can": simulator.abilities(),
    }


def own_parameters(kind: type[Simulator]) -> list[inspect.Parameter]:
    """Return the parameters of a simulator's constructor without `comm`.

    Raises
    ------
    TypeError
        If it does not take `comm` first.
    """
    parameters = list(inspect.signature(kind).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise TypeError(
            f"the constructor of {kind.__name__} must take the communicator first: __init__(self, comm, ...)"
        )
    return parameters[1:]


_CREATE_NOTE = """Returns
-------
simulation : int
    Its number, which the other tasks take."""


def outcome(ctx: TaskContext, simulator: Simulator) -> tuple[Array, float, bool, dict[str, float]] | None:
    """Return the result of a step, on rank 0. Collective over the ranks of the simulation.

    Raises
    ------
    SimulationDivergedError, StateMisfitError, RemoteTaskError
        On rank 0, if the state or the score is not finite, the state is not in the simulator's space, or one of them is
        not a real number.
    """
    state, score = simulator.get_state(), simulator.get_score()
    finished, info = simulator.is_finished(), simulator.get_info()
    if ctx.comm.rank != 0:
        return None
    array, number = as_state(ctx.task, state), as_score(ctx.task, score)
    check_state(ctx.task, simulator, array)
    check_score(ctx.task, number)
    return array, number, as_flag(ctx.task, finished), dict(info) if info else {}
