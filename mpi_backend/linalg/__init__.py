"""Linear algebra on distributed matrices: arithmetic, products, QR, linear systems, singular values.

Matrices are in any layout; they are brought to the layout that a method wants and never overwritten. Arithmetic and
products take every type (but no product takes bool), factorisations float32 and float64. Sparse matrices are taken
where a parameter says so. Every task is collective over the worker group.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.linalg import orthogonal, products, singular, systems
from alchemist_ray.mpi_backend.linalg.arithmetic import (
    astype,
    conj,
    elementwise,
    nnz,
    norm,
    relayout,
    sum,  # noqa: A004 - NumPy's word
    to_dense,
    transpose,
)
from alchemist_ray.mpi_backend.linalg.factors import Form

__all__ = [
    "astype",
    "conj",
    "elementwise",
    "gemm",
    "nnz",
    "norm",
    "qr",
    "relayout",
    "solve",
    "sum",
    "to_dense",
    "transpose",
    "truncated_svd",
]
__version__ = "1.1"


@task
def gemm(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    B: DistMatrix | SparseDistMatrix,
    transpose_a: bool = False,
    transpose_b: bool = False,
    alpha: complex = 1.0,
    conjugate_a: bool = False,
    conjugate_b: bool = False,
) -> DistMatrix:
    """Return the matrix product alpha op(A) op(B).

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, k), or (k, m) if `transpose_a`
        Left factor.
    B : DistMatrix or SparseDistMatrix, shape (k, n), or (n, k) if `transpose_b`
        Right factor; one of the two at most is sparse. If the dtypes differ, the product has the one that NumPy gives.
    transpose_a, transpose_b : bool
        Whether the transpose of A, of B, is meant.
    alpha : number
        A scalar factor.
    conjugate_a, conjugate_b : bool
        Whether the complex conjugate of A, of B, is meant; with the transpose, the conjugate transpose.

    Returns
    -------
    C : DistMatrix, shape (m, n)
        In the layout of op(A) if the rows of that are dealt and op(B) is small; else in MC_MR. Of a sparse A in
        VC_STAR, of a sparse B in STAR_VC.

    Raises
    ------
    ArgumentError
        If a matrix is bool, or both are sparse.
    ArgumentValueError
        If the shapes do not multiply.

    Notes
    -----
    2mnk operations, at the speed of BLAS for floating-point numbers and of a plain loop for integers. Memory beyond the
    result: a thousand columns of A and rows of B on each rank, or a copy of op(B) or of C where that is no larger than
    a rank's share of a factor; and a copy of each operand that is not in MC_MR with blocks that match, or not of the
    type of the product. Source: van de Geijn and Watts, Concurrency: Pract. Exper. 9 (1997), 255 (SUMMA).

    Of a sparse factor 2 nnz n operations, and some 16 MiB or a few columns of B and C; a copy of B if A is transposed
    and B not in VC_STAR.
    """
    form = Form(transpose_a, transpose_b, conjugate_a, conjugate_b, alpha)
    return products.product(ctx, A, B, form)


@task
def qr(ctx: TaskContext, A: DistMatrix) -> tuple[DistMatrix, DistMatrix]:
    """Return the economic QR factorisation A = Q R.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix.

    Returns
    -------
    Q : DistMatrix, shape (m, p)
        Orthonormal columns, ``p = min(m, n)``; dealt by rows where A is tall, else in MC_MR.
    R : DistMatrix, shape (p, n)
        Upper triangular, exactly zero below the diagonal; in MC_MR. Diagonal entries may be negative.

    Raises
    ------
    ArgumentError
        If A is not float32 or float64.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    Where each rank can have n rows and n is at most 2,000, or n is at most 32: TSQR, 4mn^2 operations, one n x n
    triangle on each rank and two copies of its rows (Demmel et al., SIAM J. Sci. Comput. 34 (2012), A206). Else p?gelqf
    and p?orglq of the transpose, which is how ScaLAPACK sees row-major storage; one copy of A.
    """
    return orthogonal.factor(ctx, A)


@task
def solve(ctx: TaskContext, A: DistMatrix, b: DistMatrix) -> DistMatrix:
    """Return x such that A x = b.

    Parameters
    ----------
    A : DistMatrix, shape (n, n)
        The matrix.
    b : DistMatrix, shape (n, nrhs)
        Right-hand sides. If the dtypes differ, the wider one is computed with.

    Returns
    -------
    x : DistMatrix, shape (n, nrhs)
        In the layout of b.

    Raises
    ------
    ArgumentError
        If a matrix is not float32 or float64.
    ArgumentValueError
        If A is not square, or b has another number of rows.
    NonFiniteError
        If A or b contains NaN or Inf.
    SingularMatrixError
        If a pivot of the LU factorisation is exactly zero. A matrix that is singular but for rounding passes.

    Notes
    -----
    LU with partial pivoting, p?getrf and p?getrs: 2/3 n^3 + 2 n^2 nrhs operations; one copy of A, two of b. ScaLAPACK
    sees the transpose of row-major storage, so columns are pivoted instead of rows, which is as stable.
    """
    return systems.solution(ctx, A, b)


@task
def truncated_svd(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    k: int,
    tol: float | None = 1e-10,
    seed: int = 0,
    max_iterations: int = 300,
) -> tuple[DistMatrix, npt.NDArray[Any], DistMatrix]:
    """Return the leading k singular triplets, A ~ U diag(S) Vt.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (m, n)
        The matrix, tall, wide or square.
    k : int
        Number of triplets, ``1 <= k <= min(m, n)``.
    tol : float or None
        The residuals ‖A v - sigma u‖ and ‖A^T u - sigma v‖ are to be at most this times the largest singular value.
        None, and what is below 100 times the machine precision of the dtype, means the latter.
    seed : int
        Of the random start of the iteration for large matrices. The same seed on as many workers gives the same result.
    max_iterations : int
        Blocks of some k + 8 vectors that the iteration may add before the whole SVD is computed instead.

    Returns
    -------
    U : DistMatrix, shape (m, k)
        Left singular vectors, orthonormal even where the singular values are zero.
    S : ndarray, shape (k,)
        Singular values, descending.
    Vt : DistMatrix, shape (k, n)
        Right singular vectors, orthonormal.

    Raises
    ------
    ArgumentError
        If A is not float32 or float64.
    ArgumentValueError
        If k is out of range, or tol is negative.
    NonFiniteError
        If A contains NaN or Inf.
    ConvergenceError
        If the whole SVD does not converge; if the iteration does not, for a sparse matrix whose smaller side is over
        6,000.

    Notes
    -----
    In what follows n is the smaller side; a wide matrix is treated as its transpose. The first that applies:

    - m n^2 more than 2e9, k <= n/4, n <= 2,000: eigenvectors of A^T A and a Rayleigh-Ritz step, mn^2 + O(n^3), unless
      the spectrum spans too much for that (see :mod:`.gram`);
    - m n^2 more than 2e9, k up to about n/9: thick-restart block Lanczos bidiagonalisation (see :mod:`.lanczos`), some
      4mn(k + 8) operations a block, unless it does not converge;
    - n <= 6,000: TSQR and the SVD of R on one rank, 4mn^2 + O(n^3), with R on every rank;
    - p?gesvd of the whole.

    A sparse matrix is treated by the iteration whatever its size, in blocks of 2 vectors unless there are singular
    values with more copies. Only where its smaller side leaves no room for the bases, below some 3k or 2k + 18, or the
    iteration does not converge, it is made dense.

    Memory: one copy of A where it is not dealt along its longer side; for TSQR and p?gesvd one or two more.
    """
    return singular.leading_triplets(ctx, A, k, tol, seed, max_iterations)
