"""Read the description of a task from the signature of its Python function."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import numpy as np

from alchemist_ray.errors import InvalidArrayError, LayoutError, LibraryLoadError
from alchemist_ray.layouts.choice import LayoutChoice
from alchemist_ray.mpi_backend.ali.annotations import hints_of, text_of
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.matrices.sparse import SparseDistMatrix
from alchemist_ray.protocol.descriptions import ParameterDescription, TaskDescription
from alchemist_ray.protocol.values import encode

KINDS: dict[Any, str] = {
    DistMatrix: "matrix",
    SparseDistMatrix: "sparse",
    int: "int",
    float: "float",
    complex: "complex",
    bool: "bool",
    str: "str",
    bytes: "bytes",
    Path: "path",
    os.PathLike: "path",
    np.ndarray: "array",
    list: "list",
    tuple: "list",
    dict: "dict",
    NoneType: "none",
    Any: "any",
    inspect.Parameter.empty: "any",
}


@dataclass(frozen=True)
class Signature:
    """The signature of a task, read from its function.

    Attributes
    ----------
    description : TaskDescription
        The description for the client.
    wants_context : bool
        Whether the first parameter is the :class:`TaskContext`.
    positional_only : tuple of str
        Parameters that the function takes by position only.
    layouts : dict
        Layout of each matrix parameter for which the function requires one.
    kinds : dict
        The kinds of value that each parameter takes.
    tuples : frozenset of str
        The parameters that are annotated as tuples.
    """

    description: TaskDescription
    wants_context: bool
    positional_only: tuple[str, ...]
    layouts: dict[str, LayoutChoice]
    kinds: dict[str, frozenset[str]]
    tuples: frozenset[str]

    def converted(self, name: str, value: Any) -> Any:
        """Return an argument as the function expects it.

        The wire has neither tuples nor paths, and a list may replace an array.
        """
        kinds = self.kinds.get(name, frozenset({"any"}))
        if isinstance(value, (list, tuple)):
            if "array" in kinds and "list" not in kinds:
                return np.asarray(value)
            return tuple(value) if name in self.tuples else value
        if isinstance(value, str):
            return Path(value) if "path" in kinds and "str" not in kinds else value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if "float" in kinds and isinstance(value, int) and "int" not in kinds:
                return float(value)
            if "complex" in kinds and not {"int", "float"} & kinds:
                return complex(value)
        return value


@dataclass(frozen=True)
class _Annotation:
    """The values that one annotation allows."""

    kinds: tuple[str, ...]
    choices: tuple[Any, ...] = ()
    layout: LayoutChoice | None = None
    is_tuple: bool = False


class _Unspeakable(Exception):
    """The annotation names a type that cannot cross the wire."""


def describe_function(library: str, name: str, function: Callable[..., Any]) -> Signature:
    """Return the signature of `function` as the task `name`. Local.

    Raises
    ------
    LibraryLoadError
        If the annotations cannot be evaluated, or cannot cross the wire. The error names the task and the parameter.
    """
    try:
        hints = hints_of(function)
    except Exception as failure:  # evaluating the author's annotations can raise anything
        reason = f"task {name}: its annotations cannot be evaluated: {type(failure).__name__}: {failure}"
        raise LibraryLoadError(library, reason) from failure
    parameters = list(inspect.signature(function).parameters.values())
    wants_context = bool(parameters) and _without_notes(hints.get(parameters[0].name)) is TaskContext
    own = parameters[wants_context:]
    annotations = {p.name: _annotation_of(library, name, p, hints) for p in own}
    description = TaskDescription(
        name=name,
        doc=inspect.getdoc(function) or "",
        parameters=tuple(_describe_parameter(library, name, p, annotations[p.name]) for p in own),
        returns=text_of(hints.get("return", Any)),
    )
    positional_only = tuple(p.name for p in own if p.kind is p.POSITIONAL_ONLY)
    layouts = {p.name: layout for p in own if (layout := annotations[p.name].layout) is not None}
    kinds = {p.name: frozenset(annotations[p.name].kinds) for p in own}
    tuples = frozenset(p.name for p in own if annotations[p.name].is_tuple)
    return Signature(description, wants_context, positional_only, layouts, kinds, tuples)


def _annotation_of(library: str, task: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> _Annotation:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise LibraryLoadError(library, f"task {task}: parameter *{parameter.name} has no name")
    annotation = hints.get(parameter.name, parameter.annotation)
    try:
        return _read(annotation)
    except _Unspeakable:
        reason = (
            f"task {task}: parameter {parameter.name} is annotated {parameter.annotation}, which cannot cross the wire"
        )
        raise LibraryLoadError(library, reason) from None
    except LayoutError as misfit:
        raise LibraryLoadError(library, f"task {task}: the layout of parameter {parameter.name}: {misfit}") from misfit


def _describe_parameter(
    library: str, task: str, parameter: inspect.Parameter, annotation: _Annotation
) -> ParameterDescription:
    required = parameter.default is parameter.empty
    default = os.fspath(parameter.default) if isinstance(parameter.default, os.PathLike) else parameter.default
    if not required:
        try:
            encode(default)
        except (TypeError, OverflowError, InvalidArrayError) as misfit:
            reason = f"task {task}: the default of parameter {parameter.name}: {misfit}"
            raise LibraryLoadError(library, reason) from misfit
    return ParameterDescription(
        name=parameter.name,
        kinds=annotation.kinds,
        required=required,
        default=None if required else default,
        keyword_only=parameter.kind is parameter.KEYWORD_ONLY,
        choices=annotation.choices,
        layout=annotation.layout.pair if annotation.layout else "",
    )


def _read(annotation: Any) -> _Annotation:
    """Return the values that `annotation` allows; raise :class:`_Unspeakable` if they cannot cross the wire."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _with_layout(_read(members[0]), members[1:])
    if origin in (typing.Union, UnionType):
        parts = [_read(NoneType if member is NoneType else member) for member in members]
        return _Annotation(
            kinds=tuple(dict.fromkeys(kind for part in parts for kind in part.kinds)),
            choices=tuple(choice for part in parts for choice in part.choices),
            layout=next((part.layout for part in parts if part.layout), None),
            is_tuple=any(part.is_tuple for part in parts),
        )
    if origin is typing.Literal:
        if not all(type(value) in KINDS for value in members):
            raise _Unspeakable
        return _Annotation(tuple(dict.fromkeys(KINDS[type(value)] for value in members)), members)
    try:
        kind = KINDS.get(origin or annotation)
    except TypeError:  # not even hashable
        kind = None
    if kind is None:
        raise _Unspeakable
    return _Annotation((kind,), is_tuple=(origin or annotation) is tuple)


def _with_layout(annotation: _Annotation, notes: tuple[Any, ...]) -> _Annotation:
    """Return the annotation of a matrix with its layout, which is the name of a pair or a LayoutChoice in `notes`."""
    wanted = [note for note in notes if isinstance(note, (str, LayoutChoice))]
    if not wanted or "matrix" not in annotation.kinds:
        return annotation
    return _Annotation(annotation.kinds, annotation.choices, LayoutChoice.of(wanted[0]))


def _without_notes(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
