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
"""From this ratio of its sides on, a matrix is dealt out by whole rows (or, if it is wide, columns)."""

BY_SHAPE = ""
"""In the place of a layout: whole rows of a tall matrix, whole columns of a wide one, else a two-dimensional grid."""
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
    "dict": {},
    "none": None,
    "any": None,
}
"""A value of each kind, to stand for one that is not there yet."""


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
    """How the matrices of a routine are handed over.

    Attributes
    ----------
    layouts : mapping
        For each parameter that is a matrix: the layout to send it in, or :data:`BY_SHAPE`.
    vectors : tuple of str or None
        Which of them may be given as a vector, which becomes one column; None: all.
    floating : bool
        Whether integers become float64, as in SciPy.
    """

    layouts: Mapping[str, str]
    vectors: tuple[str, ...] | None = None
    floating: bool = True

    def check(self, name: str, value: npt.ArrayLike) -> Array:
        """Return the value of a parameter as an array of two dimensions, having seen that it can be sent.

        Raises
        ------
        InvalidArrayError
            If it is no matrix, or `name` may not be a vector.
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
        """Return the value of a parameter as a matrix that can be sent; raises what :meth:`check` does."""
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
    """A task that can be handed arrays.

    Attributes
    ----------
    library : str
        The library.
    task : TaskDescription
        The task, as its callers see it.
    operands : Operands
        How its matrices are handed over.
    name : str
        What it is called here, if not as in the library.
    smaller_side : str
        A parameter whose None stands for the smaller side of the matrix `A`; empty if there is none.
    """

    library: str
    task: TaskDescription
    operands: Operands
    name: str = ""
    smaller_side: str = ""

    @classmethod
    def of(cls, library: str, task: TaskDescription) -> Routine:
        """Return a routine made of what a library says about a task."""
        layouts = {p.name: p.layout for p in task.parameters if _MATRICES & set(p.kinds)}
        return cls(library, task, Operands(layouts, floating=library == "linalg"))

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_pending: Callable[[Any], bool] = _never
    ) -> dict[str, Any]:
        """Return the arguments of a call by name, without defaults, held against the description.

        Parameters
        ----------
        args, kwargs
            The arguments; matrices as handles, arrays, sparse matrices of SciPy, or lists.
        is_pending : callable
            Whether a value stands for one that only the other side will see: it fits everywhere.

        Raises
        ------
        ArgumentError
            If an argument is missing, unknown or of the wrong type.
        ArgumentValueError
            If an argument is none of the values that its parameter takes.
        InvalidArrayError
            If an array is no matrix that can be sent.
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
        """Return a reference for what will go as a matrix, having seen that it can; anything else as it is."""
        if not self.sends(parameter.name, value):
            return value
        is_sparse_one = isinstance(value, SparseMatrixHandle) or is_sparse(value)
        if ("sparse" if is_sparse_one else "matrix") not in parameter.kinds:
            kind = "sparse" if is_sparse_one else "dense"
            raise ArgumentError(
                label, f"argument {parameter.name!r} is a {kind} matrix; this task wants {parameter.wanted()}"
            )
        if not (is_sparse_one or isinstance(value, MatrixHandle)):
            self.operands.check(parameter.name, value)
        return MatrixReference(0)

    def sends(self, name: str, value: Any) -> bool:
        """Whether the value of a parameter goes as a matrix: a handle, an array, a sparse matrix, or nested lists."""
        if name not in self.operands.layouts:
            return False
        if isinstance(value, MatrixHandle) or is_sparse(value):
            return True
        (parameter,) = (p for p in self.task.parameters if p.name == name)
        return is_array_like(value) and not parameter.admits(value)


_MATRICES = frozenset({"matrix", "sparse"})
