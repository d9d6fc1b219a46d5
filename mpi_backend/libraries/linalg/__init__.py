"""Linear algebra on distributed matrices: arithmetic, factorisations, spectral decompositions, data analysis.

Matrices may have any layout; a routine copies them to the layout that it needs, and never overwrites them. Arithmetic
accepts every type, products accept every type except bool, and factorisations accept real and complex numbers of single
and double precision. Sparse matrices are accepted where a parameter says so. Every task is collective over the worker
group.
"""

from __future__ import annotations

from alchemist_ray.mpi_backend.libraries.linalg.analysis.column_subsets import cx, leverage_scores
from alchemist_ray.mpi_backend.libraries.linalg.analysis.fourier_features import random_features
from alchemist_ray.mpi_backend.libraries.linalg.analysis.lloyd import kmeans, kmeans_predict
from alchemist_ray.mpi_backend.libraries.linalg.analysis.principal_components import pca
from alchemist_ray.mpi_backend.libraries.linalg.analysis.ridge import rf_predict, rf_ridge, ridge_cg
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.cholesky_factors import cho_solve, cholesky
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.condition import condest
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.inverse import inv
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.least_squares import lstsq
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.lu_factors import det, lu, lu_factor, lu_solve, slogdet
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.orthogonal import qr
from alchemist_ray.mpi_backend.libraries.linalg.factorizations.systems import solve
from alchemist_ray.mpi_backend.libraries.linalg.matrices.arithmetic import (
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
from alchemist_ray.mpi_backend.libraries.linalg.matrices.products import gemm
from alchemist_ray.mpi_backend.libraries.linalg.spectral.eigenvalues import eig, eigvals
from alchemist_ray.mpi_backend.libraries.linalg.spectral.exponential import expm
from alchemist_ray.mpi_backend.libraries.linalg.spectral.full_svd import svd
from alchemist_ray.mpi_backend.libraries.linalg.spectral.hermitian import eigh, eigvalsh
from alchemist_ray.mpi_backend.libraries.linalg.spectral.polar_decomposition import polar
from alchemist_ray.mpi_backend.libraries.linalg.spectral.pseudoinverse import pinv
from alchemist_ray.mpi_backend.libraries.linalg.spectral.singular import truncated_svd

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
