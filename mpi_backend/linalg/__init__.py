"""Linear algebra on distributed matrices: arithmetic, products, QR, linear systems, singular values.

Matrices are in any layout; they are brought to the layout that a method wants and never overwritten. Arithmetic and
products take every type (but no product takes bool), factorisations real and complex numbers of single and double
precision. Sparse matrices are taken where a parameter says so. Every task is collective over the worker group.
"""

from __future__ import annotations

from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.linalg import products
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
from alchemist_ray.mpi_backend.linalg.cholesky_factors import cho_solve, cholesky
from alchemist_ray.mpi_backend.linalg.column_subsets import cx, leverage_scores
from alchemist_ray.mpi_backend.linalg.condition import condest
from alchemist_ray.mpi_backend.linalg.eigenvalues import eig, eigvals
from alchemist_ray.mpi_backend.linalg.exponential import expm
from alchemist_ray.mpi_backend.linalg.factors import Form
from alchemist_ray.mpi_backend.linalg.fourier_features import random_features
from alchemist_ray.mpi_backend.linalg.full_svd import svd
from alchemist_ray.mpi_backend.linalg.hermitian import eigh, eigvalsh
from alchemist_ray.mpi_backend.linalg.inverse import inv
from alchemist_ray.mpi_backend.linalg.least_squares import lstsq
from alchemist_ray.mpi_backend.linalg.lloyd import kmeans, kmeans_predict
from alchemist_ray.mpi_backend.linalg.lu_factors import det, lu, lu_factor, lu_solve, slogdet
from alchemist_ray.mpi_backend.linalg.orthogonal import qr
from alchemist_ray.mpi_backend.linalg.polar_decomposition import polar
from alchemist_ray.mpi_backend.linalg.principal_components import pca
from alchemist_ray.mpi_backend.linalg.pseudoinverse import pinv
from alchemist_ray.mpi_backend.linalg.ridge import rf_predict, rf_ridge, ridge_cg
from alchemist_ray.mpi_backend.linalg.singular import truncated_svd
from alchemist_ray.mpi_backend.linalg.systems import solve

__all__ = [
    "astype",
    "cho_solve",
    "cholesky",
    "condest",
    "conj",
    "cx",
    "det",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "elementwise",
    "expm",
    "gemm",
    "inv",
    "kmeans",
    "kmeans_predict",
    "leverage_scores",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_solve",
    "nnz",
    "norm",
    "pca",
    "pinv",
    "polar",
    "qr",
    "random_features",
    "relayout",
    "rf_predict",
    "rf_ridge",
    "ridge_cg",
    "slogdet",
    "solve",
    "sum",
    "svd",
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
