"""Matrices and arrays as C sees them, and their conversions."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.layouts.layout import AxisPart
from alchemist_ray.mpi_backend.ali.c import types as c
from alchemist_ray.mpi_backend.ali.c.descriptions import Parameter
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix


def seen_matrix(A: DistMatrix, key: int) -> c.CMatrix:
    """Return the C structure of `A`; its elements live as long as `A`. Local."""
    layout, rank = A.layout, A.comm.rank
    myrow, mycol = layout.grid.coords(rank)
    return c.CMatrix(
        m=A.shape[0],
        n=A.shape[1],
        rows=_axis(A.rows),
        cols=_axis(A.cols),
        local=A.local.ctypes.data,
        ld=A.cols.size,
        type=c.TYPE_FLAGS[A.dtype],
        itemsize=A.dtype.itemsize,
        pair=layout.pair.encode(),
        mb=layout.block[0],
        nb=layout.block[1],
        nprow=layout.grid.nprow,
        npcol=layout.grid.npcol,
        myrow=myrow,
        mycol=mycol,
        row_align=layout.align[0],
        col_align=layout.align[1],
        redundant=layout.redundant,
        is_source=layout.is_source(rank),
        key=key,
    )


def _axis(part: AxisPart) -> c.CAxis:
    return c.CAxis(part.extent, part.size, part.block, part.stride, part.position)


def seen_array(array: npt.NDArray[Any]) -> c.CArray:
    """Return the C structure of a contiguous array; its elements live as long as `array`. Local."""
    shape = (ctypes.c_int64 * c.MAX_DIMENSIONS)(*array.shape)
    return c.CArray(c.TYPE_FLAGS[array.dtype], array.ndim, array.size, shape, array.ctypes.data)


def check_elements(task: str, parameter: Parameter, A: DistMatrix) -> None:
    """Refuse a matrix whose element type the parameter does not take. Local."""
    if parameter.types and A.dtype not in parameter.types:
        wanted = " or ".join(map(str, parameter.types))
        raise ArgumentError(
            task, f"matrix {parameter.name} has dtype {A.dtype}; convert it to {wanted}, e.g. with astype"
        )


_NARROW_FIRST = tuple(map(np.dtype, ("bool", "int32", "int64", "float32", "float64", "complex64", "complex128")))


def converted_array(task: str, parameter: Parameter, given: Any) -> npt.NDArray[Any]:
    """Return `given` as an array of a type that the parameter takes. Local.

    The type that `given` has is preferred, then a type of the same kind, then any other; within a kind, types that hold
    all values come before types that round.

    Raises
    ------
    ArgumentError
        If the parameter takes no such type, or the array has too many dimensions.
    ArgumentValueError
        If `given` is not an array, or integers do not fit.
    """
    try:
        array = np.asarray(given)
    except ValueError as misfit:
        raise ArgumentValueError(task, f"argument {parameter.name!r} is not an array: {misfit}") from None
    types = parameter.types or tuple(c.TYPE_FLAGS)
    fitting = _types_for(array.dtype, types)
    if not fitting or array.ndim > c.MAX_DIMENSIONS:
        raise ArgumentError(
            task,
            f"argument {parameter.name!r} must be an array of {' or '.join(map(str, types))} with at most "
            f"{c.MAX_DIMENSIONS} dimensions, not an array of {array.dtype} with {array.ndim}",
        )
    converted = np.asarray(array, fitting[0], order="C")
    if converted.dtype.kind == "i" and not np.array_equal(converted, array):
        raise ArgumentValueError(task, f"argument {parameter.name!r} has elements too large for {converted.dtype}")
    return converted


def _types_for(given: np.dtype[Any], types: Sequence[np.dtype[Any]]) -> list[np.dtype[Any]]:
    """Return the types to which elements can be converted, the best first; integers stay integers if possible."""
    if given.kind not in "biufc":
        return []
    held = [dtype for dtype in _NARROW_FIRST if dtype in types and np.can_cast(given, dtype, "safe")]
    rounded = [dtype for dtype in reversed(_NARROW_FIRST) if dtype in types and np.can_cast(given, dtype, "same_kind")]
    kind = "i" if given.kind == "u" else given.kind
    return sorted((*held, *rounded), key=lambda dtype: (dtype != given, dtype.kind != kind))
