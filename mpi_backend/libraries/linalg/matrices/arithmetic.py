"""The tasks of arithmetic: what a matrix handle does, in NumPy's words."""

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
        ``add``, ``subtract``, ``multiply`` or ``divide`` of two operands; ``negative``, ``conjugate`` or ``absolute``
        of one.
    A, B : DistMatrix, SparseDistMatrix or number
        At least one is a matrix. Dense matrices are of one shape, or one of them is a single row or column, which
        stands for as many equal ones as the other has. A sparse matrix is added to, subtracted from or multiplied by
        another of its shape, or multiplied or divided by a number.

    Returns
    -------
    C : DistMatrix or SparseDistMatrix
        In the layout of the first operand that has its shape, with the dtype that NumPy gives: a number takes part with
        the precision of the matrix.

    Raises
    ------
    ArgumentError
        If the operation is not defined for these types, as a difference of bool is not, or would make a sparse matrix
        dense, or one matrix is sparse and the other not.
    ArgumentValueError
        If the shapes do not fit, there is no such operation, or a number does not fit into the matrix's integers.

    Notes
    -----
    Nothing is communicated if both lie alike, or one is a row or column that :func:`sum` made of such a matrix. Memory
    beyond the result: a copy of `B` if it lies elsewhere and is not of the result's type. Divisions by zero and
    overflows give what IEEE 754 says, without a warning.
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
        ``float64``, ``float32``, ``complex128``, ``complex64``, ``int64``, ``int32`` or ``bool``. What does not fit is
        cut off as NumPy does it: fractions, imaginary parts, high bits.

    Returns
    -------
    C : DistMatrix or SparseDistMatrix
        In the layout of `A`; a copy, also if the type is the same.

    Raises
    ------
    ArgumentValueError
        If there are no matrices of that type.
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
        In the layout of `A`; a copy if it is real.
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
        0 to sum over the rows, 1 over the columns; by default over both.

    Returns
    -------
    number, or DistMatrix of shape (1, n) for axis 0, (m, 1) for axis 1
        Of the type of `A`; int64 for int32 and bool. The matrix lies where the columns (rows) of `A` do: on every rank
        that holds some of them.

    Raises
    ------
    ArgumentValueError
        If there is no such axis.
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
        ``"fro"``: root of the sum of squares, without overflow on the way; 1: largest sum of magnitudes over a column,
        -1: smallest; infinity or ``"inf"``: largest over a row, -infinity or ``"-inf"``: smallest; ``"max"``: largest
        magnitude; 2: largest singular value, -2: smallest; ``"nuc"``: sum of the singular values.
        With an axis: ``"fro"`` or 2: Euclidean norm; 1: sum of magnitudes; infinity, ``"inf"`` or ``"max"``: largest.
    axis : int, optional
        0 for the norms of the columns, 1 for those of the rows; by default the norm of the matrix.

    Returns
    -------
    float, or DistMatrix of float64, of shape (1, n) for axis 0, (m, 1) for axis 1
        The matrix lies where the columns (rows) of `A` do. Norms of what contains NaN are NaN.

    Raises
    ------
    ArgumentValueError
        If `ord` or `axis` is another.
    NonFiniteError
        If singular values are asked for, and A contains NaN or Inf.
    ConvergenceError
        If they do not converge.

    Notes
    -----
    One pass over A; Euclidean norms of columns or rows take two more where squares overflow or vanish. Singular values
    are computed with the precision of A (double for integers): the largest one with the work and memory of
    :func:`truncated_svd` for k = 1, -2 and ``"nuc"`` with those of :func:`svd`, of a sparse matrix made dense.
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
        ``pair``, and perhaps ``block``, ``grid`` and ``align``.

    Returns
    -------
    DistMatrix
        With the elements of `A`.

    Raises
    ------
    LayoutError
        If there is no such layout, or it does not fit the workers.
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
        Of the transpose: ``pair``, and perhaps ``block``, ``grid`` and ``align``. By default every element stays on the
        rank where it is. Not for a sparse matrix, which is dealt by rows.
    conjugate : bool
        Whether the complex conjugate is meant.

    Returns
    -------
    At : DistMatrix or SparseDistMatrix, shape (n, m)

    Raises
    ------
    ArgumentError
        If a layout is given for a sparse matrix.
    LayoutError
        If there is no such layout, or it does not fit the workers.
    """
    m, n = A.shape
    choice = None if layout is None else LayoutChoice.from_wire(layout).resolve((n, m), ctx.comm.size)
    return arrangement.transposed(ctx, A, choice, conjugate)


@task
def to_dense(ctx: TaskContext, A: SparseDistMatrix, layout: dict[str, Any] | None = None) -> DistMatrix:
    """Return a sparse matrix with all its zeros.

    Parameters
    ----------
    A : SparseDistMatrix
        The matrix.
    layout : dict, optional
        Of the result: ``pair``, and perhaps ``block``, ``grid`` and ``align``; by default VC_STAR.

    Returns
    -------
    DistMatrix
        Entries that are stored more than once are added up.

    Raises
    ------
    LayoutError
        If there is no such layout, or it does not fit the workers.
    """
    choice = None if layout is None else LayoutChoice.from_wire(layout).resolve(A.shape, ctx.comm.size)
    return A.to_dense(choice)


@task
def nnz(ctx: TaskContext, A: SparseDistMatrix) -> int:
    """Return how many entries of a sparse matrix are stored.

    Parameters
    ----------
    A : SparseDistMatrix, shape (m, n)
        The matrix.

    Returns
    -------
    int
        Zeros and duplicates included, if they are stored.
    """
    return A.nnz
