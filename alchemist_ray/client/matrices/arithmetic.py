"""The computations that a matrix handle offers as operators and methods; each is a task of the library ``linalg``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from alchemist_ray.errors import InvalidArrayError

if TYPE_CHECKING:
    from alchemist_ray.client.matrices.handle import MatrixHandle

_NUMBERS = (int, float, complex, np.number, np.bool_)


def run(handle: MatrixHandle, task: str, /, **arguments: Any) -> Any:
    """Run a task of ``linalg`` whose argument `A` is the matrix."""
    return handle.session.run_task("linalg", task, A=handle, **arguments)


def elementwise(handle: MatrixHandle, operation: str, other: Any, swapped: bool = False) -> Any:
    """Combine a matrix with a handle, a number or an array, element by element; NotImplemented for anything else.

    Parameters
    ----------
    handle : MatrixHandle
        The matrix.
    operation : str
        As the task ``elementwise`` names it.
    other : MatrixHandle, number or ndarray
        The other operand; an array is sent to the workers.
    swapped : bool
        Whether `other` is the left operand.
    """
    operand = other if isinstance(other, _NUMBERS) else _matrix(handle, other)
    if operand is NotImplemented:
        return NotImplemented
    left, right = (operand, handle) if swapped else (handle, operand)
    return handle.session.run_task("linalg", "elementwise", operation=operation, A=left, B=right)


def product(handle: MatrixHandle, other: Any, swapped: bool = False) -> Any:
    """Return the matrix product with a handle or an array; NotImplemented for anything else.

    Parameters
    ----------
    handle, other, swapped
        As for :func:`elementwise`.
    """
    operand = _matrix(handle, other)
    if operand is NotImplemented:
        return NotImplemented
    left, right = (operand, handle) if swapped else (handle, operand)
    return handle.session.run_task("linalg", "gemm", A=left, B=right)


def _matrix(handle: MatrixHandle, other: Any) -> Any:
    """Return `other` as a handle, sending an array; NotImplemented if it is not a matrix."""
    if isinstance(other, np.ndarray):
        if other.ndim != 2:
            raise InvalidArrayError(
                f"an operand has 2 dimensions, but this array has {other.ndim}: a vector v becomes a column by "
                "v[:, None], or a row by v[None, :]"
            )
        return handle.session.send_matrix(other)
    return other if hasattr(other, "matrix_id") else NotImplemented
