"""Factorisations of whole matrices by LAPACK, for problems that one rank solves (:mod:`.small_problems`).

All arrays are Fortran-ordered and may be overwritten. Each matrix is scaled (:mod:`.scaling`) as in the distributed
factorisations, so both can solve systems with numbers near the limits of their range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import NotPositiveDefiniteError, SingularMatrixError
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.elimination import permutation
from alchemist_ray.mpi_backend.libraries.linalg.local_blas import lapack, solve_triangle
from alchemist_ray.mpi_backend.libraries.linalg.scaling import scale_linearly, shift_exponents

Array = npt.NDArray[Any]
Form = Literal["N", "T", "C"]


@dataclass(frozen=True)
class WholeLU:
    """The factors of a square matrix times 2**exponent, as LAPACK stores them.

    Attributes
    ----------
    factors : ndarray
        L without its unit diagonal, and U.
    piv : ndarray of int64
        Row i was exchanged with row ``piv[i]``, for each i in turn.
    exponent : int
        Exponent of the scale factor.
    """

    factors: Array
    piv: npt.NDArray[np.int64]
    exponent: int

    @classmethod
    def of(cls, A: Array) -> WholeLU:
        """Overwrite `A` with its factors; a pivot may be zero. Local."""
        exponent = scale_linearly(MPI.COMM_SELF, A)
        if A.size == 0:
            return cls(A, np.empty(0, np.int64), 0)
        factors, piv, _ = lapack("getrf", A)(A, overwrite_a=True)
        return cls(factors, piv.astype(np.int64), exponent)

    def solve(self, X: Array, form: Form) -> Array:
        """Overwrite `X` with the solution x of op(A) x = X; return it. Local."""
        shift = self.exponent - scale_linearly(MPI.COMM_SELF, X)
        order, T = permutation(self.piv, len(X)), self.factors
        if form == "N":
            X[...] = X[order]
            solve_triangle(T, X, lower=True, unit=True)
            solve_triangle(T, X, lower=False)
        else:
            T = T.T.conj() if form == "C" else T.T
            solve_triangle(T, X, lower=True)
            solve_triangle(T, X, lower=False, unit=True)
            X[...] = X[np.argsort(order)]
        if shift:
            shift_exponents(X, shift)
        return X

    def inverse(self) -> Array:
        """Return the inverse. Local."""
        X = np.eye(len(self.factors), dtype=self.factors.dtype, order="F")
        return self.solve(X, "N")


def regular(task: str, A: Array) -> WholeLU:
    """Overwrite a square matrix with its factors. Local.

    Raises
    ------
    SingularMatrixError
        If a pivot is exactly zero.
    """
    factors = WholeLU.of(A)
    require_regular(task, factors.factors)
    return factors


def require_regular(task: str, T: Array) -> None:
    """Check that the diagonal of a triangle has no zero. Local.

    Raises
    ------
    SingularMatrixError
        If it has a zero.
    """
    zeros = np.flatnonzero(np.diagonal(T) == 0)
    if zeros.size:
        raise SingularMatrixError(task, "A", int(zeros[0]) + 1)


def shift_upper(A: Array, exponent: int) -> None:
    """Multiply the upper triangle in place by 2**exponent. Local."""
    if exponent:
        for j in range(A.shape[1]):
            shift_exponents(A[: j + 1, j], exponent)


def cholesky_factor(task: str, A: Array, lower: bool) -> tuple[Array, int]:
    """Overwrite a matrix with its scaled Cholesky factor and zeros; return it and the exponent of the scale. Local.

    Raises
    ------
    NotPositiveDefiniteError
        If the matrix is not positive definite.
    """
    exponent = scale_linearly(MPI.COMM_SELF, A, even=True) // 2
    if A.size == 0:
        return A, 0
    factor, order = lapack("potrf", A)(A, lower=lower, clean=True, overwrite_a=True)
    if order:
        raise NotPositiveDefiniteError(task, "A", int(order))
    return factor, exponent


def solve_triangular(T: Array, X: Array, form: Form, *, lower: bool) -> Array:
    """Overwrite `X` with the solution x of op(T) x = X; return it. Only one triangle of T is read. Local."""
    triangle = np.tril(T) if lower else np.triu(T)
    shift = scale_linearly(MPI.COMM_SELF, triangle) - scale_linearly(MPI.COMM_SELF, X)
    _solve_triangle(triangle, X, form, lower=lower)
    if shift:
        shift_exponents(X, shift)
    return X


def _solve_triangle(T: Array, X: Array, form: Form, *, lower: bool) -> None:
    if form == "N":
        solve_triangle(T, X, lower=lower)
    else:
        solve_triangle(T.T.conj() if form == "C" else T.T, X, lower=not lower)


def solve_by_cholesky(factor: Array, X: Array, *, lower: bool, exponent: int = 0, transposed: bool = False) -> Array:
    """Overwrite `X` with the solution x of A x = X or A^T x = X, given the factor of A times 2**exponent. Local."""
    triangle = np.tril(factor) if lower else np.triu(factor)
    exponent += scale_linearly(MPI.COMM_SELF, triangle, twice=True)
    shift = 2 * exponent - scale_linearly(MPI.COMM_SELF, X)
    conjugate = transposed and X.dtype.kind == "c"  # A^T is the conjugate of A
    if conjugate:
        np.conjugate(X, out=X)
    _solve_triangle(triangle, X, "N" if lower else "C", lower=lower)
    _solve_triangle(triangle, X, "C" if lower else "N", lower=lower)
    if conjugate:
        np.conjugate(X, out=X)
    if shift:
        shift_exponents(X, shift)
    return X


def mirrored(A: Array, lower: bool, *, conjugate: bool) -> Array:
    """Return the symmetric or Hermitian matrix with the given triangle of `A`. Local."""
    triangle = np.tril(A, -1) if lower else np.triu(A, 1)
    diagonal = np.diagonal(A).real if conjugate else np.diagonal(A)
    other = triangle.T.conj() if conjugate else triangle.T
    whole = np.asfortranarray(triangle + other)
    np.fill_diagonal(whole, diagonal)
    return whole
