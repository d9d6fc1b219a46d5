"""Read and check the description of a shared object from its static structures.

All errors in a description are found here, before a task runs, and named in a LibraryLoadError. The result is Python
functions with signatures, annotations and docstrings. From there on, a library in C is described, called and checked
like a library in Python.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import inspect
import itertools
import keyword
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from alchemist_ray.errors import LayoutError, LibraryLoadError
from alchemist_ray.layouts.choice import LayoutChoice
from alchemist_ray.mpi_backend.ali.c import types as c
from alchemist_ray.mpi_backend.ali.c.types import Kind
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix

REQUIRED = inspect.Parameter.empty

_ANNOTATIONS: dict[Kind, Any] = {
    Kind.MATRIX: DistMatrix,
    Kind.INT: int,
    Kind.FLOAT: float,
    Kind.COMPLEX: complex,
    Kind.BOOL: bool,
    Kind.STRING: str,
    Kind.ARRAY: np.ndarray,
    Kind.NONE: None,
}
_LAYOUT = re.compile(r"([A-Z_]+)(?::([0-9]+)(?:x([0-9]+))?)?")
_TAKEN = ("ctx", "self", "comm")
_LIMIT = 256
"""A list with this many entries is taken as one without an end."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a task.

    Attributes
    ----------
    name, doc : str
        Its name and its documentation.
    kinds : Kind
        The kinds of value that it takes.
    default : Any
        Its default; :data:`REQUIRED` if it has none.
    types : tuple of numpy.dtype
        The element types that a matrix or an array may have; empty: any type.
    layout : LayoutChoice or None
        The layout in which a matrix arrives; None: the layout that it has.
    """

    name: str
    kinds: Kind
    default: Any
    doc: str
    types: tuple[np.dtype[Any], ...]
    layout: LayoutChoice | None

    @property
    def annotation(self) -> Any:
        """The annotation in Python."""
        matrix = DistMatrix if self.layout is None else Annotated[DistMatrix, self.layout]
        return _annotation(self.kinds, matrix)

    def signed(self) -> inspect.Parameter:
        """Return the parameter for a signature."""
        return inspect.Parameter(
            self.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=self.default, annotation=self.annotation
        )


@dataclass(frozen=True)
class Result:
    """A result of a task."""

    name: str
    kinds: Kind
    doc: str

    @property
    def annotation(self) -> Any:
        """The annotation in Python."""
        return _annotation(self.kinds, DistMatrix)


def _annotation(kinds: Kind, matrix: Any) -> Any:
    members = {**_ANNOTATIONS, Kind.MATRIX: matrix}
    return functools.reduce(operator.or_, (members[kind] for kind in _ANNOTATIONS if kind in kinds))


class Reader:
    """Reads the description of one library.

    Parameters
    ----------
    library : str
        Name of the library, for errors.
    """

    def __init__(self, library: str) -> None:
        self._library = library

    def error(self, where: str, what: str) -> LibraryLoadError:
        """Return the error with this place and text."""
        return LibraryLoadError(self._library, f"{where}{what}")

    def text(self, octets: bytes | None, where: str) -> str:
        """Return a C string; NULL is empty."""
        try:
            return (octets or b"").decode()
        except UnicodeDecodeError:
            raise self.error(where, f"{octets!r} is not UTF-8") from None

    def entries(self, first: Any, where: str, what: str) -> Iterator[Any]:
        """Yield the entries of a list that ends with ``ALCHEMIST_END``."""
        if not first:
            return
        names: list[bytes] = []
        for position in range(_LIMIT):
            entry = first[position]
            if entry.name is None:
                if any(bytes(entry)):
                    raise self.error(where, f"{what} {position} has no name")
                return
            if entry.name in names:
                raise self.error(where, f"two {what}s have the name {self.text(entry.name, where)!r}")
            names.append(entry.name)
            yield entry
        raise self.error(where, f"the list of {what}s does not end: close it with ALCHEMIST_END")

    def name(self, octets: bytes, where: str) -> str:
        """Return the name of a task, parameter or result, which must be a valid name in Python."""
        name = self.text(octets, where)
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise self.error(
                where, f"{name!r} is not a valid name: use letters, digits and _ (not first), and no keyword of Python"
            )
        return name

    def parameters(self, first: Any, where: str, matrices: bool = True) -> tuple[Parameter, ...]:
        """Return the parameters of a task; `matrices` tells whether they may be matrices."""
        found = tuple(self._parameter(entry, where, matrices) for entry in self.entries(first, where, "parameter"))
        for before, after in itertools.pairwise(found):
            if before.default is not REQUIRED and after.default is REQUIRED:
                raise self.error(
                    where, f"parameter {after.name} needs a default, since {before.name} before it has one"
                )
        return found

    def results(self, first: Any, where: str) -> tuple[Result, ...]:
        """Return the results of a task."""
        return tuple(
            Result(
                self.name(entry.name, where),
                self._kinds(entry.kinds, f"{where}result {self.text(entry.name, where)}: "),
                self.text(entry.doc, where),
            )
            for entry in self.entries(first, where, "result")
        )

    def _parameter(self, entry: c.CParameter, where: str, matrices: bool) -> Parameter:
        name = self.name(entry.name, where)
        where = f"{where}parameter {name}: "
        if name in _TAKEN:
            raise self.error(where, "this name is reserved; use another one")
        kinds = self._kinds(entry.kinds, where)
        if Kind.MATRIX in kinds and not matrices:
            raise self.error(where, "it cannot be a matrix here")
        return Parameter(
            name=name,
            kinds=kinds,
            default=self._default(entry.default_value, kinds, where),
            doc=self.text(entry.doc, where),
            types=self._types(entry.types, kinds, where),
            layout=self._layout(entry.layout, kinds, where),
        )

    def _kinds(self, flags: int, where: str) -> Kind:
        if not flags or flags & ~sum(Kind):
            raise self.error(where, f"unknown kind {flags}: use ALCHEMIST_INT and the other kinds, joined with |")
        return Kind(flags)

    def _types(self, flags: int, kinds: Kind, where: str) -> tuple[np.dtype[Any], ...]:
        if flags & ~sum(c.ELEMENT_TYPES):
            raise self.error(where, f"unknown element type {flags}: use ALCHEMIST_FLOAT64 and the other types")
        if flags and not kinds & (Kind.MATRIX | Kind.ARRAY):
            raise self.error(where, "only a matrix or an array has an element type")
        return tuple(dtype for flag, dtype in c.ELEMENT_TYPES.items() if flag & flags)

    def _layout(self, octets: bytes | None, kinds: Kind, where: str) -> LayoutChoice | None:
        if octets is None:
            return None
        if Kind.MATRIX not in kinds:
            raise self.error(where, "only a matrix has a layout")
        try:
            return layout_choice(self.text(octets, where))
        except LayoutError as misfit:
            raise self.error(where, str(misfit)) from misfit

    def _default(self, octets: bytes | None, kinds: Kind, where: str) -> Any:
        if octets is None:
            return REQUIRED
        text = self.text(octets, where)
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            advice = f"; a string has quotes: '{text}'" if Kind.STRING in kinds else ""
            raise self.error(where, f"the default {text!r} is not a value in Python's notation{advice}") from None
        if not kind_of(value, kinds):
            raise self.error(where, f"the default {text} is not of the kind that the parameter takes")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self.error(where, f"the default {text} has more than 64 bits")
        return value


def kind_of(value: Any, kinds: Kind) -> Kind:
    """Return the one of `kinds` as which a value is passed to C; no kind if the value has none of them. Local."""
    if value is None:
        return Kind.NONE & kinds
    if isinstance(value, (bool, np.bool_)):
        return Kind.BOOL & kinds
    wider: tuple[Kind, ...] = ()
    if isinstance(value, (int, np.integer)):
        wider = (Kind.INT, Kind.FLOAT, Kind.COMPLEX)
    elif isinstance(value, (float, np.floating)):
        wider = (Kind.FLOAT, Kind.COMPLEX)
    elif isinstance(value, (complex, np.complexfloating)):
        wider = (Kind.COMPLEX,)
    elif isinstance(value, str):
        wider = (Kind.STRING,)
    elif isinstance(value, (np.ndarray, list, tuple)):
        wider = (Kind.ARRAY,)
    elif isinstance(value, DistMatrix):
        wider = (Kind.MATRIX,)
    return next((kind for kind in wider if kind in kinds), Kind(0))


def layout_choice(text: str) -> LayoutChoice:
    """Return the layout for a text from C such as ``"MC_MR"``, ``"MC_MR:64"`` or ``"MC_MR:64x32"``.

    Raises
    ------
    LayoutError
        If the text is not a valid layout.
    """
    match = _LAYOUT.fullmatch(text)
    if match is None:
        raise LayoutError(f'a layout is written like "MC_MR", "MC_MR:64" or "MC_MR:64x32", not {text!r}')
    pair, mb, nb = match.groups()
    if mb is None:
        return LayoutChoice.of(pair)
    choice = LayoutChoice.of(pair, (int(mb), int(nb or mb)))
    choice.resolve((1, 1), 1)  # raises for blocks that no matrix can have
    return choice


def docstring(doc: str, parameters: tuple[Parameter, ...], results: tuple[Result, ...]) -> str:
    """Return `doc` with numpydoc sections for the parameters and results."""
    sections = [inspect.cleandoc(doc)]
    for title, entries in (("Parameters", parameters), ("Returns", results)):
        if any(entry.doc for entry in entries):
            lines = [line for entry in entries for line in _entry_lines(entry)]
            sections.append("\n".join([title, "-" * len(title), *lines]))
    return "\n\n".join(section for section in sections if section)


def _entry_lines(entry: Parameter | Result) -> Iterator[str]:
    words = " or ".join(_WORDS[kind] for kind in _ANNOTATIONS if kind in entry.kinds)
    if isinstance(entry, Parameter):
        words = f"{words} of {' or '.join(map(str, entry.types))}" if entry.types else words
        words = words if entry.default is REQUIRED else f"{words}, default {entry.default!r}"
    yield f"{entry.name} : {words}"
    if entry.doc:
        yield from (f"    {line}" if line else "" for line in inspect.cleandoc(entry.doc).splitlines())


_WORDS = {
    Kind.MATRIX: "matrix",
    Kind.INT: "int",
    Kind.FLOAT: "float",
    Kind.COMPLEX: "complex",
    Kind.BOOL: "bool",
    Kind.STRING: "str",
    Kind.ARRAY: "array",
    Kind.NONE: "None",
}


def simulator_in(library: str, description: c.CLibraryDescription) -> c.CSimulator | None:
    """Return the simulator that a library describes, with NULL for functions that its header did not have yet. Local.

    Raises
    ------
    LibraryLoadError
        If the simulator claims to be shorter than that of version 1.
    """
    if not description.simulator:
        return None
    there = c.SIMULATOR_BYTES_1 if description.abi_version == 1 else description.simulator_bytes
    if there < c.SIMULATOR_BYTES_1:
        raise LibraryLoadError(
            library, f"the simulator: it claims to have {there} bytes: close the description with ALCHEMIST_LIBRARY"
        )
    simulator = c.CSimulator()
    ctypes.memmove(ctypes.byref(simulator), description.simulator, min(there, ctypes.sizeof(simulator)))
    return simulator


def read_library(library: str, pointer: Any) -> c.CLibraryDescription:
    """Return the description from ``alchemist_library()`` after a check of its version. Local.

    Raises
    ------
    LibraryLoadError
        If the version cannot be read, or the library was compiled for another family of MPI.
    """
    if not pointer:
        raise LibraryLoadError(library, "alchemist_library() returned NULL")
    description: c.CLibraryDescription = pointer.contents
    if description.abi_version not in (1, c.ABI_VERSION):
        raise LibraryLoadError(
            library,
            f"it was compiled with version {description.abi_version} of alchemist_ali.h, but the workers have version "
            f"{c.ABI_VERSION}: compile it again with the header of the installed alchemist-ray",
        )
    if description.comm_bytes != ctypes.sizeof(c.HANDLE_TYPE):
        raise LibraryLoadError(
            library,
            "it was compiled for another MPI than the one that the workers use: compile it with their mpicc",
        )
    return description
