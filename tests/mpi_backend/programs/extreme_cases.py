"""Run the cases of linear algebra at extreme scales, and with matrices without rows or columns.

The reference is the result of NumPy or SciPy in double precision for the matrix multiplied by a power of two, which is
exact. At the limits of the range of numbers a result may also be wrong by the smallest number.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
from cases import Array, case, ctx, dealt, main, spread

from alchemist_ray.mpi_backend.ali import DistMatrix
from alchemist_ray.mpi_backend.libraries import linalg

TYPES = ("float32", "float64", "complex64", "complex128")
N, NRHS, BLOCK = 21, 3, 8
WRONG = 1e9


def scales(dtype: str) -> dict[str, int]:
    """Return exponents of two that make a matrix of norm 1 subnormal, barely normal, and almost too large."""
    precision = np.finfo(dtype)
    return {
        "subnormal": int(precision.minexp) - precision.nmant // 2,
        "smallest": int(precision.minexp) + 1,
        "largest": int(precision.maxexp) - 1,
    }


def normal(shape: tuple[int, int], dtype: str, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal(shape)
    return A + 1j * rng.standard_normal(shape) if dtype[0] == "c" else A


def with_values(m: int, n: int, dtype: str) -> Array:
    """Return a matrix with singular values between a quarter and 0.9."""
    p = min(m, n)
    U, V = (np.linalg.qr(normal((k, p), dtype, k + 1))[0] for k in (m, n))
    return (U * np.linspace(0.9, 0.25, p)) @ V.conj().T


def shifted(A: Array, exponent: int) -> Array:
    """Return A times two to the power of an exponent."""
    parts = (np.ldexp(part, exponent) for part in (A.real, A.imag))
    real, imaginary = parts
    return real + 1j * imaginary if A.dtype.kind == "c" else real


class Scaled:
    """A matrix of norm 1 at an extreme scale.

    The routines get `stored`; `exact` is the same matrix in double precision, without the scale.
    """

    def __init__(self, A: Array, dtype: str, exponent: int) -> None:
        parts = [np.ldexp(part, exponent) for part in (A.real, A.imag)]
        stored = parts if np.finfo(dtype).bits == 64 else [part.astype(np.float32) for part in parts]
        self.stored = (stored[0] + 1j * stored[1] if dtype[0] == "c" else stored[0]).astype(dtype)
        self.exponent = exponent
        self.exact = self.unscaled(self.stored)
        self.quantum = float(np.ldexp(float(np.finfo(dtype).smallest_subnormal), -exponent))
        self.eps = float(np.finfo(dtype).eps)

    def unscaled(self, X: Array, exponent: int | None = None) -> Array:
        wide = X.astype(np.complex128 if X.dtype.kind == "c" else np.float64)
        return shifted(wide, -(self.exponent if exponent is None else exponent))

    def residual(self, error: Any, quantum: float | None = None) -> float:
        """Return an error that should be of the order eps, in units of N eps, not counting a few quanta."""
        size = float(np.linalg.norm(np.atleast_1d(error)))
        allowed = 4 * N * (self.quantum if quantum is None else quantum)
        return max(0.0, size - allowed) / (N * self.eps) if np.isfinite(size) else WRONG


def whole(A: DistMatrix) -> Array:
    return A.to_global()


def systems(dtype: str, exponent: int) -> Iterator[tuple[str, float]]:
    general, b = (
        Scaled(with_values(N, N, dtype), dtype, exponent),
        Scaled(normal((N, NRHS), dtype, 9) / 9, dtype, exponent),
    )
    X = general.exact + general.exact.conj().T
    hermitian = Scaled(X + np.eye(N) / 2, dtype, exponent - 2)
    symmetric = Scaled((general.exact + general.exact.T + np.eye(N)) / 4, dtype, exponent)
    positive = Scaled(X @ X / 8 + np.eye(N) / 4, dtype, exponent)
    triangle = Scaled(np.tril(general.exact, -1) / 4 + np.eye(N) / 2, dtype, exponent)
    right = spread(b.stored, "VC_STAR")
    for label, A, options in (
        ("gen", general, {}),
        ("gen transposed", general, {"transposed": True}),
        ("her", hermitian, {"assume_a": "her"}),
        ("sym", symmetric, {"assume_a": "sym"}),
        ("pos", positive, {"assume_a": "pos"}),
        ("pos lower", positive, {"assume_a": "pos", "lower": True}),
        ("lower", triangle, {"assume_a": "lower triangular"}),
        ("lower transposed", triangle, {"assume_a": "lower triangular", "transposed": True}),
    ):
        x = whole(linalg.solve(ctx, spread(A.stored, block=BLOCK), right, **options)).astype(complex)
        x = x * 2.0 ** (A.exponent - b.exponent)
        op = A.exact.T if "transposed" in label else A.exact
        size = 1 + float(np.linalg.norm(x))
        yield f"solve {label}", A.residual((op @ x - b.exact) / size, 0.0)
    lu, piv = linalg.lu_factor(ctx, spread(general.stored, block=BLOCK))
    for trans, op in enumerate((general.exact, general.exact.T, general.exact.conj().T)):
        x = whole(linalg.lu_solve(ctx, lu, piv, right, trans))
        yield f"lu_solve {trans}", general.residual((op @ x - b.exact) / (1 + np.linalg.norm(x)))
    for lower in (False, True):
        c = linalg.cholesky(ctx, spread(positive.stored, block=BLOCK), lower)
        x = whole(linalg.cho_solve(ctx, c, right, lower))
        yield f"cho_solve {lower}", positive.residual((positive.exact @ x - b.exact) / (1 + np.linalg.norm(x)))
        factor = whole(c).astype(complex) * 2.0 ** (-(exponent // 2))
        product = factor @ factor.conj().T if lower else factor.conj().T @ factor
        yield f"cholesky {lower}", positive.residual(product / 2 ** (exponent % 2) - positive.exact, 0.0)


def factors(dtype: str, exponent: int) -> Iterator[tuple[str, float]]:
    square = Scaled(with_values(N, N, dtype), dtype, exponent - 1)
    tall, wide = (Scaled(with_values(*shape, dtype), dtype, exponent - 1) for shape in ((43, N), (N, 43)))
    A = spread(square.stored, block=BLOCK)
    p, L, U = linalg.lu(ctx, A, p_indices=True)
    yield "lu", square.residual(whole(L)[p] @ square.unscaled(whole(U)) - square.exact)
    PL, U = linalg.lu(ctx, A, permute_l=True)
    yield "lu, permuted", square.residual(whole(PL) @ square.unscaled(whole(U)) - square.exact)
    sign, logarithm = linalg.slogdet(ctx, A)
    true_sign, true = np.linalg.slogdet(square.exact)
    yield "slogdet", square.residual([logarithm - true - N * square.exponent * np.log(2), sign - true_sign], 0.0)
    yield "condest", abs(np.log(linalg.condest(ctx, A) / np.linalg.cond(square.exact, 1))) / np.log(3)
    for label, B in (("square", square), ("tall", tall), ("wide", wide)):
        given = spread(B.stored)
        for pivoting in (False, True):
            Q, R, *order = linalg.qr(ctx, given, pivoting=pivoting)
            permuted = B.exact[:, order[0]] if pivoting else B.exact
            Q = whole(Q)
            yield f"qr {label} {pivoting}", B.residual(Q @ B.unscaled(whole(R)) - permuted)
            yield f"qr {label} {pivoting}, Q", B.residual(Q.conj().T.astype(complex) @ Q - np.eye(Q.shape[1]), 0.0)


def spectra(dtype: str, exponent: int) -> Iterator[tuple[str, float]]:
    square = Scaled(with_values(N, N, dtype), dtype, exponent)
    X = square.exact + square.exact.conj().T
    hermitian = Scaled(X / 2, dtype, exponent)
    w, V = linalg.eigh(ctx, spread(hermitian.stored, block=BLOCK))
    V = whole(V)
    yield "eigh", hermitian.residual(hermitian.exact @ V - V * hermitian.unscaled(w))
    values = linalg.eigvalsh(ctx, spread(hermitian.stored))
    yield "eigvalsh", hermitian.residual(hermitian.unscaled(values) - np.linalg.eigvalsh(hermitian.exact))
    w, V = linalg.eig(ctx, spread(square.stored))
    V = whole(V)
    yield "eig", square.residual(square.exact @ V - V * square.unscaled(w))
    values = square.unscaled(linalg.eigvals(ctx, spread(square.stored)))
    nearest = np.abs(np.subtract.outer(np.linalg.eigvals(square.exact), values)).min(axis=1)
    yield "eigvals", square.residual(nearest)
    for shape in ((40, 37), (90, N), (N, 90)):
        A = Scaled(with_values(*shape, dtype), dtype, exponent)
        given, exact = spread(A.stored), np.linalg.svd(A.exact, compute_uv=False)
        U, s, Vt = linalg.svd(ctx, given)
        yield f"svd {shape}", A.residual((whole(U) * A.unscaled(s)) @ whole(Vt) - A.exact)
        yield f"svdvals {shape}", A.residual(A.unscaled(linalg.svd(ctx, given, compute_uv=False)) - exact)
        U, s, Vt = linalg.truncated_svd(ctx, given, 3)
        yield f"truncated_svd {shape}", A.residual(A.unscaled(s) - exact[:3])
        for side in ("right", "left"):
            U, P = linalg.polar(ctx, given, side)
            U, P = whole(U), A.unscaled(whole(P))
            yield f"polar {shape} {side}", A.residual((U @ P if side == "right" else P @ U) - A.exact)


def inverses(dtype: str, exponent: int) -> Iterator[tuple[str, float]]:
    """Inverses, except of subnormal matrices, whose inverses overflow."""
    square = Scaled(with_values(N, N, dtype), dtype, exponent)
    tall = Scaled(with_values(43, N, dtype), dtype, exponent)
    for label, A, function, exact in (
        ("inv", square, linalg.inv, np.linalg.inv(square.exact)),
        ("pinv", square, linalg.pinv, np.linalg.inv(square.exact)),
        ("pinv tall", tall, linalg.pinv, np.linalg.pinv(tall.exact)),
    ):
        found = A.unscaled(whole(function(ctx, spread(A.stored, block=BLOCK))), -exponent)
        quantum = float(np.ldexp(float(np.finfo(dtype).smallest_subnormal), exponent))
        yield label, A.residual((found - exact) / np.linalg.norm(exact), quantum)


def least_squares(dtype: str, exponent: int) -> Iterator[tuple[str, float]]:
    for shape in ((43, N), (N, 43), (90, N)):
        A = Scaled(with_values(*shape, dtype), dtype, exponent)
        b = Scaled(normal((shape[0], NRHS), dtype, 9) / 9, dtype, exponent)
        exact = np.linalg.lstsq(A.exact, b.exact, rcond=None)[0]
        for driver in ("gelsd", "gelsy"):
            x, _, rank, s = linalg.lstsq(ctx, spread(A.stored), spread(b.stored), None, driver)
            yield f"lstsq {shape} {driver}", A.residual((whole(x) - exact) / np.linalg.norm(exact), 0.0) / 10
            yield f"lstsq {shape} {driver}, rank", float(rank != min(shape)) * WRONG
            if s is not None:
                yield f"lstsq {shape}, s", A.residual(A.unscaled(s) - np.linalg.svd(A.exact, compute_uv=False))


def _at_each_scale(
    check: Callable[[str, int], Iterator[tuple[str, float]]], but: str = ""
) -> Iterator[tuple[str, Any]]:
    every = [(dtype, name) for dtype, name in itertools.product(TYPES, scales("float32")) if name != but]
    for dtype, name in dealt(every, (1, 2, 3)):
        yield f"{dtype} {name}", dict(check(dtype, scales(dtype)[name]))


@case
def systems_at_extreme_scales() -> Iterator[tuple[str, Any]]:
    yield from _at_each_scale(systems)


@case
def factors_at_extreme_scales() -> Iterator[tuple[str, Any]]:
    yield from _at_each_scale(factors)


@case
def spectra_at_extreme_scales() -> Iterator[tuple[str, Any]]:
    yield from _at_each_scale(spectra)


@case
def inverses_at_extreme_scales() -> Iterator[tuple[str, Any]]:
    yield from _at_each_scale(inverses, but="subnormal")


@case
def least_squares_at_extreme_scales() -> Iterator[tuple[str, Any]]:
    yield from _at_each_scale(least_squares)


@case
def graded() -> Iterator[tuple[str, Any]]:
    """Yield results of matrices that have both ordinary elements and pivots whose reciprocals overflow."""
    for dtype in TYPES:
        tiny = float(np.finfo(dtype).smallest_subnormal) * 64
        D = np.diag(np.tile([1.0, tiny, 1.0, tiny], 5)).astype(dtype)
        x = np.arange(1.0, 21)[:, np.newaxis].astype(dtype)
        b = D @ x
        for assume_a in ("gen", "lower triangular", "pos"):
            for transposed in (False, True):
                options = {"assume_a": assume_a, "transposed": transposed}
                found = whole(linalg.solve(ctx, spread(D, block=BLOCK), spread(b), **options))
                yield f"{dtype} {options}", float(np.abs(found - x).max()) if np.isfinite(found).all() else WRONG
        huge = float(np.ldexp(1.0, int(np.finfo(dtype).maxexp) - 6))
        D = np.diag(np.tile([huge, 1.0 / huge], 10)).astype(dtype)
        found = whole(linalg.solve(ctx, spread(D, block=BLOCK), spread(D @ x)))
        yield f"{dtype} huge and tiny", float(np.abs(found - x).max())


@case
def exponential() -> Iterator[tuple[str, Any]]:
    for dtype in TYPES:
        A = Scaled(with_values(N, N, dtype), dtype, scales(dtype)["subnormal"]).stored
        yield f"{dtype} subnormal", float(np.abs(whole(linalg.expm(ctx, spread(A))) - np.eye(N) - A).max())
        nilpotent = np.triu(np.full((6, 6), np.finfo(dtype).max / 64, dtype), 5)
        found = whole(linalg.expm(ctx, spread(nilpotent))) - np.eye(6) - nilpotent
        yield f"{dtype} nilpotent", float(np.abs(found).max() / np.abs(nilpotent).max() / np.finfo(dtype).eps)


# --- without rows or columns ------------------------------------------------------------------------------------------

EMPTY = np.zeros((0, 0)), np.zeros((5, 0)), np.zeros((0, 5))


def _shapes(result: Any) -> Any:
    if isinstance(result, tuple):
        return [_shapes(member) for member in result]
    if isinstance(result, DistMatrix):
        whole(result)  # must not fail
        return list(result.shape)
    return list(result.shape) if isinstance(result, np.ndarray) else result


@case
def empty() -> Iterator[tuple[str, Any]]:
    """Yield, as JSON, the shapes of results and those expected; the test compares them."""
    for label, (function, expected) in (_of_known_shapes() | _of_scipys_shapes()).items():
        yield label, [_shapes(function()), expected]


def _of_known_shapes() -> dict[str, tuple[Callable[[], Any], Any]]:
    """Return calls whose results are empty or come from empty matrices, with their shapes."""
    H = np.diag(np.arange(1.0, 7.0))
    tall, wide = EMPTY[1:]
    return {
        "eigh, none in the interval": (lambda: linalg.eigh(ctx, spread(H), subset_by_value=[8.0, 9.0]), [[0], [6, 0]]),
        "eigvalsh, none in the interval": (
            lambda: linalg.eigvalsh(ctx, spread(H), subset_by_value=[8.0, 9.0]),
            [0],
        ),
        "pinv of rank 0": (lambda: linalg.pinv(ctx, spread(np.zeros((4, 3))), return_rank=True), [[3, 4], 0]),
        "lstsq of rank 0": (
            lambda: linalg.lstsq(ctx, spread(np.zeros((4, 3))), spread(np.ones((4, 2)))),
            [[3, 2], [0], 0, [3]],
        ),
        "lstsq without right-hand sides": (
            lambda: linalg.lstsq(ctx, spread(H), spread(np.zeros((6, 0)))),
            [[6, 0], [0], 6, [6]],
        ),
        "lstsq without columns": (
            lambda: linalg.lstsq(ctx, spread(tall), spread(np.ones((5, 2)))),
            [[0, 2], [2], 0, [0]],
        ),
        "lstsq without rows": (lambda: linalg.lstsq(ctx, spread(wide), spread(np.ones((0, 2)))), [[5, 2], [0], 0, [0]]),
        "solve without right-hand sides": (lambda: linalg.solve(ctx, spread(H), spread(np.zeros((6, 0)))), [6, 0]),
        "gemm without inner": (lambda: linalg.gemm(ctx, spread(tall), spread(wide)), [5, 5]),
        "gemm without outer": (lambda: linalg.gemm(ctx, spread(wide), spread(tall)), [0, 0]),
        "sum of no rows": (lambda: linalg.sum(ctx, spread(wide), 0), [1, 5]),
        "sum of no columns": (lambda: linalg.sum(ctx, spread(tall), 1), [5, 1]),
        "sum": (lambda: linalg.sum(ctx, spread(tall)), 0.0),
        "norm": (lambda: linalg.norm(ctx, spread(tall)), 0.0),
        "transpose": (lambda: linalg.transpose(ctx, spread(tall)), [0, 5]),
        "astype": (lambda: linalg.astype(ctx, spread(tall), "int32"), [5, 0]),
        "elementwise": (lambda: linalg.elementwise(ctx, "add", spread(tall), 1.0), [5, 0]),
        "relayout": (lambda: linalg.relayout(ctx, spread(tall), {"pair": "VC_STAR"}), [5, 0]),
    }


def _of_scipys_shapes() -> dict[str, tuple[Callable[[], Any], Any]]:
    """Return calls with empty matrices, with the shapes of SciPy's or NumPy's results."""
    tests: dict[str, tuple[Callable[[], Any], Any]] = {}
    square, tall, _ = EMPTY
    same = {
        "eigh": scipy.linalg.eigh,
        "eigvalsh": scipy.linalg.eigvalsh,
        "eig": np.linalg.eig,
        "eigvals": np.linalg.eigvals,
        "expm": scipy.linalg.expm,
        "inv": scipy.linalg.inv,
        "cholesky": scipy.linalg.cholesky,
        "slogdet": np.linalg.slogdet,
        "det": np.linalg.det,
    }
    shaped = {
        "svd": lambda A: scipy.linalg.svd(A, full_matrices=False),
        "pinv": scipy.linalg.pinv,
        "polar": scipy.linalg.polar,
        "lu": scipy.linalg.lu,
        "lu_factor": lambda A: (A, np.zeros(min(A.shape))),
        "qr": lambda A: scipy.linalg.qr(A, mode="economic"),
    }
    for name, reference in same.items():
        tests[f"{name} 0x0"] = (lambda name=name: getattr(linalg, name)(ctx, spread(square)), _plain(reference(square)))
    for (name, reference), A in itertools.product(shaped.items(), EMPTY):
        label = f"{name} {A.shape[0]}x{A.shape[1]}"
        tests[label] = (lambda name=name, A=A: getattr(linalg, name)(ctx, spread(A)), _plain(reference(A)))
    full = scipy.linalg.svd(tall)
    tests["svd 5x0, full"] = (lambda: linalg.svd(ctx, spread(tall), full_matrices=True), _plain(full))
    return tests


def _plain(result: Any) -> Any:
    if isinstance(result, tuple):
        return [_plain(member) for member in result]
    if isinstance(result, np.ndarray) and result.ndim:
        return list(result.shape)
    return float(result)


if __name__ == "__main__":
    main(sys.argv[1:])
