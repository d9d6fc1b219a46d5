"""The routines of ``linalg`` that are offered by name: ``svd``, ``matmul``, ``qr``, ``solve`` and others."""

from __future__ import annotations

from typing import Any

from alchemist_ray.calls.routine import BY_SHAPE, ON_GRID, Operands, Routine
from alchemist_ray.protocol.descriptions import ParameterDescription, TaskDescription

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
"""The routines that are called without a question to a server first, by name."""
