"""The types of parameters and results of tasks, in the client's terms.

A library's description names kinds of values (``matrix``, ``float``, ...) and quotes the annotation of a result
(``tuple[DistMatrix, ndarray]``). This module turns both into types of the client, where a matrix is a handle: text for
stubs and help, objects for ``inspect`` and ``typing``. Text from the server is parsed, never evaluated; an unknown name
becomes ``Any``.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, ForwardRef, Literal

import numpy.typing as npt

from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.sparse import SparseMatrixHandle
from alchemist_ray.protocol.descriptions import ParameterDescription, TaskDescription

TYPES: dict[str, Any] = {
    "MatrixHandle": MatrixHandle,
    "SparseMatrixHandle": SparseMatrixHandle,
    "NDArray": npt.NDArray,
    "ArrayLike": npt.ArrayLike,
    "Sequence": Sequence,
    "Literal": Literal,
    "PathLike": os.PathLike,
    "Any": Any,
    "ObjectRef": ForwardRef("ray.ObjectRef"),
    **{kind.__name__: kind for kind in (int, float, complex, bool, str, bytes, list, tuple, dict)},
}
"""The names in the texts that this module makes."""

PARAMETERS = {
    "matrix": "MatrixHandle",
    "sparse": "SparseMatrixHandle",
    "array": "ArrayLike",
    "list": "Sequence[Any]",
    "dict": "dict[str, Any]",
    "path": "str | PathLike[str]",
    "none": "None",
    "any": "Any",
}
"""The type for each kind of parameter; other kinds have Python's names."""

REMOTE_PARAMETERS = {**PARAMETERS, **dict.fromkeys(("matrix", "sparse"), "ArrayLike | MatrixHandle | ObjectRef")}
"""The type for each kind of parameter of a Ray remote function."""

_RESULTS = {
    "DistMatrix": "MatrixHandle",
    "SparseDistMatrix": "SparseMatrixHandle",
    "ndarray": "NDArray[Any]",
    "NDArray": "NDArray[Any]",
    "list": "list[Any]",
    "dict": "dict[str, Any]",
    "tuple": "tuple[Any, ...]",
    "NoneType": "None",
    "Literal": "Any",
}
"""The client's name for a name in the annotation of a result, without brackets behind it."""


def parameter_text(parameter: ParameterDescription, names: Mapping[str, str] = PARAMETERS) -> str:
    """Return the annotation of a parameter, e.g. ``"MatrixHandle | None"``."""
    chosen = {_kind_of(choice) for choice in parameter.choices}
    literal = [f"Literal[{', '.join(map(repr, parameter.choices))}]"] if parameter.choices else []
    parts = literal + [names.get(kind, kind) for kind in parameter.kinds if kind not in chosen]
    return " | ".join(dict.fromkeys(parts))


def _kind_of(choice: Any) -> str:
    return "none" if choice is None else type(choice).__name__


@cache
def result_text(returns: str) -> str:
    """Return the annotation of the result of a task, from the annotation that its author wrote."""
    try:
        return ast.unparse(_translate(ast.parse(returns, mode="eval").body))
    except (SyntaxError, ValueError):
        return "Any"


def _translate(node: ast.expr) -> ast.expr:
    """Return an annotation with the client's names."""
    match node:
        case ast.BinOp(left, ast.BitOr(), right):
            return ast.BinOp(_translate(left), ast.BitOr(), _translate(right))
        case ast.Subscript(ast.Name("Optional"), member):
            return ast.BinOp(_translate(member), ast.BitOr(), ast.Constant(None))
        case ast.Subscript(ast.Name("Union"), ast.Tuple(members)):
            return reduce(lambda left, right: ast.BinOp(left, ast.BitOr(), right), map(_translate, members))
        case ast.Subscript(ast.Name("Literal"), values) if _is_literal(values):
            return node
        case ast.Constant(None):
            return node
        case ast.Subscript(ast.Name("tuple" | "list" | "dict") as name, members):
            listed = members.elts if isinstance(members, ast.Tuple) else [members]
            inside = [member if _is_ellipsis(member) else _translate(member) for member in listed]
            return ast.Subscript(name, ast.Tuple(inside) if len(inside) > 1 else inside[0])
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([first, *_])):
            return _translate(first)
        case ast.Subscript(ast.Name() as name):
            return _translate(name)
        case ast.Name(name):
            text = _RESULTS.get(name, name if name in TYPES else "Any")
            return ast.parse(text, mode="eval").body
    return ast.Name("Any")


def _is_literal(node: ast.expr) -> bool:
    members = node.elts if isinstance(node, ast.Tuple) else [node]
    return all(isinstance(member, ast.Constant) for member in members)


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


@cache
def as_type(text: str) -> Any:
    """Return the type for a text of this module."""
    return _type_of(ast.parse(text, mode="eval").body)


def _type_of(node: ast.expr) -> Any:
    match node:
        case ast.BinOp(left, _, right):
            return _type_of(left) | _type_of(right)
        case ast.Subscript(ast.Name("Literal"), values):
            return Literal[ast.literal_eval(values)]
        case ast.Subscript(generic, ast.Tuple(members)):
            return _type_of(generic)[tuple(map(_type_of, members))]
        case ast.Subscript(generic, member):
            return _type_of(generic)[_type_of(member)]
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return TYPES[name]
    raise TypeError(ast.unparse(node))


def signature_of(task: TaskDescription, names: Mapping[str, str] = PARAMETERS, result: str = "") -> inspect.Signature:
    """Return the signature of a task. Its annotations are types, but it prints their short names.

    Parameters
    ----------
    task : TaskDescription
        The task.
    names : mapping
        The type for each kind of parameter.
    result : str, optional
        The type of the result; by default from the annotation that its author wrote.
    """
    texts = {p.name: parameter_text(p, names) for p in task.parameters}
    result = result or result_text(task.returns)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in task.signature.parameters.values()]
    shown = inspect.Signature(
        [p.replace(annotation=_Written(texts[p.name])) for p in bare], return_annotation=_Written(result)
    )
    typed = [p.replace(annotation=as_type(texts[p.name])) for p in bare]
    return _Readable(typed, return_annotation=as_type(result), shown=str(shown))


class _Readable(inspect.Signature):
    """A signature whose annotations are types, printed without their modules."""

    __slots__ = ("_shown",)

    def __init__(
        self,
        parameters: Sequence[inspect.Parameter] = (),
        *,
        return_annotation: Any = inspect.Signature.empty,
        shown: str = "",
    ) -> None:
        super().__init__(parameters, return_annotation=return_annotation)
        self._shown = shown

    def __str__(self) -> str:
        return self._shown or super().__str__()

    def format(self, **options: Any) -> str:
        """Return the signature as text; from Python 3.13 on, ``help`` asks for it here."""
        return self._shown or str(super().format(**options))  # type: ignore[misc]  # Python 3.11 and 3.12 have none


@dataclass(frozen=True)
class _Written:
    """An annotation that prints as its text."""

    text: str

    def __repr__(self) -> str:
        return self.text
