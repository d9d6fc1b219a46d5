"""A simulator in C as a Python :class:`Simulator`: one class for each library, made around its function pointers."""

from __future__ import annotations

import ctypes
import inspect
import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import c_types as c
from alchemist_ray.mpi_backend.ali.c_calls import Call
from alchemist_ray.mpi_backend.ali.c_descriptions import Parameter, Reader, docstring
from alchemist_ray.mpi_backend.ali.simulator import Box, Simulator

Array = npt.NDArray[Any]

_REQUIRED = ("create", "spaces", "reset", "step", "get_state", "get_score")


class SimulatorInC(Simulator):
    """A simulation of a shared object; its subclasses say of which.

    Attributes
    ----------
    library : str
        Name of the library, for messages.
    functions : c_types.Simulator
        What the library exports.
    parameters : tuple of Parameter
        Of the constructor.
    """

    library: ClassVar[str]
    functions: ClassVar[c.Simulator]
    parameters: ClassVar[tuple[Parameter, ...]]

    def __init__(self, comm: MPI.Comm, **parameters: Any) -> None:
        self._simulation = ctypes.c_void_p()
        call = Call(self.context)
        call.take(self.parameters, self.functions.parameters, parameters)
        call.finish(self.functions.create(call.pointer, ctypes.byref(self._simulation)))
        try:
            self._read_spaces()
        except BaseException:
            self.close()
            raise

    def _run(self, what: str, function: Any, *arguments: Any) -> Call:
        """Call a function of the library; return the call, with which all goes that was made in it. Collective."""
        call = Call(self.context)
        call.task = f"{self.library}.{what}"
        call.finish(function(call.pointer, self._simulation, *arguments))
        return call

    def _read_spaces(self) -> None:
        action, observation = c.Box(), c.Box()
        call = self._run("create", self.functions.spaces, ctypes.byref(action), ctypes.byref(observation))
        self.action_space = self._box(call, action, "action")
        self.observation_space = self._box(call, observation, "observation")
        self._state_shape = self.observation_space.bounds()[0].shape

    @staticmethod
    def _box(call: Call, box: c.Box, what: str) -> Box:
        if not 0 <= box.ndim <= c.MAX_DIMENSIONS or min(box.shape[: box.ndim], default=0) < 0:
            raise call.blame(f"its {what} space has {box.ndim} dimensions, of sizes {list(box.shape)}")
        shape = tuple(box.shape[: box.ndim])
        low, high = (
            np.array(each[: math.prod(shape)], float).reshape(shape) if each else np.full(shape, for_all)
            for each, for_all in ((box.lows, box.low), (box.highs, box.high))
        )
        if not (low <= high).all():
            raise call.blame(f"its {what} space has bounds of which the lower is above the upper, or NaN")
        names, units = (
            [(text or b"").decode(errors="replace") for text in texts[: math.prod(shape)]] if texts else []
            for texts in (box.names, box.units)
        )
        # Arrays, and no lists, since each action is held against them.
        return Box(cast("Sequence[float]", low), cast("Sequence[float]", high), shape, names, units)

    def reset(self, seed: int | None) -> None:
        """Begin anew."""
        if seed is not None and not -(2**63) <= seed < 2**63:
            raise ArgumentValueError(f"{self.library}.reset", f"the seed has more than 64 bits: {seed}")
        self._run("reset", self.functions.reset, None if seed is None else ctypes.byref(ctypes.c_int64(seed)))

    def step(self, action: Array) -> None:
        """Advance by one step."""
        taken = np.asarray(action, np.float64, order="C")
        self._run("step", self.functions.step, taken.ctypes.data)

    def get_state(self) -> Array:
        """Return the state, on rank 0."""
        state = np.zeros(self._state_shape)
        self._run("get_state", self.functions.get_state, state.ctypes.data)
        return state

    def get_score(self) -> float:
        """Return the score, on rank 0."""
        score = ctypes.c_double()
        self._run("get_score", self.functions.get_score, ctypes.byref(score))
        return score.value

    def is_finished(self) -> bool:
        """Whether the simulation has come to its end, on rank 0."""
        finished = ctypes.c_int32()
        if self.functions.is_finished:
            self._run("step", self.functions.is_finished, ctypes.byref(finished))
        return bool(finished.value)

    def close(self) -> None:
        """Give back what the simulation holds."""
        if self.functions.destroy and self._simulation:
            self.functions.destroy(self._simulation)
        self._simulation = ctypes.c_void_p()


def simulator_class(reader: Reader, library: str, functions: c.Simulator, module: str) -> type[SimulatorInC]:
    """Return the class of the simulations of a shared object, as if `module` defined it. Local.

    Raises
    ------
    LibraryLoadError
        If it lacks a function, or describes a parameter wrongly.
    """
    where = "the simulator: "
    missing = [name for name in _REQUIRED if not getattr(functions, name)]
    if missing:
        raise reader.error(where, f"it lacks {', '.join(missing)}")
    parameters = reader.parameters(functions.parameters, where, matrices=False)
    name = reader.name(functions.name or b"Simulation", where)
    return type(
        name,
        (SimulatorInC,),
        {
            "__doc__": docstring(reader.text(functions.doc, where), parameters, ()) or name,
            "__module__": module,
            "__init__": _constructor(parameters),
            "library": library,
            "functions": functions,
            "parameters": parameters,
        },
    )


def _constructor(parameters: tuple[Parameter, ...]) -> Any:
    """Return a constructor whose signature says what the library has described."""

    def __init__(self: SimulatorInC, comm: MPI.Comm, **given: Any) -> None:  # noqa: N807 - it becomes one
        SimulatorInC.__init__(self, comm, **given)

    positional = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)
        for name, annotation in (("self", Any), ("comm", MPI.Comm))
    ]
    keywords = [parameter.signed().replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    signature = inspect.Signature([*positional, *keywords], return_annotation=None)
    __init__.__signature__ = signature  # type: ignore[attr-defined]  # inspect looks for it
    __init__.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()} | {"return": None}
    return __init__
