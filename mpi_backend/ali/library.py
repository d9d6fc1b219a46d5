"""Find the tasks of a Python module and describe them.

A library says about itself what the client needs to call it: for each task its name, parameters (name, kind,
default), result and docstring. The description is plain data, crosses the wire, and becomes real functions on the
client's side (:mod:`alchemist_ray.library`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import re
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, TypeVar

import numpy as np

from alchemist_ray.description import LibraryDescription, ParameterDescription, TaskDescription
from alchemist_ray.errors import ArgumentError, InvalidArrayError, LibraryLoadError
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.sparse import SparseDistMatrix
from alchemist_ray.protocol.values import encode

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__alchemist_task__"
_KINDS: dict[Any, str] = {
    DistMatrix: "matrix",
    SparseDistMatrix: "sparse",
    int: "int",
    float: "float",
    complex: "complex",
    bool: "bool",
    str: "str",
    bytes: "bytes",
    np.ndarray: "array",
    list: "list",
    tuple: "list",
    dict: "dict",
    NoneType: "none",
    Any: "any",
    inspect.Parameter.empty: "any",
}


def task(function: F) -> F:
    """Mark a function of a library module as a task.

    Its first parameter may be annotated :class:`TaskContext`; the others are the task's own. Annotations are one of
    ``DistMatrix, SparseDistMatrix, int, float, complex, bool, str, bytes, numpy.ndarray, list, dict`` or a union of
    these with None.
    """
    setattr(function, _MARK, True)
    return function


@dataclass(frozen=True)
class Task:
    """A task: the function, and what it says about itself."""

    function: Callable[..., Any]
    wants_context: bool
    positional_only: tuple[str, ...]
    description: TaskDescription

    def __call__(self, ctx: TaskContext, arguments: dict[str, Any]) -> Any:
        """Run the task. Collective over ``ctx.comm``.

        Raises
        ------
        ArgumentError
            If a matrix is sparse where a dense one is wanted, or the other way round: a reference does not tell.
        """
        for parameter in self.description.parameters:
            _check_matrix(ctx, parameter, arguments.get(parameter.name))
        named = dict(arguments)
        positional = [named.pop(name) for name in self.positional_only if name in named]
        return self.function(ctx, *positional, **named) if self.wants_context else self.function(*positional, **named)


def _check_matrix(ctx: TaskContext, parameter: ParameterDescription, value: Any) -> None:
    if not isinstance(value, (DistMatrix, SparseDistMatrix)) or {_KINDS[type(value)], "any"} & set(parameter.kinds):
        return
    given, advice = "dense", ""
    if isinstance(value, SparseDistMatrix):
        given, advice = "sparse", ": make it dense first, with the task to_dense of the library linalg"
    raise ArgumentError(
        ctx.task, f"argument {parameter.name!r} is a {given} matrix, which this task does not take{advice}"
    )


@dataclass(frozen=True)
class Library:
    """A loaded library."""

    name: str
    tasks: dict[str, Task]
    description: LibraryDescription

    @cached_property
    def log(self) -> logging.Logger:
        """Logger of the library; goes to the worker's log file."""
        return logging.getLogger(f"alchemist.{self.name}")


def load(name: str, source: str) -> Library:
    """Import the library `source`, a module name or the path of a ``.py`` file, and describe it. Local.

    Raises
    ------
    LibraryLoadError
        If it does not import, has no tasks, or a task's signature says something that cannot cross the wire.
    """
    try:
        module = _import(name, source)
    except LibraryLoadError:
        raise
    except BaseException as failure:
        raise LibraryLoadError(library=name, reason=f"{type(failure).__name__}: {failure}") from failure
    return describe(name, module)


def _import(name: str, source: str) -> ModuleType:
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(source)
    if not path.is_file():
        raise LibraryLoadError(library=name, reason=f"there is no file {source}")
    module_name = f"alchemist_library_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise LibraryLoadError(library=name, reason=f"{source} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def describe(name: str, module: ModuleType) -> Library:
    """Return `module` as a library.

    Raises
    ------
    LibraryLoadError
        If it has no tasks, or a task's signature says something that cannot cross the wire.
    """
    tasks = {
        attribute: _describe_task(name, attribute, function)
        for attribute, function in vars(module).items()
        if getattr(function, _MARK, False)
    }
    if not tasks:
        raise LibraryLoadError(library=name, reason=f"module {module.__name__} marks no function with @task")
    description = LibraryDescription(
        name=name,
        version=str(getattr(module, "__version__", "")),
        doc=inspect.getdoc(module) or "",
        tasks=tuple(t.description for t in tasks.values()),
    )
    return Library(name, tasks, description)


def _describe_task(library: str, name: str, function: Callable[..., Any]) -> Task:
    try:
        hints = typing.get_type_hints(function)
    except Exception as failure:  # evaluating the author's annotations can raise anything
        reason = f"task {name}: its annotations cannot be evaluated: {type(failure).__name__}: {failure}"
        raise LibraryLoadError(library, reason) from failure
    parameters = list(inspect.signature(function).parameters.values())
    wants_context = bool(parameters) and hints.get(parameters[0].name) is TaskContext
    described = tuple(_describe_parameter(library, name, p, hints) for p in parameters[wants_context:])
    description = TaskDescription(
        name=name,
        doc=inspect.getdoc(function) or "",
        parameters=described,
        returns=_name_of(hints.get("return", Any)),
    )
    positional_only = tuple(p.name for p in parameters[wants_context:] if p.kind is p.POSITIONAL_ONLY)
    return Task(function, wants_context, positional_only, description)


def _describe_parameter(
    library: str, task_name: str, parameter: inspect.Parameter, hints: dict[str, Any]
) -> ParameterDescription:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise LibraryLoadError(library=library, reason=f"task {task_name}: parameter *{parameter.name} has no name")
    kinds = _kinds(hints.get(parameter.name, parameter.annotation))
    if kinds is None:
        raise LibraryLoadError(
            library=library,
            reason=f"task {task_name}: parameter {parameter.name} is annotated {hints[parameter.name]}, "
            "which cannot cross the wire",
        )
    required = parameter.default is parameter.empty
    if not required:
        try:
            encode(parameter.default)
        except (TypeError, OverflowError, InvalidArrayError) as misfit:
            raise LibraryLoadError(
                library, f"task {task_name}: the default of parameter {parameter.name}: {misfit}"
            ) from misfit
    return ParameterDescription(
        name=parameter.name,
        kinds=kinds,
        required=required,
        default=None if required else parameter.default,
        keyword_only=parameter.kind is parameter.KEYWORD_ONLY,
    )


def _kinds(annotation: Any) -> tuple[str, ...] | None:
    """Return the kinds of value that `annotation` admits, or None if one of them cannot cross the wire."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, UnionType):
        kinds: list[str] = []
        for member in typing.get_args(annotation):
            inner = ("none",) if member is NoneType else _kinds(member)
            if inner is None:
                return None
            kinds.extend(inner)
        return tuple(kinds)
    if origin is typing.Literal:
        return tuple({_KINDS[type(value)] for value in typing.get_args(annotation)})
    try:
        kind = _KINDS.get(origin or annotation)
    except TypeError:  # not even hashable
        return None
    return None if kind is None else (kind,)


def _name_of(annotation: Any) -> str:
    """Return an annotation as people write it, without the modules."""
    if annotation in (None, NoneType):
        return "None"
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__name__
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(annotation))
