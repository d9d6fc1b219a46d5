"""Load libraries. A loaded library has tasks by name, and a description of each task.

The description tells the client how to call the library: the name of each task, its parameters (name, kind, default),
its result and its docstring. It is plain data, crosses the wire, and becomes real functions on the client's side
(:mod:`alchemist_ray.libraries`). It comes from a Python module, or from a shared object that uses ``alchemist_ali.h``
(:mod:`.shared_objects`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from alchemist_ray.errors import ArgumentError, ArgumentValueError, LibraryLoadError
from alchemist_ray.layouts.choice import LayoutChoice
from alchemist_ray.mpi_backend.ali import missing_modules
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.signatures import KINDS, Signature, describe_function
from alchemist_ray.mpi_backend.ali.simulations.batches import Batches
from alchemist_ray.mpi_backend.ali.simulations.calls import Simulations, simulator_of
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.matrices.sparse import SparseDistMatrix
from alchemist_ray.protocol.descriptions import LibraryDescription, ParameterDescription, TaskDescription

F = TypeVar("F", bound=Callable[..., Any])
RunFunction = Callable[[TaskContext, dict[str, Any]], Any]

_MARK = "__alchemist_task__"
_SHARED_OBJECT = re.compile(r"\.so(\.\d+)*$")


def task(function: F) -> F:
    """Mark a function of a library module as a task.

    The first parameter may be annotated with :class:`TaskContext`; the others are the task's own. An annotation is one
    of ``DistMatrix, SparseDistMatrix, int, float, complex, bool, str, bytes, numpy.ndarray, list, dict``, a
    ``Literal[...]`` of the allowed values, or a union of these with None. If the task needs a matrix in a certain
    layout, it annotates it like ``Annotated[DistMatrix, "VC_STAR"]``. The matrix then arrives in that layout.
    """
    setattr(function, _MARK, True)
    return function


@dataclass(frozen=True)
class Task:
    """A task and its description.

    Attributes
    ----------
    description : TaskDescription
        The description for the client.
    run : callable
        ``run(ctx, arguments)``, collective over ``ctx.comm``. `arguments` are by name; defaults may be missing.
    layouts : dict
        Layout of each matrix parameter for which the task requires one.
    """

    description: TaskDescription
    run: RunFunction
    layouts: dict[str, LayoutChoice] = field(default_factory=dict)

    def __call__(self, ctx: TaskContext, arguments: dict[str, Any]) -> Any:
        """Run the task. Collective over ``ctx.comm``.

        Raises
        ------
        ArgumentError
            If a matrix is sparse but the task takes a dense one, or the reverse. The client cannot check this, as a
            reference does not contain it.
        LayoutError
            If a matrix cannot have the layout that the task requires.
        """
        for parameter in self.description.parameters:
            _check_matrix(ctx, parameter, arguments.get(parameter.name))
        laid_out = {
            name: _laid_out(arguments[name], wanted) for name, wanted in self.layouts.items() if name in arguments
        }
        return self.run(ctx, {**arguments, **laid_out})


def _check_matrix(ctx: TaskContext, parameter: ParameterDescription, value: Any) -> None:
    if not isinstance(value, (DistMatrix, SparseDistMatrix)) or {KINDS[type(value)], "any"} & set(parameter.kinds):
        return
    given, advice = "dense", ""
    if isinstance(value, SparseDistMatrix):
        given, advice = "sparse", ": convert it first with the task to_dense of the library linalg"
    raise ArgumentError(
        ctx.task, f"argument {parameter.name!r} is a {given} matrix, which this task does not take{advice}"
    )


def _laid_out(value: Any, wanted: LayoutChoice) -> Any:
    """Return a matrix in the wanted layout; the matrix itself if it already has it. Collective over its ranks."""
    if not isinstance(value, DistMatrix):
        return value
    layout = value.layout
    if LayoutChoice(layout.pair) == wanted and layout.align == (0, 0):
        return value  # any block, any grid
    resolved = wanted.resolve(value.shape, value.comm.size)
    return value if resolved == layout else value.relayout(resolved)


@dataclass(frozen=True)
class TaskLibrary:
    """A loaded library."""

    name: str
    tasks: dict[str, Task]
    description: LibraryDescription
    simulations: Simulations | None = None
    batches: Batches | None = None


def load(name: str, source: str) -> TaskLibrary:
    """Load the library `source`: the name of a module, or the path of a ``.py``, ``.c`` or shared object file. Local.

    Raises
    ------
    LibraryLoadError
        If the library does not load or has no tasks, or the description of a task cannot cross the wire. If a module is
        missing, the error says how to install it.
    """
    try:
        return describe(name, import_library(name, source))
    except LibraryLoadError:
        raise
    except ModuleNotFoundError as failure:
        raise LibraryLoadError(library=name, reason=missing_modules.reason_for(failure, source)) from failure
    except BaseException as failure:
        raise LibraryLoadError(library=name, reason=f"{type(failure).__name__}: {failure}") from failure


def import_library(name: str, source: str) -> ModuleType:
    """Import the library `source`, in the form that :func:`load` takes, and return it as a module. Local.

    A program without a server can get the class of a simulator in C this way.

    Raises
    ------
    LibraryLoadError
        If the file does not exist, or is not a valid library in C. Errors of Python modules are raised unchanged.
    """
    if _SHARED_OBJECT.search(source):
        from alchemist_ray.mpi_backend.ali.c.shared_objects import import_shared_object  # not for Python libraries

        return import_shared_object(name, source)
    if source.endswith(".c"):
        from alchemist_ray.mpi_backend.ali.c.sources import import_source

        return import_source(name, Path(source))
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(source)
    if not path.is_file():
        raise LibraryLoadError(library=name, reason=f"the file {source} does not exist")
    module_name = f"alchemist_library_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise LibraryLoadError(library=name, reason=f"{source} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def describe(name: str, module: ModuleType) -> TaskLibrary:
    """Return `module` as a library: its marked functions, and the calls of a :class:`Simulator` that it defines.

    Raises
    ------
    LibraryLoadError
        If it has neither, or a signature has a type or default that cannot cross the wire.
    """
    functions = {attribute: value for attribute, value in vars(module).items() if getattr(value, _MARK, False)}
    simulator = simulator_of(name, module)
    simulations = Simulations(simulator) if simulator is not None else None
    batches = None
    if simulator is not None and simulations is not None:
        tasks_of_one = simulations.tasks()
        batches = Batches(simulator, tasks_of_one["create"])
        functions = {**tasks_of_one, **batches.tasks(), **functions}
    if not functions:
        raise LibraryLoadError(
            library=name, reason=f"module {module.__name__} marks no function with @task, and has no Simulator"
        )
    tasks = {attribute: _task_of(name, attribute, function) for attribute, function in functions.items()}
    description = LibraryDescription(
        name=name,
        version=str(getattr(module, "__version__", "")),
        doc=inspect.getdoc(module) or "",
        tasks=tuple(t.description for t in tasks.values()),
    )
    return TaskLibrary(name, tasks, description, simulations, batches)


def _converted(ctx: TaskContext, said: Signature, parameter: str, value: Any) -> Any:
    try:
        return said.converted(parameter, value)
    except ValueError as misfit:  # the members of a list differ in length
        raise ArgumentValueError(ctx.task, f"argument {parameter!r} is not an array: {misfit}") from None


def _task_of(library: str, name: str, function: Callable[..., Any]) -> Task:
    said = describe_function(library, name, function)

    def run(ctx: TaskContext, arguments: dict[str, Any]) -> Any:
        named = {parameter: _converted(ctx, said, parameter, value) for parameter, value in arguments.items()}
        positional = [named.pop(parameter) for parameter in said.positional_only if parameter in named]
        return function(ctx, *positional, **named) if said.wants_context else function(*positional, **named)

    return Task(said.description, run, said.layouts)
