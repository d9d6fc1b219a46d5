"""Arithmetic entry by entry: sums, differences, products and quotients of matrices and numbers, conversions of type.

The types are NumPy's (:meth:`numpy.ufunc.resolve_dtypes`): a Python number is *weak*, it takes the precision of the
matrix, so ``2.5 * A`` is float32 if A is.

If both operands are matrices, the result has the layout of the first (or of the larger one), and the other is moved to
it; that copy becomes the result if it has the right type. A matrix of one row or one column is broadcast: every rank
that holds a part of a column (row) of the other matrix needs the element for it. :mod:`.reductions` leaves sums on the
same ranks, so subtracting a mean moves no data.

Sparse matrices stay sparse: an operation that would turn zeros into other numbers is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.layouts.csr import CsrArrays
from alchemist_ray.layouts.spec import DTYPES
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated
from alchemist_ray.mpi_backend.libraries.linalg.matrices.reductions import collapsed

Array = npt.NDArray[Any]
Scalar = bool | int | float | complex
Matrix = DistMatrix | SparseDistMatrix
Operand = Matrix | Scalar

_BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.true_divide}
_UNARY = {"negative": np.negative, "conjugate": np.conjugate, "absolute": np.absolute}


def combined(ctx: TaskContext, operation: str, A: Operand, B: Operand | None) -> Matrix:
    """Return A `operation` B; see the task :func:`.elementwise`. Collective."""
    ufunc = _ufunc(ctx, operation, A, B)
    operands = [A] if B is None else [A, B]
    *types, dtype = _resolved(ctx, ufunc, operands)
    dense = [each for each in operands if not isinstance(each, SparseDistMatrix)]
    sparse = [each for each in operands if not isinstance(each, DistMatrix)]
    if len(dense) == len(operands):
        return _dense(ctx, ufunc, dense, types, dtype)
    if len(sparse) == len(operands):
        return _sparse(ctx, ufunc, sparse, types, dtype)
    raise ArgumentError(ctx.task, f"{operation} takes two dense or two sparse matrices: use to_dense on the sparse one")


def converted(ctx: TaskContext, A: Matrix, name: str) -> Matrix:
    """Return a copy of `A` with elements of the type `name`. Collective over comm.

    Raises
    ------
    ArgumentValueError
        If `name` is not an element type of matrices.
    """
    if name not in DTYPES:
        raise ArgumentValueError(ctx.task, f"dtype must be one of {', '.join(DTYPES)}, but is {name!r}")
    dtype = np.dtype(name)
    if isinstance(A, SparseDistMatrix):
        A = A.without_duplicates()
        S = A.like(dtype)
        _convert(A.arrays.values, S.arrays.values)
        return S
    C = allocated(ctx, A.shape, dtype, A.layout)
    _convert(A.local, C.local)
    return C


def _convert(source: Array, target: Array) -> None:
    """Convert all elements as NumPy does, but without its warnings, which no user of a worker would see. Local."""
    if source.dtype.kind == "c" and target.dtype.kind not in "cb":
        source = source.real
    with np.errstate(all="ignore"):
        np.copyto(target, source, casting="unsafe")


# --- functions and types ----------------------------------------------------------------------------------------------


def _ufunc(ctx: TaskContext, operation: str, A: Operand, B: Operand | None) -> np.ufunc:
    """Return the function `operation`; check that it takes these operands, and that one of them is a matrix."""
    table = _UNARY if B is None else _BINARY
    if operation not in table:
        wanted = "one matrix" if B is None else "two operands"
        raise ArgumentValueError(
            ctx.task, f"operation must be one of {', '.join(table)} for {wanted}, but is {operation!r}"
        )
    if not any(isinstance(each, Matrix) for each in (A, B)):
        raise ArgumentError(ctx.task, "one of A and B must be a matrix")
    return table[operation]


def _resolved(ctx: TaskContext, ufunc: np.ufunc, operands: list[Operand]) -> list[np.dtype[Any]]:
    """Return the types to which `ufunc` converts its operands, and the type of the result."""
    given = [_type_of(each) for each in operands]
    if ufunc is np.conjugate and given == [np.dtype(bool)]:
        return given * 2  # like the method of arrays; the ufunc would turn bool into int8
    try:
        types = list(ufunc.resolve_dtypes((*given, None)))
    except TypeError:
        types = []
    if not types or types[-1].name not in DTYPES:
        names = " and ".join(each.name if isinstance(each, np.dtype) else each.__name__ for each in given)
        raise ArgumentError(ctx.task, f"{ufunc.__name__} is not defined for {names}: convert a matrix with astype")
    return types


def _type_of(operand: Operand) -> Any:
    """Return the type of an operand for NumPy; for a weak one its Python type."""
    if isinstance(operand, (Matrix, np.generic)):
        return operand.dtype
    return np.dtype(bool) if isinstance(operand, bool) else type(operand)


def _number(ctx: TaskContext, value: Scalar, dtype: np.dtype[Any]) -> Any:
    """Return `value` as a scalar of `dtype`.

    Raises
    ------
    ArgumentValueError
        If `dtype` is an integer type that is too small for it.
    """
    if dtype.kind == "i" and not np.iinfo(dtype).min <= int(value.real) <= np.iinfo(dtype).max:
        raise ArgumentValueError(
            ctx.task, f"the number {value} does not fit into {dtype}: convert the matrix with astype"
        )
    with np.errstate(all="ignore"):
        return dtype.type(value)


# --- dense ------------------------------------------------------------------------------------------------------------


def _dense(
    ctx: TaskContext,
    ufunc: np.ufunc,
    operands: list[DistMatrix | Scalar],
    types: list[np.dtype[Any]],
    dtype: np.dtype[Any],
) -> DistMatrix:
    leading = _leading(ctx, operands)
    taken = [
        _brought(each, leading) if isinstance(each, DistMatrix) else _number(ctx, each, wanted)
        for each, wanted in zip(operands, types, strict=True)
    ]
    copies = [each for each in taken if isinstance(each, DistMatrix) and not any(each is given for given in operands)]
    spare = [each for each in copies if each.dtype == dtype and each.shape == leading.shape]
    C = spare[0] if spare else allocated(ctx, leading.shape, dtype, leading.layout)
    if C.local.size:
        _apply(ufunc, [each.local if isinstance(each, DistMatrix) else each for each in taken], C.local)
    return C


def _leading(ctx: TaskContext, operands: list[Any]) -> DistMatrix:
    """Return the first operand that has the shape of the result."""
    matrices = [each for each in operands if isinstance(each, DistMatrix)]
    m, n = (max(each.shape[axis] for each in matrices) for axis in (0, 1))
    fits = all(each.shape[0] in (1, m) and each.shape[1] in (1, n) for each in matrices)
    leading = [each for each in matrices if each.shape == (m, n)]
    if not (fits and leading):
        shapes = " and ".join(f"{rows}x{cols}" for rows, cols in (each.shape for each in matrices))
        raise ArgumentValueError(
            ctx.task,
            f"matrices of {shapes} do not fit: they must have the same shape, or one must be a single row or column",
        )
    return leading[0]


def _brought(X: DistMatrix, leading: DistMatrix) -> DistMatrix:
    """Return `X` moved to the elements of `leading` that it is combined with. Collective if it must move."""
    layout = leading.layout
    for axis in (0, 1):
        if X.shape[axis] != leading.shape[axis]:
            layout = collapsed(layout, axis)
    return X.relayout(layout)


def _apply(ufunc: np.ufunc, operands: list[Any], out: Array) -> None:
    with np.errstate(all="ignore"):  # NaN and Inf in the result show overflows and divisions by zero
        if ufunc is np.conjugate and out.dtype.kind != "c":
            np.copyto(out, operands[0])
        else:
            ufunc(*operands, out=out)


# --- sparse -----------------------------------------------------------------------------------------------------------


def _sparse(
    ctx: TaskContext,
    ufunc: np.ufunc,
    operands: list[SparseDistMatrix | Scalar],
    types: list[np.dtype[Any]],
    dtype: np.dtype[Any],
) -> SparseDistMatrix:
    matrices = [each for each in operands if isinstance(each, SparseDistMatrix)]
    if len(matrices) == 2:
        return _of_two(ctx, ufunc, matrices, dtype)
    if ufunc in (np.add, np.subtract) or (ufunc is np.true_divide and matrices[0] is not operands[0]):
        raise ArgumentError(
            ctx.task, f"{ufunc.__name__} of a sparse matrix and a number would make it dense: use to_dense first"
        )
    A = matrices[0].without_duplicates() if ufunc is np.absolute else matrices[0]
    C = A.like(dtype)
    values = [
        A.arrays.values if isinstance(each, SparseDistMatrix) else _number(ctx, each, wanted)
        for each, wanted in zip(operands, types, strict=True)
    ]
    _apply(ufunc, values, C.arrays.values)
    return C


def _of_two(
    ctx: TaskContext, ufunc: np.ufunc, operands: list[SparseDistMatrix], dtype: np.dtype[Any]
) -> SparseDistMatrix:
    A, B = operands
    if A.shape != B.shape:
        (m, n), (p, q) = A.shape, B.shape
        raise ArgumentValueError(
            ctx.task, f"sparse matrices of {m}x{n} and {p}x{q} do not fit: they must have the same shape"
        )
    a, b = (each.local.astype(dtype, copy=False) for each in operands)
    if ufunc is np.true_divide:
        raise ArgumentError(ctx.task, "divide of two sparse matrices would divide zeros by zeros: use to_dense first")
    C = a.multiply(b) if ufunc is np.multiply else a + b if ufunc is np.add else a - b
    values = C.data.astype(dtype, copy=False)
    return SparseDistMatrix.from_local(ctx.comm, A.shape, CsrArrays(C.indptr, C.indices, values), ctx.allocate)
