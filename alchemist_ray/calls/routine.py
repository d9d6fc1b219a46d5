"""Tasks that take arrays: how each matrix of a call is sent, and the checks before anything is sent.

A *routine* is a task for callers that have arrays instead of handles. It is made from the description that a library
gives of the task (:meth:`Routine.of`); :mod:`.catalogue` has the routines that need no answer from a server first.
Nothing here depends on a framework; :mod:`alchemist_ray.on_ray.remote` makes Ray remote functions of routines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.sparse import SparseMatrixHandle, is_sparse
from alchemist_ray.errors import ArgumentError, InvalidArrayError
from alchemist_ray.layouts.spec import as_array, check_dtype, check_shape, is_array_like
from alchemist_ray.protocol.descriptions import ParameterDescription, TaskDescription
from alchemist_ray.protocol.values import MatrixReference

Array = npt.NDArray[Any]

TALL = 2
"""A matrix whose sides have at least this ratio is distributed by whole rows (a wide one by whole columns)."""

BY_SHAPE = ""
"""Stands for a layout: whole rows of a tall matrix, whole columns of a wide one, otherwise a two-dimensional grid."""
ON_GRID = "MC_MR"

_SAMPLES: dict[str, Any] = {
    "matrix": MatrixReference(0),
    "sparse": MatrixReference(0),
    "int": 0,
    "float": 0.0,
    "complex": 0j,
    "bool": False,
    "str": "",
    "bytes": b"",
    "array": (),
    "list": (),
    "path": "",
    "dict": {},
    "none": None,
    "any": None,
}
"""A value of each kind; it stands for a value that is not known yet."""


def layout_for(layout: str, shape: tuple[int, int]) -> str:
    """Return the layout to send a matrix in."""
    m, n = shape
    if layout != BY_SHAPE:
        return layout
    if m >= TALL * n:
        return "VC_STAR"
    return "STAR_VC" if n >= TALL * m else "MC_MR"


def _never(value: Any) -> bool:
    return False


@dataclass(frozen=True)
class Operands:
    """How the matrices of a routine are sent.

    Attributes
    ----------
    layouts : mapping
        For each parameter that is a matrix: the layout to send it in, or :data:`BY_SHAPE`.
    vectors : tuple of str or None
        The parameters that may be vectors, which become one column; None: all.
    floating : bool
        Whether integers become float64, as in SciPy.
    """

    layouts: Mapping[str, str]
    vectors: tuple[str, ...] | None = None
    floating: bool = True

    def check(self, name: str, value: npt.ArrayLike) -> Array:
        """Check that the value of a parameter can be sent; return it as an array of two dimensions.

        Raises
        ------
        InvalidArrayError
            If it is not a matrix, or is a vector and `name` may not be one.
        """
        try:
            array = as_array(value)
            if array.ndim == 1 and (self.vectors is None or name in self.vectors):
                array = array[:, np.newaxis]
            check_dtype(self._sent_dtype(array))
            check_shape(array.shape)
        except InvalidArrayError as misfit:
            raise InvalidArrayError(f"argument {name}: {misfit.reason}") from None
        return array

    def convert(self, name: str, value: npt.ArrayLike) -> Array:
        """Return the value of a parameter as a matrix that can be sent; the errors are those of :meth:`check`."""
        array = self.check(name, value)
        return array.astype(self._sent_dtype(array), copy=False)

    def _sent_dtype(self, array: Array) -> np.dtype[Any]:
        if array.dtype.kind in "biu" and self.floating:
            return np.dtype(np.float64)
        return np.dtype(np.float32) if array.dtype == np.float16 else array.dtype

    def layout(self, name: str, shape: tuple[int, ...]) -> str:
        """Return the layout to send the matrix of a parameter in."""
        return layout_for(self.layouts[name], (shape[0], shape[1]))


@dataclass(frozen=True)
class Routine:
    """A task that takes arrays.

    Attributes
    ----------
    library : str
        The library.
    task : TaskDescription
        The task, as its callers see it.
    operands : Operands
        How its matrices are sent.
    name : str
        Its name here, if that differs from the library's.
    smaller_side : str
        A parameter whose None means the smaller side of the matrix `A`; empty: none.
    """

    library: str
    task: TaskDescription
    operands: Operands
    name: str = ""
    smaller_side: str = ""

    @classmethod
    def of(cls, library: str, task: TaskDescription) -> Routine:
        """Return the routine for a library's description of a task."""
        layouts = {p.name: p.layout for p in task.parameters if _MATRICES & set(p.kinds)}
        return cls(library, task, Operands(layouts, floating=library == "linalg"))

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_pending: Callable[[Any], bool] = _never
    ) -> dict[str, Any]:
        """Check the arguments of a call against the description; return them by name, without defaults.

        Parameters
        ----------
        args, kwargs
            The arguments; matrices as handles, arrays, sparse matrices of SciPy, or lists.
        is_pending : callable
            Whether a value is a reference to one that only the other side will see; it fits every parameter.

        Raises
        ------
        ArgumentError
            If an argument is missing, unknown or of the wrong type.
        ArgumentValueError
            If an argument is not among the choices of its parameter.
        InvalidArrayError
            If an array cannot be sent as a matrix.
        """
        by_name = {p.name: p for p in self.task.parameters}
        positions = list(by_name.values())[: len(args)]
        label = self.name or f"{self.library}.{self.task.name}"

        def fitting(parameter: ParameterDescription | None, value: Any) -> Any:
            if parameter is not None and is_pending(value):
                return parameter.choices[0] if parameter.choices else _SAMPLES[parameter.kinds[0]]
            return value if parameter is None else self._stand_in(label, parameter, value)

        given = dict(zip(by_name, args, strict=False)) | dict(kwargs)
        bound = self.task.bind(
            label,
            [*map(fitting, positions, args), *args[len(positions) :]],
            {name: fitting(by_name.get(name), value) for name, value in kwargs.items()},
        )
        return {name: given[name] for name in bound}

    def _stand_in(self, label: str, parameter: ParameterDescription, value: Any) -> Any:
        """Check a value that goes as a matrix and return a reference for it; return other values unchanged."""
        if not self.sends(parameter.name, value):
            return value
        is_sparse_one = isinstance(value, SparseMatrixHandle) or is_sparse(value)
        if ("sparse" if is_sparse_one else "matrix") not in parameter.kinds:
            kind = "sparse" if is_sparse_one else "dense"
            raise ArgumentError(
                label, f"argument {parameter.name!r} is a {kind} matrix; this task takes {parameter.wanted()}"
            )
        if not (is_sparse_one or isinstance(value, MatrixHandle)):
            self.operands.check(parameter.name, value)
        return MatrixReference(0)

    def sends(self, name: str, value: Any) -> bool:
        """Whether the value of a parameter is sent as a matrix: a handle, an array, a sparse matrix, nested lists."""
        if name not in self.operands.layouts:
            return False
        if isinstance(value, MatrixHandle) or is_sparse(value):
            return True
        (parameter,) = (p for p in self.task.parameters if p.name == name)
        return is_array_like(value) and not parameter.admits(value)


_MATRICES = frozenset({"matrix", "sparse"})
