"""Stubs: the description of a library as a ``.pyi`` file for type checkers and editors.

The stub has one class, a protocol that :class:`~alchemist_ray.client.libraries.Library` satisfies. Declare a variable
with it::

    if TYPE_CHECKING:
        from linalg import LinalgLibrary              # linalg.pyi, beside this script

    linalg: "LinalgLibrary" = session.load_library("linalg")
    U, S, Vt = linalg.truncated_svd(A, k=20)          # checked, completed, documented

mypy accepts the assignment as it is; checkers that ignore ``__getattr__`` need a ``typing.cast`` around it.
"""

from __future__ import annotations

import keyword
import math
import re
import textwrap
from typing import Any

from alchemist_ray.client.annotations import parameter_text, result_text
from alchemist_ray.client.libraries import Library
from alchemist_ray.protocol.descriptions import LibraryDescription, ParameterDescription, TaskDescription

_HEAD = '''\
"""Types of the library {name}{version}, written by ``alchemist libraries NAME --pyi``.

Declare what load_library returns: ``lib: "{cls}" = session.load_library("{name}")``.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, Protocol

from numpy.typing import ArrayLike, NDArray

from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.sparse import SparseMatrixHandle

class {cls}(Protocol):
'''

_OWN = """\
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def options(self, *, timeout: float | None) -> "{cls}": ...
    def __getitem__(self, name: str) -> Callable[..., Any]: ...
"""


def stub_of(description: LibraryDescription) -> str:
    """Return the text of a stub for a library.

    Tasks that cannot be attributes of the class (their name is a Python keyword, or an attribute of every library) are
    reached by ``lib["task"]``.
    """
    cls = class_name(description.name)
    version = f" {description.version}" if description.version else ""
    tasks = [task for task in description.tasks if _is_name(task.name) and not hasattr(Library, task.name)]
    return (
        _HEAD.format(name=_escaped(description.name), version=_escaped(version), cls=cls)
        + _docstring(description.doc or f"The library {description.name}.", "    ")
        + _OWN.format(cls=cls)
        + "".join(map(_method, tasks))
    )


def class_name(library: str) -> str:
    """Return the name of the class that a library's stub defines, e.g. ``LinalgLibrary``."""
    words = re.findall(r"[A-Za-z0-9]+", library)
    name = "".join(word[0].upper() + word[1:] for word in words) + "Library"
    return f"_{name}" if name[0].isdigit() else name


def _method(task: TaskDescription) -> str:
    parameters = ["self"]
    for parameter in task.parameters:
        if parameter.keyword_only and "*" not in parameters:
            parameters.append("*")
        parameters.append(_parameter(parameter))
    head = f"    def {task.name}({', '.join(parameters)}) -> {result_text(task.returns)}:"
    return f"{head}\n{_docstring(task.doc, ' ' * 8)}" if task.doc else f"{head} ...\n"


def _parameter(parameter: ParameterDescription) -> str:
    text = f"{parameter.name}: {parameter_text(parameter)}"
    return text if parameter.required else f"{text} = {_default(parameter)}"


def _default(parameter: ParameterDescription) -> str:
    """Return a default as stubs write it: a literal of the parameter's type, or ``...``."""
    value = parameter.default
    if not parameter.admits(value) or not _is_literal(value):
        return "..."
    return repr(value)


def _is_literal(value: Any) -> bool:
    if isinstance(value, complex):
        return math.isfinite(value.real) and math.isfinite(value.imag)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_is_literal, value))
    return value is None or isinstance(value, (bool, int, str, bytes))


def _docstring(text: str, indent: str) -> str:
    escaped = _escaped(text)
    end = "\n" if "\n" in text or text.endswith('"') else ""
    return textwrap.indent(f'"""{escaped}{end}"""\n', indent, lambda line: bool(line.strip()))


def _escaped(text: str) -> str:
    """Return `text`, which comes from the server, escaped for a docstring."""
    return text.replace("\\", "\\\\").replace('"""', r"\"\"\"")


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)
