"""Tasks that can be handed arrays: how each wants its matrices sent, and what of a call can be checked before.

A *routine* is a task as a caller meets it who has arrays and no handles. It is made of what its library says about the
task (:meth:`Routine.of`). Of the four that everybody knows (:data:`ROUTINES`) the description is written down here, so
that a call needs no word from a server first. No Ray here; :mod:`.remote` makes Ray remote functions.
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
from alchemist_ray.layouts.spec import check_dtype, check_shape
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
            array = value if isinstance(value, np.ndarray) else np.asarray(value)
            if array.ndim == 1 and (self.vectors is None or name in self.vectors):
                array = array[:, np.newaxis]
            check_dtype(self._sent_dtype(array))
            check_shape(array.shape)
        except ValueError as misfit:  # InvalidArrayError is one, and what NumPy makes of ragged lists
            reason = misfit.reason if isinstance(misfit, InvalidArrayError) else f"this is no matrix: {misfit}"
            raise InvalidArrayError(f"argument {name}: {reason}") from None
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
        return isinstance(value, (np.ndarray, list, tuple)) and not parameter.admits(value)


_MATRICES = frozenset({"matrix", "sparse"})


_STRUCTURES = (
    "gen",
    "general",
    "sym",
    "symmetric",
    "her",
    "hermitian",
    "pos",
    "positive definite",
    "lower triangular",
    "upper triangular",
)


def _parameter(
    name: str, *kinds: str, keyword_only: bool = False, choices: tuple[str, ...] = (), **default: Any
) -> ParameterDescription:
    return ParameterDescription(name, kinds, not default, default.get("default"), keyword_only, choices)


ROUTINES = {
    routine.name: routine
    for routine in (
        Routine(
            name="svd",
            library="linalg",
            task=TaskDescription(
                name="truncated_svd",
                parameters=(
                    _parameter("A", "matrix", "sparse"),
                    _parameter("k", "int", "none", default=None),
                    _parameter("tol", "float", "none", default=1e-10),
                ),
                returns="tuple[DistMatrix, ndarray, DistMatrix]",
                doc="""Truncated singular value decomposition, ``A ~ U @ diag(S) @ Vt``.

    Parameters
    ----------
    A : array_like, ObjectRef or MatrixHandle, shape (m, n)
        Of floating or complex type; integers are converted to float64. Or a sparse matrix of SciPy's.
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
            operands=Operands({"A": BY_SHAPE}, vectors=()),
            smaller_side="k",
        ),
        Routine(
            name="matmul",
            library="linalg",
            task=TaskDescription(
                name="gemm",
                parameters=(_parameter("A", "matrix", "sparse"), _parameter("B", "matrix", "sparse")),
                returns="DistMatrix",
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
            operands=Operands({"A": ON_GRID, "B": ON_GRID}, vectors=()),
        ),
        Routine(
            name="qr",
            library="linalg",
            task=TaskDescription(
                name="qr",
                parameters=(
                    _parameter("A", "matrix"),
                    _parameter("mode", "str", default="economic", choices=("economic", "r")),
                    _parameter("pivoting", "bool", default=False),
                ),
                returns="tuple[DistMatrix, DistMatrix]",
                doc="""Reduced QR factorisation, ``A = Q @ R``, or with pivoting ``A[:, p] = Q @ R``.

    Parameters
    ----------
    A : array_like, ObjectRef or MatrixHandle, shape (m, n)
        Of floating or complex type; integers are converted to float64.
    mode : {"economic", "r"}
        Whether Q and R are wanted, or R alone.
    pivoting : bool
        Whether to exchange columns so that R reveals the rank.

    Returns
    -------
    ObjectRef
        Of ``Q`` (m, k), with orthonormal columns, and ``R`` (k, n), upper triangular, ``k = min(m, n)``: arrays, or
        handles if `A` is one; and with `pivoting` the array ``p`` of the columns.
    """,
            ),
            operands=Operands({"A": BY_SHAPE}, vectors=()),
        ),
        Routine(
            name="solve",
            library="linalg",
            task=TaskDescription(
                name="solve",
                parameters=(
                    _parameter("A", "matrix"),
                    _parameter("b", "matrix"),
                    _parameter("lower", "bool", default=False),
                    _parameter("transposed", "bool", default=False, keyword_only=True),
                    _parameter("assume_a", "str", default="gen", keyword_only=True, choices=_STRUCTURES),
                ),
                returns="DistMatrix",
                doc="""Solve ``A @ x = b`` for a square matrix `A`.

    Parameters
    ----------
    A : array_like, ObjectRef or MatrixHandle, shape (n, n)
        Of floating or complex type; integers are converted to float64.
    b : array_like, ObjectRef or MatrixHandle, shape (n,) or (n, nrhs)
        One or more right-hand sides.
    lower : bool
        For "pos", "sym" and "her": whether the lower triangle of `A` is read, instead of the upper one.
    transposed : bool
        Whether to solve ``A.T @ x = b``.
    assume_a : str
        What `A` is known to be: "gen"; "pos" for a Cholesky factorisation; "sym" or "her", of which one triangle is
        read; "lower triangular" or "upper triangular".

    Returns
    -------
    ObjectRef
        Of ``x``, of the shape of `b`: an array, or a handle if `A` or `b` is one.

    Raises
    ------
    SingularMatrixError, NotPositiveDefiniteError
        If `A` is singular, or is to be positive definite and is not.
    NonFiniteError
        If `A` or `b` has NaN or Inf.
    ArgumentValueError
        If `A` is not square, or `b` has another number of rows.
    """,
            ),
            operands=Operands({"A": ON_GRID, "b": ON_GRID}, vectors=("b",)),
        ),
    )
}
"""The four that are called without a word from a server, by name."""
