"""The tasks of a simulator: many simulations of one kind, known to the client by number.

What they return comes from rank 0; the other ranks return None, as tasks may.
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

from alchemist_ray.errors import (
    ArgumentValueError,
    LibraryLoadError,
    RemoteTaskError,
    SimulationDivergedError,
    StateMisfitError,
)
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.simulator import Simulator

Array = npt.NDArray[Any]


def simulator_of(library: str, module: ModuleType) -> type[Simulator] | None:
    """Return the simulator that `module` defines, if it does. Local.

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
        raise LibraryLoadError(library, f"it defines the simulators {names}: give each a library of its own")
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
        """Return the task that makes a simulation; its parameters are those of the constructor but for `comm`."""

        def create(ctx: TaskContext, **parameters: Any) -> int:
            number = next(self._numbers)  # before anything can fail: the ranks must go on counting alike
            simulator = self._kind.__new__(self._kind)
            simulator.context = ctx
            simulator.__init__(ctx.comm, **parameters)  # type: ignore[misc]  # so that it has its context in there
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
        """Begin a simulation anew, with the same seed exactly as before; return its state."""
        found = self._find(ctx, simulation)
        self._ready.discard(simulation)
        found.reset(seed)
        self._ready.add(simulation)
        return self._first_state(ctx, found)

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
            What else it has to say of the step.

        Raises
        ------
        ArgumentValueError
            If it has not been reset, or the action is not in its space: nothing has happened then.
        SimulationDivergedError
            If it is no longer finite: it must be reset.
        """
        found = self._find_ready(ctx, simulation)
        return self._advance(ctx, simulation, found, np.asarray(action))

    def step_flat(
        self, ctx: TaskContext, simulation: int, action: Array
    ) -> tuple[Array, float, bool, dict[str, float]] | None:
        """Do as :meth:`step` does, with the components of the action in one row."""
        found = self._find_ready(ctx, simulation)
        if found.action_space is not None:
            shape = found.action_space.bounds()[0].shape
            if action.size == math.prod(shape):
                action = action.reshape(shape)
        return self._advance(ctx, simulation, found, action)

    def _advance(
        self, ctx: TaskContext, simulation: int, found: Simulator, action: Array
    ) -> tuple[Array, float, bool, dict[str, float]] | None:
        misfit = found.action_space.misfit(action) if found.action_space is not None else ""
        if misfit:
            raise ArgumentValueError(ctx.task, f"the action {misfit}")
        try:
            found.step(action)
        except SimulationDivergedError:  # on every rank; what rank 0 alone finds out must not have it differ
            self._ready.discard(simulation)
            raise
        return outcome(ctx, found)

    def get_state(self, ctx: TaskContext, simulation: int) -> Array | None:
        """Return the state of a simulation."""
        state = self._find_ready(ctx, simulation).get_state()
        return _as_state(state) if ctx.comm.rank == 0 else None

    def get_score(self, ctx: TaskContext, simulation: int) -> float | None:
        """Return the score of a simulation's last step."""
        score = self._find_ready(ctx, simulation).get_score()
        return _as_score(score) if ctx.comm.rank == 0 else None

    def get_spaces(self, ctx: TaskContext, simulation: int) -> dict[str, Any]:
        """Return the spaces of a simulation's actions and states, and what it can do beside the usual.

        Returns
        -------
        spaces : dict
            ``action, observation``: ``low, high, names, units``, or None; ``can``: those of ``snapshot, field`` that it
            implements.
        """
        return spaces_of(self._find(ctx, simulation))

    def get_field(self, ctx: TaskContext, simulation: int) -> dict[str, Any] | None:
        """Return a picture of a simulation in numbers: ``values`` (ny, nx), ``name, unit, low, high``."""
        field = self._find_able(ctx, simulation, "field").get_field()
        return field.to_wire() if field is not None and ctx.comm.rank == 0 else None

    def snapshot(self, ctx: TaskContext, simulation: int) -> int:
        """Keep all that it takes to continue a simulation bit for bit; return the number of the snapshot."""
        found = self._find_able(ctx, simulation, "snapshot")
        number = next(self._numbers)
        self._snapshots[number] = found.snapshot()
        return number

    def restore(self, ctx: TaskContext, simulation: int, snapshot: int) -> Array | None:
        """Have a simulation continue from a snapshot, its own or that of another like it; return its state."""
        found = self._find(ctx, simulation)
        if snapshot not in self._snapshots:
            raise ArgumentValueError(
                ctx.task, f"there is no snapshot {snapshot}: it was dropped, or is of another group"
            )
        self._ready.discard(simulation)
        found.restore(self._snapshots[snapshot])
        self._ready.add(simulation)
        return self._first_state(ctx, found)

    @staticmethod
    def _first_state(ctx: TaskContext, simulator: Simulator) -> Array | None:
        state = simulator.get_state()
        if ctx.comm.rank != 0:
            return None
        if state is None:
            raise RemoteTaskError(ctx.task, "TypeError", "get_state returned None on rank 0")
        state = np.asarray(state, order="C")
        check_state(ctx, simulator, state)
        return state

    def drop_snapshots(self, ctx: TaskContext, snapshots: list[int]) -> None:
        """Forget snapshots; those that are gone already are no error."""
        for number in snapshots:
            self._snapshots.pop(number, None)

    def close(self, ctx: TaskContext, simulation: int) -> None:
        """End a simulation."""
        found = self._find(ctx, simulation)
        del self._simulations[simulation]
        self._ready.discard(simulation)
        found.close()


def spaces_of(simulator: Simulator) -> dict[str, Any]:
    """Return the spaces of a simulator, and what it can do beside the usual, as plain values. Local."""
    spaces = {"action": simulator.action_space, "observation": simulator.observation_space}
    return {
        **{name: box.to_wire() if box is not None else None for name, box in spaces.items()},
        "can": simulator.abilities(),
    }


def own_parameters(kind: type[Simulator]) -> list[inspect.Parameter]:
    """Return the parameters of a simulator's constructor but for `comm`.

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
    """Return what a step has led to, on rank 0. Collective over the ranks of the simulation.

    Raises
    ------
    SimulationDivergedError, StateMisfitError
        On rank 0, if the state or the score is not finite, or the state is not in the simulator's space.
    """
    state, score = simulator.get_state(), simulator.get_score()
    finished, info = simulator.is_finished(), simulator.get_info()
    if ctx.comm.rank != 0:
        return None
    if state is None or score is None:
        missing = "get_state" if state is None else "get_score"
        raise RemoteTaskError(ctx.task, "TypeError", f"{missing} returned None on rank 0")
    state, score = np.asarray(state, order="C"), float(score)
    check_state(ctx, simulator, state)
    if not math.isfinite(score):
        raise SimulationDivergedError(ctx.task, f"its score is {score}")
    return state, score, bool(finished), dict(info) if info else {}


def check_state(ctx: TaskContext, simulator: Simulator, state: Array) -> None:
    """Hold a state against the simulator's space. Local.

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
        raise SimulationDivergedError(ctx.task, "its state is not finite")
    if misfit:
        raise StateMisfitError(ctx.task, misfit)


def _as_state(state: Array | None) -> Array | None:
    return None if state is None else np.asarray(state, order="C")


def _as_score(score: float | None) -> float | None:
    return None if score is None else float(score)
