"""Descriptions of libraries as plain data that crosses the wire, and the check of a call against them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.protocol.values import MatrixReference


@runtime_checkable
class _PathLike(Protocol):
    """``os.PathLike``, without ``os``."""

    def __fspath__(self) -> str | bytes: ...


_TYPES: dict[str, tuple[type, ...]] = {
    "matrix": (MatrixReference,),
    "sparse": (MatrixReference,),
    "int": (int, np.integer),
    "float": (float, int, np.floating, np.integer),
    "complex": (complex, float, int, np.number),
    "bool": (bool, np.bool_),
    "str": (str,),
    "bytes": (bytes,),
    "path": (str, _PathLike),
    "array": (np.ndarray, list, tuple),
    "list": (list, tuple),
    "dict": (dict,),
    "none": (type(None),),
    "any": (object,),
}
_NAMES = {
    "matrix": "a matrix handle",
    "sparse": "a sparse matrix handle",
    "array": "an array",
    "path": "a path",
    "int": "an integer",
    "float": "a number",
    "none": "None",
    "any": "anything",
}


@dataclass(frozen=True)
class ParameterDescription:
    """One parameter of a task.

    Attributes
    ----------
    name : str
        Its name.
    kinds : tuple of str
        The kinds of value it takes: ``matrix, sparse, int, float, complex, bool, str, bytes, path, array, list, dict,
        none`` or ``any``. A path is text on the wire.
    required : bool
        Whether it has no default.
    default : Any
        Its default.
    keyword_only : bool
        Whether it can only be given by name.
    choices : tuple
        If not empty: the only values of their kinds that it takes.
    layout : str
        For a matrix: the distribution pair to which the task converts it. A matrix that is sent in this pair needs no
        conversion. Empty if the task takes any layout.
    """

    name: str
    kinds: tuple[str, ...]
    required: bool
    default: Any
    keyword_only: bool
    choices: tuple[Any, ...] = ()
    layout: str = ""

    @property
    def annotation(self) -> str:
        """The kinds and the choices in Python's notation."""
        chosen = {_kind_of(choice) for choice in self.choices}
        literal = [f"Literal[{', '.join(map(repr, self.choices))}]"] if self.choices else []
        return " | ".join(literal + ["None" if kind == "none" else kind for kind in self.kinds if kind not in chosen])

    def allows(self, value: Any) -> bool:
        """Whether `value`, whose kind is admitted, is one of the choices. A kind without choices allows all values."""
        kind = _kind_of(value)
        if kind not in {_kind_of(choice) for choice in self.choices}:
            return True
        return any(value == choice and kind == _kind_of(choice) for choice in self.choices)

    def admits(self, value: Any) -> bool:
        """Whether `value` is of one of the kinds. True and False do not count as numbers."""
        if isinstance(value, (bool, np.bool_)):
            return "bool" in self.kinds or "any" in self.kinds
        return any(isinstance(value, _TYPES[kind]) for kind in self.kinds)

    def wanted(self) -> str:
        """Return the kinds in words."""
        return " or ".join(_NAMES.get(kind, f"a {kind}") for kind in self.kinds)


@dataclass(frozen=True)
class TaskDescription:
    """One task of a library."""

    name: str
    doc: str
    parameters: tuple[ParameterDescription, ...]
    returns: str

    @cached_property
    def signature(self) -> inspect.Signature:
        """The parameters as a Python signature."""
        return inspect.Signature(
            [
                inspect.Parameter(
                    p.name,
                    inspect.Parameter.KEYWORD_ONLY if p.keyword_only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=inspect.Parameter.empty if p.required else p.default,
                    annotation=p.annotation,
                )
                for p in self.parameters
            ],
            return_annotation=self.returns,
        )

    def bind(self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, without defaults.

        Parameters
        ----------
        task : str
            The name of the task in messages.
        args, kwargs
            The arguments, with :class:`~alchemist_ray.protocol.values.MatrixReference` for matrices.

        Raises
        ------
        ArgumentError
            If an argument is missing, unknown or of the wrong type; the message names it.
        ArgumentValueError
            If an argument is not one of the values that its parameter takes, or is an empty path.
        """
        if not (self.parameters or args or kwargs):
            return {}
        names = [p.name for p in self.parameters]
        for name in kwargs:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(names) or 'no arguments'}"
                raise ArgumentError(task, f"unknown argument {name!r}: {hint}")
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as misfit:
            raise ArgumentError(task, f"{misfit} (signature: {self.name}{self.signature})") from None
        for parameter in self.parameters:
            if parameter.name in bound and not parameter.admits(bound[parameter.name]):
                self._refuse(task, parameter, bound[parameter.name])
            if "path" in parameter.kinds and "str" not in parameter.kinds and bound.get(parameter.name) == "":
                raise ArgumentValueError(
                    task, f"argument {parameter.name!r} is empty, but it must name a file or directory"
                )
            if parameter.choices and parameter.name in bound and not parameter.allows(bound[parameter.name]):
                _refuse_choice(task, parameter, bound[parameter.name])
        return bound

    def check_bound(self, task: str, arguments: Mapping[str, Any]) -> None:
        """Raise :class:`ArgumentError` unless `arguments`, by name, fit the task."""
        self.bind(task, (), arguments)

    def _refuse(self, task: str, parameter: ParameterDescription, value: Any) -> None:
        advice = ""
        if "matrix" in parameter.kinds and isinstance(value, np.ndarray):
            advice = ": send the array first, with send_matrix(), and pass the handle"
        raise ArgumentError(
            task, f"argument {parameter.name!r} must be {parameter.wanted()}, not {type(value).__name__}{advice}"
        )


def _kind_of(value: Any) -> str:
    """Return the kind of a choice, or of a value that is compared with one."""
    for kind, types in (("none", (type(None),)), ("bool", _TYPES["bool"]), ("str", (str,)), ("int", _TYPES["int"])):
        if isinstance(value, types):
            return kind
    return type(value).__name__


def _refuse_choice(task: str, parameter: ParameterDescription, value: Any) -> None:
    words = [choice for choice in parameter.choices if isinstance(choice, str)]
    near = difflib.get_close_matches(value, words, 1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    choices = ", ".join(map(repr, parameter.choices))
    raise ArgumentValueError(task, f"argument {parameter.name!r} must be one of {choices}, not {value!r}{hint}")


@dataclass(frozen=True)
class LibraryDescription:
    """A library: its name, version, docstring and tasks."""

    name: str
    version: str
    doc: str
    tasks: tuple[TaskDescription, ...]

    def to_wire(self) -> dict[str, Any]:
        """Return the description as nested dicts and lists."""
        return asdict(self)

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> LibraryDescription:
        """Return the description that :meth:`to_wire` wrote."""
        tasks = tuple(
            TaskDescription(
                name=t["name"],
                doc=t["doc"],
                parameters=tuple(_parameter_from_wire(p) for p in t["parameters"]),
                returns=t["returns"],
            )
            for t in fields["tasks"]
        )
        return cls(fields["name"], fields["version"], fields["doc"], tasks)


def _parameter_from_wire(fields: dict[str, Any]) -> ParameterDescription:
    return ParameterDescription(**{**fields, "kinds": tuple(fields["kinds"]), "choices": tuple(fields["choices"])})
