"""From the element types of files to those of matrices.

Files have more types than matrices (:data:`.DTYPES`), and bytes in either order. A type that matrices
have is taken as it is; for any other number the caller names the type to convert to. A conversion may round, but it
never drops the fraction, the imaginary part or leading digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError, FileContentError
from alchemist_ray.layouts.spec import DTYPES

Array = npt.NDArray[Any]

NUMBERS = "biufc"
"""The kinds of NumPy types that are numbers."""

_BY_WIDTH = ("int32", "int64", "float32", "float64", "complex64", "complex128")


def matrix_type(task: str, path: str, given: np.dtype[Any], wanted: str | None) -> np.dtype[Any]:
    """Return the element type of the matrix that is made of elements of type `given`. Local.

    Parameters
    ----------
    task, path : str
        What is being done, and to which file, for messages.
    given : dtype
        What the file has: numbers.
    wanted : str or None
        What the caller asks for; None: what the file has.

    Raises
    ------
    FileContentError
        If the file has a type that matrices lack, and none is asked for.
    ArgumentValueError
        If there are no matrices of the type that is asked for, or the file's do not convert to it.
    """
    if wanted is None:
        if given.newbyteorder("=").name not in DTYPES:
            raise FileContentError(
                path,
                f"its elements are of type {given}, and the types of matrices are {', '.join(DTYPES)}: say which with "
                f"dtype={_suggestion(given)!r}",
            )
        return given.newbyteorder("=")
    if wanted not in DTYPES:
        raise ArgumentValueError(task, f"dtype must be one of {', '.join(DTYPES)}, not {wanted!r}")
    if not np.can_cast(given, wanted, "same_kind"):
        raise ArgumentValueError(
            task, f"{path} has elements of type {given}, which would not survive as dtype={wanted!r}"
        )
    return np.dtype(wanted)


def _suggestion(given: np.dtype[Any]) -> str:
    fallback = "complex128" if given.kind == "c" else "float64"
    return next((name for name in _BY_WIDTH if np.can_cast(given, name, "safe")), fallback)


def convert(path: str, raw: Array, out: Array) -> None:
    """Fill `out` with the elements of `raw`, of a type that :func:`matrix_type` has let pass. Local.

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
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, as everywhere in NumPy
        out[...] = raw
