"""The arithmetic tasks behind the operators and methods of a matrix handle, with NumPy's names."""

from __future__ import annotations

from typing import Any

from alchemist_ray.layouts.choice import LayoutChoice
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg.matrices import arrangement, entrywise, reductions


@task
def elementwise(
    ctx: TaskContext,
    operation: str,
    A: DistMatrix | SparseDistMatrix | bool | int | float | complex,
    B: DistMatrix | SparseDistMatrix | bool | int | float | complex | None = None,
) -> DistMatrix | SparseDistMatrix:
    """Return `A` operation `B`, or operation `A`, entry by entry.

    Parameters
    ----------
    operation : str
        ``add``, ``subtract``, ``multiply`` or ``divide`` for two operands; ``negative``, ``conjugate`` or ``absolute``
        for one.
    A, B : DistMatrix, SparseDistMatrix or number
        At least one is a matrix. Two dense matrices have the same shape, or one of them is a single row or column,
        which is broadcast as in NumPy. A sparse matrix can be added to, subtracted from or multiplied by another of its
        shape, and multiplied or divided by a number.

    Returns
    -------
    C : DistMatrix or SparseDistMatrix
        In the layout of the first operand that has its shape, with NumPy's dtype; a number takes the precision of the
        matrix.

    Raises
    ------
    ArgumentError
        If the operation is not defined for these types (for example, subtract for bool), would make a sparse matrix
        dense, or has one sparse and one dense matrix.
    ArgumentValueError
        If the shapes do not fit, the operation is unknown, or a number does not fit into the matrix's integer type.

    Notes
    -----
    Nothing is communicated if both operands have the same layout, or if one is a row or column that :func:`sum` made
    from such a matrix. Memory beyond the result: a copy of `B` if its layout differs and its type is not that of the
    result. Divisions by zero and overflows follow IEEE 754, without a warning.
    """
    return entrywise.combined(ctx, operation, A, B)


@task
def astype(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, dtype: str) -> DistMatrix | SparseDistMatrix:
    """Return `A` with elements of another type.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix
        The matrix.
    dtype : str
        ``float64``, ``float32``, ``complex128``, ``complex64``, ``int64``, ``int32`` or ``bool``. As in NumPy,
        fractions, imaginary parts and high bits that do not fit are dropped.

    Returns
    -------
    C : DistMatrix or SparseDistMatrix
        In the layout of `A`; always a copy, even if the type is the same.

    Raises
    ------
    ArgumentValueError
        If `dtype` is another type.
    """
    return entrywise.converted(ctx, A, dtype)


@task
def conj(ctx: TaskContext, A: DistMatrix | SparseDistMatrix) -> DistMatrix | SparseDistMatrix:
    """Return the complex conjugate of a matrix.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, n)
        The matrix, of any type.

    Returns
    -------
    DistMatrix or SparseDistMatrix, shape (m, n)
        In the layout of `A`; if `A` is real, a copy of it.
    """
    return entrywise.combined(ctx, "conjugate", A, None)


@task
def sum(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, axis: int | None = None) -> Any:  # noqa: A001 - NumPy's word
    """Return the sum of all elements, or the sums along an axis.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, n)
        The matrix.
    axis : int, optional
        0 to sum over the rows, 1 to sum over the columns; by default over both.

    Returns
    -------
    number, or DistMatrix of shape (1, n) for axis 0, (m, 1) for axis 1
        Of the type of `A`; int64 for int32 and bool. Each sum lies on every rank that holds a part of its column (row)
        of `A`.

    Raises
    ------
    ArgumentValueError
        If `axis` is not valid.
    """
    return reductions.total(ctx, A, axis)


@task
def norm(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    ord: str | int | float = "fro",  # noqa: A002 - NumPy's word
    axis: int | None = None,
) -> float | DistMatrix:
    """Return a norm of `A`, or the norms of its columns or rows, in double precision.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, n)
        The matrix, of any type.
    ord : str or number
        ``"fro"``: root of the sum of squares, computed without overflow; 1: largest sum of magnitudes over a column,
        -1: smallest; infinity or ``"inf"``: largest over a row, -infinity or ``"-inf"``: smallest; ``"max"``: largest
        magnitude; 2: largest singular value, -2: smallest; ``"nuc"``: sum of the singular values.
        With an axis: ``"fro"`` or 2: Euclidean norm; 1: sum of magnitudes; infinity, ``"inf"`` or ``"max"``: largest.
    axis : int, optional
        0 for the norms of the columns, 1 for those of the rows; by default the norm of the matrix.

    Returns
    -------
    float, or DistMatrix of float64, of shape (1, n) for axis 0, (m, 1) for axis 1
        Each norm lies on every rank that holds a part of its column (row) of `A`. A norm over elements with a NaN is
        NaN.

    Raises
    ------
    ArgumentValueError
        If `ord` or `axis` is not valid.
    NonFiniteError
        If the norm needs singular values, and A contains NaN or Inf.
    ConvergenceError
        If the singular values do not converge.

    Notes
    -----
    One pass over A; Euclidean norms of columns or rows take two more if squares overflow or underflow. Singular values
    are computed in the precision of A (double for integers): 2 costs the work and memory of :func:`truncated_svd` for
    k = 1, while -2 and ``"nuc"`` cost those of :func:`svd`, for which a sparse matrix is made dense.
    """
    return reductions.norm(ctx, A, ord) if axis is None else reductions.vector_norms(ctx, A, ord, axis)


@task
def relayout(ctx: TaskContext, A: DistMatrix, layout: dict[str, Any]) -> DistMatrix:
    """Return a copy of `A` in another layout.

    Parameters
    ----------
    A : DistMatrix
        The matrix.
    layout : dict
        ``pair``, and optionally ``block``, ``grid`` and ``align``.

    Returns
    -------
    DistMatrix
        The copy.

    Raises
    ------
    LayoutError
        If the layout is not valid, or does not fit the workers.
    """
    return arrangement.rearranged(ctx, A, LayoutChoice.from_wire(layout).resolve(A.shape, ctx.comm.size))


@task
def transpose(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    layout: dict[str, Any] | None = None,
    conjugate: bool = False,
) -> DistMatrix | SparseDistMatrix:
    """Return the transpose, or conjugate transpose, of `A`.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, n)
        The matrix.
    layout : dict, optional
        Layout of the transpose: ``pair``, and optionally ``block``, ``grid`` and ``align``. By default every element
        stays on its rank. Not for a sparse matrix, which is always distributed by rows.
    conjugate : bool
        Whether to return the conjugate transpose.

    Returns
    -------
    At : DistMatrix or SparseDistMatrix, shape (n, m)

    Raises
    ------
    ArgumentError
        If a layout is given for a sparse matrix.
    LayoutError
        If the layout is not valid, or does not fit the workers.
    """
    m, n = A.shape
    choice = None if layout is None else LayoutChoice.from_wire(layout).resolve((n, m), ctx.comm.size)
    return arrangement.transposed(ctx, A, choice, conjugate)


@task
def to_dense(ctx: TaskContext, A: SparseDistMatrix, layout: dict[str, Any] | None = None) -> DistMatrix:
    """Return a sparse matrix as a dense one.

    Parameters
    ----------
    A : SparseDistMatrix
        The matrix.
    layout : dict, optional
        Layout of the result: ``pair``, and optionally ``block``, ``grid`` and ``align``; by default VC_STAR.

    Returns
    -------
    DistMatrix
        The dense matrix. Duplicate entries are added up.

    Raises
    ------
    LayoutError
        If the layout is not valid, or does not fit the workers.
    """
    choice = None if layout is None else LayoutChoice.from_wire(layout).resolve(A.shape, ctx.comm.size)
    return A.to_dense(choice)


@task
def nnz(ctx: TaskContext, A: SparseDistMatrix) -> int:
    """Return the number of stored entries of a sparse matrix.

    Parameters
    ----------
    A : SparseDistMatrix, shape (m, n)
        The matrix.

    Returns
    -------
    int
        The number, which includes stored zeros and duplicates.
    """
    return A.nnz
