"""Conversion of the element types of files to those of matrices.

Files have more types than matrices (:data:`.DTYPES`), and either byte order. A type that matrices have is kept; for any
other numeric type the caller names the type to convert to. A conversion may round, but it never drops a fraction, an
imaginary part or leading digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError, FileContentError
from alchemist_ray.layouts.spec import DTYPES

Array = npt.NDArray[Any]

NUMBERS = "biufc"
"""The kinds of NumPy's numeric types."""

_BY_WIDTH = ("int32", "int64", "float32", "float64", "complex64", "complex128")


def matrix_type(task: str, path: str, given: np.dtype[Any], wanted: str | None) -> np.dtype[Any]:
    """Return the element type of the matrix for a file with elements of type `given`. Local.

    Parameters
    ----------
    task, path : str
        Names of the task and the file, for messages.
    given : dtype
        Type in the file, a numeric one.
    wanted : str or None
        Type that the caller asked for; None means that of the file.

    Raises
    ------
    FileContentError
        If matrices lack the type of the file and `wanted` is None.
    ArgumentValueError
        If matrices lack the type `wanted`, or the elements of the file cannot be converted to it.
    """
    if wanted is None:
        if given.newbyteorder("=").name not in DTYPES:
            raise FileContentError(
                path,
                f"its elements are of type {given}, but matrices have one of {', '.join(DTYPES)}: choose one with "
                f"dtype=, e.g. dtype={_suggestion(given)!r}",
            )
        return given.newbyteorder("=")
    if wanted not in DTYPES:
        raise ArgumentValueError(task, f"dtype must be one of {', '.join(DTYPES)}, not {wanted!r}")
    if not np.can_cast(given, wanted, "same_kind"):
        raise ArgumentValueError(task, f"{path} has elements of type {given}, which dtype={wanted!r} cannot hold")
    return np.dtype(wanted)


def _suggestion(given: np.dtype[Any]) -> str:
    fallback = "complex128" if given.kind == "c" else "float64"
    return next((name for name in _BY_WIDTH if np.can_cast(given, name, "safe")), fallback)


def convert(path: str, raw: Array, out: Array) -> None:
    """Fill `out` with the elements of `raw`, converted to a type that :func:`matrix_type` has approved. Local.

    Raises
    ------
    FileContentError
        If an integer does not fit into the narrower type that the caller asked for.
    """
    narrower = out.dtype.kind in "iu" and not np.can_cast(raw.dtype, out.dtype, "safe")
    if narrower and raw.size:
        limits = np.iinfo(out.dtype)
        if raw.min() < limits.min or raw.max() > limits.max:
            raise FileContentError(path, f"it has integers that do not fit into {out.dtype}")
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite, as in NumPy
        out[...] = raw
