"""The dense routines of ``linalg`` and their counterparts in SciPy: the calls, and the residuals of their results.

The residuals are those of LAPACK: scaled by the norms, the machine precision and the order. They are at most 30 if the
routine is backward stable (LAPACK Working Note 41, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

Array = np.ndarray
EPS = np.finfo(np.float64).eps
ORDER, SMALLER = 4000, 2000
SMALL_ORDERS = [1, 8, 64, 200, 400, 700, 1000]
RIGHT_HAND_SIDES = 10


@dataclass(frozen=True)
class Case:
    """A routine to measure.

    Attributes
    ----------
    name : str
        Name in the table.
    order : int
        Order of the matrix.
    kind : {"general", "hermitian", "positive", "small"}
        Kind of matrix. "small" is a general matrix with a norm of about 1.
    ours : callable
        ``ours(lib, A, b)``, which takes handles.
    theirs : callable
        ``theirs(A, b)``, which calls SciPy or NumPy on arrays.
    residual : callable or None
        ``residual(A, b, result)``, which takes arrays; None for an estimate, whose error has no such bound.
    asked : str
        Target for the ratio of the times.
    singular : bool
        Whether the routine accepts singular matrices.
    least_order : int
        Smallest order that the routine accepts.
    """

    name: str
    order: int
    kind: str
    ours: Callable[[Any, Any, Any], Any]
    theirs: Callable[[Array, Array], Any]
    residual: Callable[[Array, Array, Any], float] | None
    asked: str = "<= 1.3"
    singular: bool = True
    least_order: int = 1


# --- matrices ---------------------------------------------------------------------------------------------------------


def _orthogonal(rng: np.random.Generator, n: int) -> Array:
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def _with_singular_values(rng: np.random.Generator, values: Array) -> Array:
    n = len(values)
    return (_orthogonal(rng, n) * values) @ _orthogonal(rng, n)


def _rank_deficient(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_normal((n, n // 2)) @ rng.standard_normal((n // 2, n)) / n


def _hilbert_like(rng: np.random.Generator, n: int) -> Array:
    i = np.arange(n)
    return 1.0 / (i[:, np.newaxis] + i + 1.0)


FAMILIES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "random": lambda rng, n: rng.standard_normal((n, n)),
    "graded": lambda rng, n: rng.standard_normal((n, n)) * np.logspace(0, -12, n)[:, np.newaxis],
    "Hilbert-like": _hilbert_like,
    "rank-deficient": _rank_deficient,
    "clustered": lambda rng, n: _with_singular_values(rng, np.repeat([1.0, 1.0 - 1e-13, 1e-4, 1e-8], -(-n // 4))[:n]),
}
"""Functions that make matrices, difficult in different ways, by name."""

SINGULAR = ("Hilbert-like", "rank-deficient")
"""The families whose matrices are singular, exactly or to working precision."""


def matrix(kind: str, A: Array) -> Array:
    """Turn `A` into a matrix of this kind."""
    match kind:
        case "hermitian":
            return (A + A.T) / 2
        case "positive":
            B = A @ A.T
            return B + np.eye(len(A)) * 1e-3 * np.trace(B) / len(A)
        case "small":
            return A / np.linalg.norm(A, 1)
    return A


# --- residuals --------------------------------------------------------------------------------------------------------


def _scaled(difference: Array, *norms: float) -> float:
    scale = float(np.prod(norms)) * EPS * max(difference.shape)
    size = float(np.linalg.norm(difference))
    return size / scale if scale else size


def _norm(A: Array) -> float:
    return float(np.linalg.norm(A))


def _orthonormal(Q: Array) -> float:
    return float(np.linalg.norm(Q.T @ Q - np.eye(Q.shape[1]))) / (EPS * len(Q))


def _gemm(A: Array, b: Array, C: Array) -> float:
    return _scaled(C - A @ A, _norm(A), _norm(A))


def _lu(A: Array, b: Array, result: Any) -> float:
    p, L, U = result
    return _scaled(A - (L @ U)[np.asarray(p).ravel().astype(int)], _norm(L), _norm(U))


def _cholesky(A: Array, b: Array, R: Array) -> float:
    return _scaled(A - R.T @ R, _norm(A))


def _solve(A: Array, b: Array, x: Array) -> float:
    return _scaled(A @ x - b, _norm(A), _norm(x))


def _inv(A: Array, b: Array, X: Array) -> float:
    eye = np.eye(len(A))
    return min(_scaled(A @ X - eye, _norm(A), _norm(X)), _scaled(X @ A - eye, _norm(A), _norm(X)))


def _lstsq(A: Array, b: Array, result: Any) -> float:
    x = result[0]
    r = b - A @ x
    return _scaled(A.T @ r, _norm(A), _norm(A) * _norm(x) + _norm(b))


def _qr(A: Array, b: Array, result: Any) -> float:
    Q, R = result
    return max(_scaled(A - Q @ R, _norm(A)), _orthonormal(Q))


def _pivoted_qr(A: Array, b: Array, result: Any) -> float:
    Q, R, p = result
    return max(_scaled(A[:, np.asarray(p).ravel().astype(int)] - Q @ R, _norm(A)), _orthonormal(Q))


def _svd(A: Array, b: Array, result: Any) -> float:
    U, s, Vt = result
    return max(_scaled(A - (U * s) @ Vt, _norm(A)), _orthonormal(U), _orthonormal(Vt.T))


def _eigh(A: Array, b: Array, result: Any) -> float:
    w, V = result
    return max(_scaled(A @ V - V * w, _norm(A)), _orthonormal(V))


def _eigenvalues_of_hermitian(A: Array, b: Array, w: Array) -> float:
    return float(np.abs(w - np.linalg.eigvalsh(A)).max()) / (EPS * len(A) * np.linalg.norm(A, 2))


def _eigvals(A: Array, b: Array, w: Array) -> float:
    """Return how far the matrix is from one with these eigenvalues: the smallest singular value, for a few of them."""
    chosen = w[np.linspace(0, len(w) - 1, 5).astype(int)]
    smallest = max(np.linalg.svd(A - value * np.eye(len(A)), compute_uv=False)[-1] for value in chosen)
    return float(smallest) / (EPS * len(A) * _norm(A))


def _expm(A: Array, b: Array, E: Array) -> float:
    return _scaled(E - scipy.linalg.expm(A), _norm(E), 1 + _norm(A))


def _pinv(A: Array, b: Array, X: Array) -> float:
    return _scaled(A @ X @ A - A, _norm(A), _norm(A), _norm(X))


def _polar(A: Array, b: Array, result: Any) -> float:
    U, P = result
    return max(_scaled(A - U @ P, _norm(A)), _scaled(P - P.T, _norm(P)), _orthonormal(U))


def _slogdet(A: Array, b: Array, result: Any) -> float:
    sign, logarithm = result
    true_sign, true = np.linalg.slogdet(A)
    scale = EPS * len(A) * max(1 + abs(true), np.linalg.cond(A))  # a determinant is as ill-conditioned as an inverse
    return abs(logarithm - true) / scale + (0 if sign == true_sign else np.inf)


CASES = (
    Case("gemm", ORDER, "general", lambda lib, A, b: lib.gemm(A, A), lambda A, b: A @ A, _gemm),
    Case(
        "lu", ORDER, "general",
        lambda lib, A, b: lib.lu(A, p_indices=True), lambda A, b: scipy.linalg.lu(A, p_indices=True), _lu,
    ),
    Case("cholesky", ORDER, "positive", lambda lib, A, b: lib.cholesky(A), lambda A, b: scipy.linalg.cholesky(A),
         _cholesky, singular=False),
    Case("solve", ORDER, "general", lambda lib, A, b: lib.solve(A, b), lambda A, b: scipy.linalg.solve(A, b), _solve,
         singular=False),
    Case("inv", ORDER, "general", lambda lib, A, b: lib.inv(A), lambda A, b: scipy.linalg.inv(A), _inv,
         singular=False),
    Case("slogdet (det)", ORDER, "general", lambda lib, A, b: lib.slogdet(A), lambda A, b: np.linalg.slogdet(A),
         _slogdet, singular=False),
    Case("lstsq", ORDER, "general", lambda lib, A, b: lib.lstsq(A, b), lambda A, b: scipy.linalg.lstsq(A, b), _lstsq),
    Case("qr", ORDER, "general", lambda lib, A, b: lib.qr(A), lambda A, b: scipy.linalg.qr(A, mode="economic"), _qr),
    Case(
        "qr, pivoted", ORDER, "general",
        lambda lib, A, b: lib.qr(A, pivoting=True),
        lambda A, b: scipy.linalg.qr(A, mode="economic", pivoting=True), _pivoted_qr,
    ),
    Case("eigh", ORDER, "hermitian", lambda lib, A, b: lib.eigh(A), lambda A, b: scipy.linalg.eigh(A), _eigh),
    Case(
        "eigh, the 20 largest", ORDER, "hermitian",
        lambda lib, A, b: lib.eigh(A, subset_by_index=[A.shape[0] - 20, A.shape[0] - 1]),
        lambda A, b: scipy.linalg.eigh(A, subset_by_index=[len(A) - 20, len(A) - 1]), _eigh, least_order=20,
    ),
    Case("eigvalsh", ORDER, "hermitian", lambda lib, A, b: lib.eigvalsh(A), lambda A, b: scipy.linalg.eigvalsh(A),
         _eigenvalues_of_hermitian),
    Case("expm", ORDER, "small", lambda lib, A, b: lib.expm(A), lambda A, b: scipy.linalg.expm(A), _expm),
    Case("pinv", ORDER, "general", lambda lib, A, b: lib.pinv(A), lambda A, b: scipy.linalg.pinv(A), _pinv),
    Case("polar", ORDER, "general", lambda lib, A, b: lib.polar(A), lambda A, b: scipy.linalg.polar(A), _polar),
    Case(
        "condest", ORDER, "general",
        lambda lib, A, b: lib.condest(A), lambda A, b: np.linalg.cond(A, 1), None, singular=False,
    ),
    Case("svd", SMALLER, "general", lambda lib, A, b: lib.svd(A),
         lambda A, b: scipy.linalg.svd(A, full_matrices=False), _svd, "<= 2.5"),
    Case("eigvals", SMALLER, "general", lambda lib, A, b: lib.eigvals(A), lambda A, b: scipy.linalg.eigvals(A),
         _eigvals, "<= 2.5"),
)  # fmt: skip
