"""The linear algebra that arrays can be handed to directly: which task each routine is, and how it wants its input.

No Ray here; :mod:`alchemist_ray.remote` makes Ray remote functions of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import InvalidArrayError
from alchemist_ray.spec import as_matrix

Array = npt.NDArray[Any]

TALL = 2
"""From this ratio of its sides on, a matrix is dealt out by whole rows (or, if it is wide, columns)."""


def by_shape(shape: tuple[int, int]) -> str:
    """Return the layout for a routine that treats tall, wide and square matrices differently."""
    m, n = shape
    if m >= TALL * n:
        return "VC_STAR"
    return "STAR_VC" if n >= TALL * m else "MC_MR"


def on_grid(shape: tuple[int, int]) -> str:
    """Return the layout for a routine that wants a two-dimensional grid."""
    return "MC_MR"


@dataclass(frozen=True)
class Routine:
    """A routine of the library ``linalg``.

    Attributes
    ----------
    name, task : str
        What it is called here and in the library.
    parameters : tuple of str
        Its parameters, as the library calls them, in order.
    layouts : mapping
        For each parameter that is a matrix: shape -> name of the layout to send it in.
    defaults : mapping
        For each parameter that may be left out, its value.
    doc : str
        For people.
    """

    name: str
    task: str
    parameters: tuple[str, ...]
    layouts: Mapping[str, Callable[[tuple[int, int]], str]]
    doc: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name.

        Raises
        ------
        TypeError
            As for a Python function, if an argument is missing, unknown or given twice.
        """
        if len(args) > len(self.parameters):
            raise TypeError(f"{self.name}() takes {len(self.parameters)} arguments, {len(args)} were given")
        bound = dict(zip(self.parameters, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.parameters:
                raise TypeError(f"{self.name}() has no argument {name!r}; it takes {', '.join(self.parameters)}")
            if name in bound:
                raise TypeError(f"{self.name}() got argument {name!r} twice")
            bound[name] = value
        missing = [name for name in self.parameters if name not in bound and name not in self.defaults]
        if missing:
            raise TypeError(f"{self.name}() lacks the argument {missing[0]!r}")
        return {**self.defaults, **bound}


def as_operand(name: str, value: npt.ArrayLike) -> Array:
    """Return `value` as a matrix that the routines compute with: integers become float64, a vector one column.

    Raises
    ------
    InvalidArrayError
        If it is no matrix, or `name` may not be a vector.
    """
    array = np.asarray(value) if not isinstance(value, np.ndarray) else value
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.ndim == 1 and name == "b":
        array = array[:, np.newaxis]
    try:
        return as_matrix(array)
    except InvalidArrayError as misfit:
        raise InvalidArrayError(f"argument {name}: {misfit.reason}") from None


ROUTINES = {
    routine.name: routine
    for routine in (
        Routine(
            name="svd",
            task="truncated_svd",
            parameters=("A", "k", "tol"),
            layouts={"A": by_shape},
            defaults={"k": None, "tol": 1e-10},
            doc="""Truncated singular value decomposition, ``A ~ U @ diag(S) @ Vt``.

    Parameters
    ----------
    A : array_like, ObjectRef or MatrixHandle, shape (m, n)
        float64 or float32; integers are converted to float64. Or a sparse matrix of SciPy's.
    k : int, optional
        How many leading triplets to compute, 1 to min(m, n); by default all.
    tol : float
        Largest residual ``|A v - s u|`` of a triplet, in units of the largest singular value.

    Returns
    -------
    ObjectRef
        Of ``U`` (m, k), ``S`` (k,), descending, and ``Vt`` (k, n): arrays, or for a handle `A`, handles (and ``S`` an
        array).

    Raises
    ------
    ArgumentValueError
        If `k` is out of range.
    NonFiniteError
        If `A` has NaN or Inf.

    Examples
    --------
    >>> U, S, Vt = ray.get(alchemist.svd.remote(A, k=20))  # doctest: +SKIP
    """,
        ),
        Routine(
            name="matmul",
            task="gemm",
            parameters=("A", "B"),
            layouts={"A": on_grid, "B": on_grid},
            doc="""Matrix product ``A @ B``.

    Parameters
    ----------
    A, B : array_like, ObjectRef or MatrixHandle, shapes (m, p) and (p, n)
        Of floating or complex type; integers are converted to float64. One of them may be a sparse matrix of SciPy's.

    Returns
    -------
    ObjectRef
        Of the product (m, n): an array, or a handle if `A` or `B` is one.

    Raises
    ------
    ArgumentValueError
        If the shapes do not multiply.
    """,
        ),
        Routine(
            name="qr",
            task="qr",
            parameters=("A",),
            layouts={"A": by_shape},
            doc="""Reduced QR factorisation, ``A = Q @ R``.

    Parameters
    ----------
    A : array_like, ObjectRef or MatrixHandle, shape (m, n)
        float64 or float32; integers are converted to float64.

    Returns
    -------
    ObjectRef
        Of ``Q`` (m, p), with orthonormal columns, and ``R`` (p, n), upper triangular, ``p = min(m, n)``: arrays, or
        handles if `A` is one.
    """,
        ),
        Routine(
            name="solve",
            task="solve",
            parameters=("A", "b"),
            layouts={"A": on_grid, "b": on_grid},
            doc="""Solve ``A @ x = b`` for a square matrix `A`.

    Parameters
    ----------
    A : array_like, ObjectRef or MatrixHandle, shape (n, n)
        float64 or float32; integers are converted to float64.
    b : array_like, ObjectRef or MatrixHandle, shape (n,) or (n, nrhs)
        One or more right-hand sides.

    Returns
    -------
    ObjectRef
        Of ``x``, of the shape of `b`: an array, or a handle if `A` or `b` is one.

    Raises
    ------
    SingularMatrixError
        If `A` is singular.
    NonFiniteError
        If `A` or `b` has NaN or Inf.
    ArgumentValueError
        If `A` is not square, or `b` has another number of rows.
    """,
        ),
    )
}
"""The routines by name."""
