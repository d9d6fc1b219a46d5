"""Annotations as plain types: aliases replaced by the types that they name, and the text of a type.

``NDArray[np.float64]`` is a class with arguments up to NumPy 2.4, and a ``TypeAliasType`` with arguments from NumPy 2.5
on. Authors of libraries write such aliases too: ``type Factors = tuple[DistMatrix, NDArray]`` (PEP 695). Here aliases
become types that :mod:`.signatures` can read, the same ones on every version of Python and NumPy.
"""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from types import EllipsisType, NoneType, SimpleNamespace, UnionType
from typing import Any, TypeVar

import numpy as np

Namespace = Mapping[str, Any]


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of `function` by parameter name (and ``"return"``), evaluated and expanded. Local.

    Raises
    ------
    Exception
        Whatever the evaluation of the author's annotations raises.
    """
    # Before Python 3.13, get_type_hints() does not know the type parameters of `def f[T](x: T)`.
    type_parameters = {parameter.__name__: parameter for parameter in getattr(function, "__type_params__", ())}
    hints = typing.get_type_hints(function, localns=type_parameters, include_extras=True)
    namespace = getattr(function, "__globals__", {})
    return {name: expanded(annotation, namespace) for name, annotation in hints.items()}


def expanded(annotation: Any, namespace: Namespace, inside: tuple[Any, ...] = ()) -> Any:
    """Return `annotation` with aliases, ``NewType`` and type variables replaced by what they stand for. Local.

    Parameters
    ----------
    annotation
        An evaluated annotation.
    namespace
        Where names in an alias are looked up if the module of the alias is not loaded under its name.
    inside
        The aliases that are being expanded. An alias that refers to itself stays as it is.
    """
    alias = _alias_in(annotation)
    if alias is not None:
        if any(alias is outer for outer in inside):
            return annotation
        return expanded(_value_of(alias, typing.get_args(annotation), namespace), namespace, (*inside, alias))
    if isinstance(annotation, TypeVar):
        return expanded(_range_of(annotation), namespace, inside)
    if hasattr(annotation, "__supertype__"):
        return expanded(annotation.__supertype__, namespace, inside)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return typing.Annotated[(expanded(arguments[0], namespace, inside), *arguments[1:])]
    if origin in (typing.Union, UnionType):
        return _union(expanded(member, namespace, inside) for member in arguments)
    if origin in (tuple, list, dict) and arguments:
        return origin[tuple(expanded(member, namespace, inside) for member in arguments)]
    return annotation


def _union(members: Iterable[Any]) -> Any:
    """Return the union of types; ``|`` would not take text or None for members."""
    return typing.Union[tuple(members)]  # noqa: UP007


def _alias_in(annotation: Any) -> Any:
    """Return the ``TypeAliasType`` that `annotation` is, with or without arguments, or None.

    The class is recognised by its name: Python 3.11 has none, and ``typing_extensions`` has one of its own.
    """
    candidate = typing.get_origin(annotation) or annotation
    return candidate if type(candidate).__name__ == "TypeAliasType" else None


def _value_of(alias: Any, arguments: tuple[Any, ...], namespace: Namespace) -> Any:
    """Return the type that an alias names, with `arguments` in place of its type parameters."""
    home = sys.modules.get(alias.__module__)
    written = SimpleNamespace(__annotations__={"value": alias.__value__})  # may be, or contain, text
    value = typing.get_type_hints(written, vars(home) if home else dict(namespace), include_extras=True)["value"]
    parameters = alias.__type_params__
    if not all(isinstance(parameter, TypeVar) for parameter in parameters):
        return value  # *Ts and **P: no kind of value depends on them
    given = dict(zip(parameters, arguments, strict=False))
    if isinstance(value, TypeVar):
        return given.get(value, value)
    unbound = getattr(value, "__parameters__", ())
    return value[tuple(given.get(parameter, parameter) for parameter in unbound)] if unbound else value


def _range_of(variable: TypeVar) -> Any:
    """Return the type that admits everything that a type variable can be."""
    if variable.__constraints__:
        return _union(variable.__constraints__)
    return Any if variable.__bound__ is None else variable.__bound__


def text_of(annotation: Any) -> str:
    """Return an expanded annotation as people write it, without modules, notes, or the arguments of an array. Local."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is NoneType:
        return "None"
    if isinstance(annotation, EllipsisType):
        return "..."
    if origin is None:
        return annotation.__name__ if isinstance(annotation, type) else _without_modules(str(annotation))
    if origin is typing.Annotated:
        return text_of(arguments[0])
    if origin in (typing.Union, UnionType):
        members = sorted(arguments, key=lambda member: member is NoneType)
        return " | ".join(map(text_of, members))
    if origin is np.ndarray:
        return "ndarray"
    if origin in (tuple, list, dict):
        return f"{origin.__name__}[{', '.join(map(text_of, arguments)) or '()'}]"
    return _without_modules(str(annotation))


def _without_modules(text: str) -> str:
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
