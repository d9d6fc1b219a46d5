"""A simulator in C as a Python :class:`Simulator`: each library gets one class that calls its function pointers."""

from __future__ import annotations

import ctypes
import dataclasses
import inspect
import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali.c import types as c
from alchemist_ray.mpi_backend.ali.c.calls import Call
from alchemist_ray.mpi_backend.ali.c.descriptions import Parameter, Reader, docstring
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.simulator import Box, Field, Simulator
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

Array = npt.NDArray[Any]

_REQUIRED = ("create", "spaces", "reset", "step", "get_state", "get_score")
_TOGETHER = (
    ("info_names", "get_info"),
    ("describe_field", "get_field"),
    ("snapshot_bytes", "snapshot", "restore"),
    ("work_unit", "work_per_step"),
)
"""Groups of fields; a simulator must have all fields of a group or none."""
_LIMIT = 256
"""A list of this many names of the info is taken as one without an end."""


class SimulatorInC(Simulator):
    """A simulation of a shared object; each subclass belongs to one shared object.

    Attributes
    ----------
    library : str
        Name of the library, for messages.
    functions : c_types.CSimulator
        The functions that the library exports.
    parameters : tuple of Parameter
        The parameters of the constructor.
    info_names : tuple of str
        The names of the numbers in the info of a step.
    """

    library: ClassVar[str]
    functions: ClassVar[c.CSimulator]
    parameters: ClassVar[tuple[Parameter, ...]]
    info_names: ClassVar[tuple[str, ...]]

    def __init__(self, comm: MPI.Comm, **parameters: Any) -> None:
        self._comm = comm
        self._simulation = ctypes.c_void_p()
        call = self._call("create")
        call.take(self.parameters, self.functions.parameters, parameters)
        call.finish(self.functions.create(call.pointer, ctypes.byref(self._simulation)))
        try:
            self._read_spaces()
        except BaseException:
            self.close()
            raise

    def _call(self, what: str) -> Call:
        """Return a call on the ranks of the simulation, which may be a part of the task's ranks. Local."""
        context: TaskContext | None = getattr(self, "context", None)
        if context is None:
            context = TaskContext(self._comm)
        elif context.comm is not self._comm:
            context = dataclasses.replace(context, comm=self._comm)
        call = Call(context)
        call.task = f"{self.library}.{what}"
        return call

    def _run(self, what: str, function: Any, *arguments: Any) -> Call:
        """Call a function of the library; return the call, which owns the matrices made in it. Collective."""
        call = self._call(what)
        call.finish(function(call.pointer, self._simulation, *arguments))
        return call

    def _read_spaces(self) -> None:
        action, observation = c.CBox(), c.CBox()
        call = self._run("create", self.functions.spaces, ctypes.byref(action), ctypes.byref(observation))
        self.action_space = self._box(call, action, "action")
        self.observation_space = self._box(call, observation, "observation")
        self._state_shape = self.observation_space.bounds()[0].shape

    @staticmethod
    def _box(call: Call, box: c.CBox, what: str) -> Box:
        if not 0 <= box.ndim <= c.MAX_DIMENSIONS or min(box.shape[: box.ndim], default=0) < 0:
            raise call.blame(f"its {what} space has {box.ndim} dimensions, of sizes {list(box.shape)}")
        shape = tuple(box.shape[: box.ndim])
        low, high = (
            np.array(each[: math.prod(shape)], float).reshape(shape) if each else np.full(shape, for_all)
            for each, for_all in ((box.lows, box.low), (box.highs, box.high))
        )
        if not (low <= high).all():
            raise call.blame(f"its {what} space has a lower bound above the upper bound, or a bound that is NaN")
        names, units = (
            [(text or b"").decode(errors="replace") for text in texts[: math.prod(shape)]] if texts else []
            for texts in (box.names, box.units)
        )
        # Arrays and not lists, since each action is checked against them.
        return Box(cast("Sequence[float]", low), cast("Sequence[float]", high), shape, names, units)

    def reset(self, seed: int | None) -> None:
        """Start again from the beginning."""
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
        """Whether the simulation has reached its end, on rank 0."""
        finished = ctypes.c_int32()
        if self.functions.is_finished:
            self._run("step", self.functions.is_finished, ctypes.byref(finished))
        return bool(finished.value)

    def get_info(self) -> dict[str, float] | None:
        """Return the info of the last step, on rank 0."""
        if not self.functions.get_info:
            return None
        values = (ctypes.c_double * len(self.info_names))()
        self._run("step", self.functions.get_info, values)
        return dict(zip(self.info_names, values, strict=True))

    def get_field(self) -> Field | None:
        """Return a picture of the present state, on rank 0."""
        described = c.CField()
        call = self._run("get_field", self.functions.describe_field, ctypes.byref(described))
        with Agreement(self._comm):
            values = self._values_of(call, described) if self._comm.rank == 0 else None
        self._run("get_field", self.functions.get_field, None if values is None else values.ctypes.data)
        if values is None:
            return None
        name, unit = ((text or b"").decode(errors="replace") for text in (described.name, described.unit))
        limits = (described.low, described.high) if described.low < described.high else (None, None)
        return Field(values, name, unit, *limits)

    @staticmethod
    def _values_of(call: Call, field: c.CField) -> Array:
        """Return an array for the values of a field."""
        if field.ny < 1 or field.nx < 1:
            raise call.blame(f"its field is {field.ny} x {field.nx}")
        return np.zeros((field.ny, field.nx))

    def snapshot(self) -> Array:
        """Return this rank's part of the data needed to continue bit for bit."""
        part = np.empty(self._part_bytes(), np.uint8)
        self._run("snapshot", self.functions.snapshot, part.ctypes.data)
        return part

    def restore(self, state: Any) -> None:
        """Continue from a snapshot.

        Raises
        ------
        ArgumentValueError
            If its size shows that it comes from a simulation with other parameters.
        """
        wanted = self._part_bytes()
        with Agreement(self._comm):
            if state.size != wanted:
                raise ArgumentValueError(
                    f"{self.library}.restore",
                    f"the snapshot has {state.size} bytes on this rank, but the simulation needs {wanted}: it comes "
                    "from a simulation with other parameters",
                )
        self._run("restore", self.functions.restore, state.ctypes.data)

    def _part_bytes(self) -> int:
        """Return the number of bytes of this rank's part of a snapshot. Collective."""
        size = ctypes.c_int64()
        call = self._run("snapshot", self.functions.snapshot_bytes, ctypes.byref(size))
        with Agreement(self._comm):
            if size.value < 0:
                raise call.blame(f"its snapshot has {size.value} bytes")
            return size.value

    def abilities(self) -> list[str]:
        """Return the ones of ``snapshot`` and ``field`` that the library implements. Local."""
        can = {"snapshot": self.functions.snapshot, "field": self.functions.get_field}
        return [name for name, function in can.items() if function]

    @property
    def work_per_step(self) -> tuple[float, str]:
        """The work of one step on all ranks, and its unit. An AttributeError if the library does not define it."""
        if not self.functions.work_per_step:
            raise AttributeError(f"{self.library} does not define work_per_step")
        return self.functions.work_per_step(self._simulation), self.functions.work_unit.decode(errors="replace")

    def close(self) -> None:
        """Release the resources of the simulation."""
        if self.functions.destroy and self._simulation:
            self.functions.destroy(self._simulation)
        self._simulation = ctypes.c_void_p()


def simulator_class(reader: Reader, library: str, functions: c.CSimulator, module: str) -> type[SimulatorInC]:
    """Return the class of the simulations of a shared object, as if `module` defined it. Local.

    Raises
    ------
    LibraryLoadError
        If the simulator lacks a function, or the description of a parameter is wrong.
    """
    where = "the simulator: "
    missing = [name for name in _REQUIRED if not getattr(functions, name)]
    for together in _TOGETHER:
        lacking = [name for name in together if not getattr(functions, name)]
        missing += lacking if len(lacking) < len(together) else []
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
            "info_names": _info_names(reader, functions, where),
        },
    )


def _info_names(reader: Reader, functions: c.CSimulator, where: str) -> tuple[str, ...]:
    if not functions.info_names:
        return ()
    named = itertools.takewhile(lambda name: name is not None, (functions.info_names[i] for i in range(_LIMIT)))
    names = tuple(reader.text(name, f"{where}the info: ") for name in named)
    if len(names) == _LIMIT:
        raise reader.error(where, "the list of the names of its info does not end: close it with NULL")
    if len({*names}) < len(names):
        raise reader.error(where, f"its info has two entries with the same name: {', '.join(names)}")
    return names


def _constructor(parameters: tuple[Parameter, ...]) -> Any:
    """Return a constructor with the described signature."""

    def __init__(self: SimulatorInC, comm: MPI.Comm, **given: Any) -> None:  # noqa: N807 - it becomes a method
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
