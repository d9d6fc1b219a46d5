"""Run the cases of dense factorisations that the command line names on all ranks; print one line of JSON for each.

Every case yields scaled residuals, which the test compares with its limit, or the errors of the ranks.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
from cases import Array, case, ctx, dealt, main, raised, spread

from alchemist_ray.mpi_backend.ali import DistMatrix
from alchemist_ray.mpi_backend.libraries import linalg
from alchemist_ray.mpi_backend.libraries.linalg import local_blas, one_rank

TYPES = ("float64", "float32", "complex128", "complex64")
LAYOUTS = (("MC_MR", None), ("MC_MR", 3), ("VC_STAR", 1), ("STAR_VR", None), ("MR_MC", 5), ("STAR_STAR", None))
FAULT = 1e9
"""A residual above every limit."""


def whole(A: DistMatrix) -> Array:
    return A.to_global()


def eps(A: Array) -> float:
    return float(np.finfo(A.dtype).eps)


def random(m: int, n: int, dtype: str, seed: int = 7) -> Array:
    rng = np.random.default_rng([seed, m, n])
    A = rng.standard_normal((m, n))
    return (A + 1j * rng.standard_normal((m, n)) if dtype.startswith("complex") else A).astype(dtype)


def with_spectrum(m: int, n: int, s: Array, dtype: str) -> Array:
    wide = "complex128" if dtype.startswith("complex") else "float64"
    U, V = np.linalg.qr(random(m, s.size, wide))[0], np.linalg.qr(random(n, s.size, wide, 8))[0]
    return ((U * s) @ V.conj().T).astype(dtype)


def families(n: int, dtype: str) -> Iterator[tuple[str, Array]]:
    """Yield square matrices of every kind that is difficult for factorisations."""
    i = np.arange(n)
    yield "random", random(n, n, dtype)
    yield "graded", (random(n, n, dtype) * 10.0 ** (-20.0 * i / n)).astype(dtype)
    yield "Hilbert", (1 / (1.0 + i[:, np.newaxis] + i)).astype(dtype)
    yield "deficient", random(n, n // 2, dtype) @ random(n // 2, n, dtype, 8)
    yield "clustered", with_spectrum(n, n, np.where(i < n // 2, 1.0, 1e-3), dtype)
    yield "zero", np.zeros((n, n), dtype)


def relative(difference: Array, *scale: Array) -> float:
    """Return the norm of a difference in units of eps, the larger side, and the norms of the terms."""
    size = float(np.prod([np.linalg.norm(A) for A in scale])) * eps(scale[0]) * max(difference.shape)
    return float(np.linalg.norm(difference) / size) if size else float(FAULT * np.abs(difference).max(initial=0))


def combined() -> list[tuple[str, tuple[str, int | None]]]:
    """Return each type with three layouts, and each layout with two types: the share for this number of ranks."""
    return dealt(zip(TYPES * 3, LAYOUTS * 2, strict=True))


def agree(*facts: bool) -> float:
    return 0.0 if all(facts) else FAULT


# --- LU, Cholesky, systems --------------------------------------------------------------------------------------------


def lu_residuals(A0: Array, p: Array, L: Array, U: Array) -> dict[str, float]:
    k = min(A0.shape)
    return {
        "A - PLU": relative(A0 - L[p] @ U, A0),
        "L": agree(L.shape == (A0.shape[0], k), (np.triu(L, 1) == 0).all(), (np.diag(L) == 1).all()),
        "pivoted": agree(bool(np.abs(L).max(initial=0) <= 1.5)),  # a complex pivot has the largest |re| + |im|
        "U": agree(U.shape == (k, A0.shape[1]), (np.tril(U, -1) == 0).all()),
        "p": agree(sorted(p.tolist()) == list(range(A0.shape[0]))),
    }


@case
def lu() -> Iterator[tuple[str, Any]]:
    shapes = ((40, 40), (90, 31), (31, 90), (1, 7), (7, 1), (2, 2))
    for dtype, ((m, n), (pair, block)) in dealt(itertools.product(TYPES, zip(shapes, LAYOUTS, strict=True))):
        A0 = random(m, n, dtype)
        A = spread(A0, pair, block)
        p, L, U = linalg.lu(ctx, A, p_indices=True)
        yield f"{m} {n} {dtype} {pair}", lu_residuals(A0, p, whole(L), whole(U))
        yield "input is kept", agree((whole(A) == A0).all())
        P, *_ = linalg.lu(ctx, A)
        PL, U1 = linalg.lu(ctx, A, permute_l=True)
        yield "forms", agree((whole(P) @ whole(L) == whole(PL)).all(), (whole(U1) == whole(U)).all())
        yield "as LAPACK pivots", agree((scipy.linalg.lu(A0, p_indices=True)[0] == p).all())
    for name, A0 in dealt([*families(70, "float64"), *families(70, "complex64")]):
        p, L, U = linalg.lu(ctx, spread(A0, block=16), p_indices=True)
        yield f"{name} {A0.dtype}", lu_residuals(A0, p, whole(L), whole(U))
    A0 = random(600, 500, "float64")
    p, L, U = linalg.lu(ctx, spread(A0), p_indices=True)
    yield "many panels", lu_residuals(A0, p, whole(L), whole(U))


@case
def lu_solve() -> Iterator[tuple[str, Any]]:
    for dtype, (pair, block) in combined():
        A0, b0 = random(45, 45, dtype), random(45, 4, dtype)
        factors, piv = linalg.lu_factor(ctx, spread(A0, pair, block))
        for trans, form in enumerate((A0, A0.T, A0.conj().T)):
            x = linalg.lu_solve(ctx, factors.relayout("VC_STAR") if trans else factors, piv, spread(b0, pair), trans)
            X = whole(x)
            yield f"{dtype} {pair} {trans}", {"A x - b": relative(form @ X - b0, A0, X)}
        yield "pivots", agree((scipy.linalg.lu_factor(A0)[1] == piv).all())


@case
def cholesky() -> Iterator[tuple[str, Any]]:
    orders = enumerate(zip((1, 2, 50, 80, 33, 100), LAYOUTS, strict=True))
    for (first, dtype), (number, (n, (pair, block))) in dealt(itertools.product(enumerate(TYPES), orders)):
        lower = (first + number) % 2 == 1
        A0 = random(n, n, dtype)
        A0 = (A0 @ A0.conj().T + np.eye(n)).astype(dtype)
        other = np.tril(np.full((n, n), 7.0), -1)  # must not be read
        stored = (np.tril(A0) + other.T if lower else np.triu(A0) + other).astype(dtype)
        c = linalg.cholesky(ctx, spread(stored, pair, block), lower)
        F = whole(c)
        b0 = random(n, 3, dtype)
        X = whole(linalg.cho_solve(ctx, c, spread(b0), lower))
        yield (
            f"{n} {dtype} {lower} {pair}",
            {
                "A": relative(A0 - (F @ F.conj().T if lower else F.conj().T @ F), A0),
                "triangle": agree(((np.triu(F, 1) if lower else np.tril(F, -1)) == 0).all()),
                "A x - b": relative(A0 @ X - b0, A0, X),
            },
        )
    i = np.arange(60)
    Q = np.linalg.qr(random(60, 60, "float64"))[0]
    hard = {
        "ill-conditioned": (Q * 10.0 ** (-i / 5)) @ Q.T,
        "clustered": (Q * np.where(i < 30, 1.0, 1e-8)) @ Q.T,
        "graded": ((Q * (1 + i)) @ Q.T) * np.multiply.outer(10.0 ** (-i / 4), 10.0 ** (-i / 4)),
        "tiny": (Q * 1e-100) @ Q.T,
        "Hilbert of order 10": 1 / (1.0 + i[:10, np.newaxis] + i[:10]),
    }
    for name, A0 in dealt(hard.items()):
        F = whole(linalg.cholesky(ctx, spread(A0, block=7)))
        yield name, relative(np.triu(A0 - F.T @ F), A0)
    A0 = random(700, 700, "float64")
    A0 = A0 @ A0.T + np.eye(700)
    F = whole(linalg.cholesky(ctx, spread(A0), True))
    yield "many panels", relative(A0 - F @ F.T, A0)


@case
def solve() -> Iterator[tuple[str, Any]]:
    for (dtype, (pair, block)), transposed in zip(combined(), itertools.cycle((False, True)), strict=False):
        n, nrhs = (37, 5) if block else (64, 1)
        A0, b0 = random(n, n, dtype), random(n, nrhs, dtype)
        systems = {
            "gen": A0,
            "sym": A0 + A0.T,
            "hermitian": A0 + A0.conj().T,
            "positive definite": (A0 @ A0.conj().T + np.eye(n)).astype(dtype),
            "lower triangular": np.tril(A0) / n + 2 * np.eye(n, dtype=dtype),
            "upper triangular": np.triu(A0) / n + 2 * np.eye(n, dtype=dtype),
        }
        for structure, S0 in systems.items():
            S0 = S0.astype(dtype)
            other = np.tril(np.full((n, n), 7.0, dtype), -1)  # must not be read
            lower = structure == "lower triangular" or (structure in ("sym", "hermitian") and bool(block))
            stored = S0 if structure == "gen" else np.tril(S0) + other.T if lower else np.triu(S0) + other
            if structure == "hermitian" and dtype.startswith("complex"):
                stored = stored + 7j * np.eye(n, dtype=dtype)  # nor is that
            A, b = spread(stored, pair, block), spread(b0, pair)
            x = linalg.solve(ctx, A, b, lower, transposed=transposed, assume_a=structure)
            X = whole(x)
            yield (
                f"{structure} {dtype} {pair} {transposed}",
                {
                    "A x - b": relative((S0.T if transposed else S0) @ X - b0, S0, X),
                    "inputs": agree((whole(A) == stored).all(), (whole(b) == b0).all()),
                    "layout": agree(x.layout == b.layout),
                },
            )
    mixed = linalg.solve(ctx, spread(random(9, 9, "float32")), spread(random(9, 2, "complex128")))
    yield "mixed types", agree(mixed.dtype == np.complex128)
    A0, b0 = random(30, 30, "float64"), random(30, 2, "float64")
    S0 = A0 @ A0.T + np.eye(30)
    X = whole(linalg.solve(ctx, spread(np.tril(S0)), spread(b0), True, assume_a="pos"))
    yield "lower triangle alone", relative(S0 @ X - b0, S0, X)


@case
def determinants() -> Iterator[tuple[str, Any]]:
    for dtype, (pair, block) in combined():
        for n in (1, 2, 40):
            A0 = random(n, n, dtype)
            exact = complex(np.linalg.det(A0.astype(complex)))
            got = linalg.det(ctx, spread(A0, pair, block))
            sign, logabsdet = linalg.slogdet(ctx, spread(A0, pair, block))
            unit = np.linalg.cond(A0.astype(complex)) * eps(A0) * n
            yield (
                f"{n} {dtype} {pair}",
                {
                    "det": abs(got - exact) / abs(exact) / unit,
                    "slogdet": abs(sign * np.exp(logabsdet) - exact) / abs(exact) / unit,
                    "type": agree(isinstance(got, complex) == dtype.startswith("complex")),
                },
            )
    large, small = spread(np.diag([1e200, -1e200, 1e-300, 1e-90])), spread(np.eye(200) * 1e-10)
    yield "no overflow on the way", abs(linalg.det(ctx, large) / -1e10 - 1) / 1e-15
    yield "slogdet beyond doubles", abs(linalg.slogdet(ctx, small)[1] / (-2000 * np.log(10)) - 1) / 1e-15
    huge = spread(np.eye(200) * -1e10)
    yield "det beyond doubles", agree(linalg.det(ctx, small) == 0, linalg.det(ctx, huge) == np.inf)
    for unit, exponent in ((np.ldexp(3.0, -1070), -1070), (np.ldexp(3.0, 1022), 1022)):
        D0 = np.diag([unit + 1j * unit, 2.0**-40])
        sign, logabsdet = linalg.slogdet(ctx, spread(D0))
        yield (
            f"complex, of exponent {exponent}",
            {
                "sign": abs(sign - (1 + 1j) / np.sqrt(2)) / eps(np.ones(1)),
                "logarithm": abs(logabsdet / (np.log(3 * np.sqrt(2)) + (exponent - 40) * np.log(2)) - 1) / 1e-15,
                "det": abs(linalg.det(ctx, spread(D0 * 2.0**20)) / 2.0 ** (exponent + 2) - (0.75 + 0.75j)) / 1e-15
                if exponent < 0
                else 0.0,
            },
        )
    singular = spread(np.ones((6, 6)))
    yield "singular", agree(linalg.det(ctx, singular) == 0, linalg.slogdet(ctx, singular) == (0, -np.inf))


@case
def inverse() -> Iterator[tuple[str, Any]]:
    for dtype, (pair, block) in combined():
        for n in (1, 2, 50):
            A0 = random(n, n, dtype)
            C = whole(linalg.inv(ctx, spread(A0, pair, block)))
            yield f"{n} {dtype} {pair}", relative(A0 @ C - np.eye(n), A0, C)
    for dtype in TYPES:
        A0 = with_spectrum(60, 60, np.logspace(0, -4, 60), dtype)
        C = whole(linalg.inv(ctx, spread(A0, block=8)))
        yield f"graded {dtype}", relative(A0 @ C - np.eye(60), A0, C)


@case
def condition() -> Iterator[tuple[str, Any]]:
    for dtype, (pair, block) in combined():
        for n in (1, 2, 3, 60):
            A0 = random(n, n, dtype)
            exact = np.linalg.cond(A0.astype(complex), 1)
            ratio = linalg.condest(ctx, spread(A0, pair, block)) / exact
            yield f"{n} {dtype} {pair}", agree(0.33 <= ratio <= 1 + 1e3 * eps(A0) * exact)
    for power in (3, 8, 12):
        A0 = with_spectrum(80, 80, np.logspace(0, -power, 80), "float64")
        ratio = linalg.condest(ctx, spread(A0)) / np.linalg.cond(A0, 1)
        yield f"1e{power}", agree(0.33 <= ratio <= 1.01)
    i = np.arange(8)
    hilbert = 1 / (1.0 + i[:, np.newaxis] + i)
    yield "Hilbert matrix of order 8, 3.387e10", agree(abs(linalg.condest(ctx, spread(hilbert)) / 3.387e10 - 1) < 1e-3)
    yield "singular", agree(linalg.condest(ctx, spread(np.ones((5, 5)))) == np.inf)
    for scale in (1e-310, 1e306):
        ratio = linalg.condest(ctx, spread(hilbert * scale)) / 3.387e10
        yield f"times {scale}", agree(abs(ratio - 1) < (1 if scale < 1 else 1e-3))
    yield "subnormal identity", agree(linalg.condest(ctx, spread(np.eye(3) * 1e-310)) == 1)
    beyond = np.array([[1, 1e300], [0, 1e-300]])
    yield "an inverse beyond doubles", agree(linalg.condest(ctx, spread(beyond)) == np.inf)


# --- QR and least squares ---------------------------------------------------------------------------------------------


def qr_residuals(A0: Array, Q: Array, R: Array) -> dict[str, float]:
    k = min(A0.shape)
    return {
        "A - QR": relative(A0 - Q @ R, A0),
        "orthogonality": float(np.linalg.norm(Q.conj().T @ Q - np.eye(k)) / (eps(A0) * max(A0.shape))),
        "triangle": agree((np.tril(R, -1) == 0).all(), Q.shape == (A0.shape[0], k), R.shape == (k, A0.shape[1])),
    }


@case
def qr() -> Iterator[tuple[str, Any]]:
    shapes = ((40, 40), (200, 7), (7, 90), (150, 100), (1, 1), (3, 5))
    for dtype, ((m, n), (pair, block)), pivoting in dealt(
        itertools.product(TYPES, zip(shapes, LAYOUTS, strict=True), (False, True))
    ):
        A0 = random(m, n, dtype)
        A = spread(A0, pair, block)
        Q, R, *p = linalg.qr(ctx, A, pivoting=pivoting)
        order = p[0] if pivoting else np.arange(n)
        yield f"{m} {n} {dtype} {pair} {pivoting}", qr_residuals(A0[:, order], whole(Q), whole(R))
        alone = linalg.qr(ctx, A, mode="r", pivoting=pivoting)
        again = whole(alone[0])
        yield "R alone", agree((again == whole(R)).all(), (whole(A) == A0).all(), sorted(order) == list(range(n)))
    hard = [*families(130, "float64"), *families(130, "complex128")]
    for (name, A0), pivoting in dealt(itertools.product(hard, (False, True))):
        Q, R, *p = linalg.qr(ctx, spread(A0, block=16), pivoting=pivoting)
        order = p[0] if pivoting else np.arange(130)
        yield f"{name} {A0.dtype} {pivoting}", qr_residuals(A0[:, order], whole(Q), whole(R))


@case
def rank_revealing_qr() -> Iterator[tuple[str, Any]]:
    """The diagonal of R against LAPACK's: not much smaller up to the rank, and not much larger after it."""
    n, i = 150, np.arange(150)
    c, s = np.cos(1.2), np.sin(1.2)
    kahan = (s**i)[:, np.newaxis] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1)) * (1 - 1e-13 * i)
    scales = np.random.default_rng(1).permutation(np.logspace(0, -30, n))
    matrices = {
        "Kahan": kahan,
        "geometric": with_spectrum(n, n, np.logspace(0, -13, n), "float64"),
        "step": with_spectrum(n, n, np.where(i < 77, 1.0, 1e-9), "float64"),
        "deficient": with_spectrum(n, n, np.where(i < 70, 1.0, 0.0), "float64"),
        "columns of all scales": random(n, n, "float64") * scales,
        "many equal columns": random(n, n // 10, "float64")[:, i % (n // 10)],
    }
    for name, A0 in matrices.items():
        R, _ = linalg.qr(ctx, spread(A0), mode="r", pivoting=True)
        mine, theirs = np.abs(np.diag(whole(R))), np.abs(np.diag(scipy.linalg.qr(A0, mode="r", pivoting=True)[0]))
        floor = n * eps(A0) * theirs[0]
        ratio = (mine + floor) / (theirs + floor)
        yield (
            name,
            {"ratio to LAPACK": agree(ratio.min() > 1 / 6, ratio.max() < 6), "rises": mine[1:].max() / mine[0] * 15},
        )
        falls = mine[1:] <= 3 * mine[:-1] + floor
        yield f"{name} falls", agree(falls.all())


@case
def lstsq() -> Iterator[tuple[str, Any]]:
    shapes = ((60, 20), (20, 60), (50, 45), (45, 50), (9, 1), (1, 9))
    for dtype, driver, ((m, n), (pair, block)) in dealt(
        itertools.product(TYPES, ("gelsd", "gelsy"), zip(shapes, LAYOUTS, strict=True))
    ):
        for rank in {min(m, n), max(1, min(m, n) // 2)}:
            A0 = with_spectrum(m, n, np.linspace(2, 1, rank), dtype)
            b0 = random(m, 3, dtype)
            cond = 1e-4
            exact, _, _, s0 = scipy.linalg.lstsq(A0, b0, cond)
            residues = scipy.linalg.lstsq(A0, b0, cond, lapack_driver=driver)[1]
            x, found, r, s = linalg.lstsq(ctx, spread(A0, pair, block), spread(b0), cond, driver)
            yield (
                f"{m} {n} {rank} {dtype} {driver} {pair}",
                {
                    "x": relative(whole(x) - exact, exact),
                    "rank": agree(r == rank),
                    "residues": agree(found.shape == residues.shape, np.allclose(found, residues, rtol=1e-3)),
                    "s": agree(s is None) if driver == "gelsy" else np.abs(s - s0).max() / eps(A0) / max(m, n),
                    "s is real": agree(s is None or s.dtype == s0.dtype),
                },
            )
    zero, b = spread(np.zeros((8, 5))), spread(np.ones((8, 2)))
    for driver in ("gelsd", "gelsy"):
        x, residues, rank, _ = linalg.lstsq(ctx, zero, b, lapack_driver=driver)
        yield f"zero {driver}", agree(rank == 0, (whole(x) == 0).all(), residues.size == 0)
    A0, b0 = random(40, 9, "float64"), random(40, 2, "float64")
    scales = itertools.cycle(((1e-300, 1e-100), (1e300, 1e100), (1e300, 1e100), (1e-300, 1e-100)))
    for (m, n), driver in itertools.product(((40, 9), (9, 9), (9, 40)), ("gelsd", "gelsy")):
        scale, other = next(scales)
        T0, c0 = (A0 if m > n else A0.T[:, :n].copy() if m < n else A0[:9].copy()), b0[:m]
        exact, residues, _, s0 = scipy.linalg.lstsq(T0, c0)
        x, found, rank, s = linalg.lstsq(ctx, spread(T0 * scale), spread(c0 * other), lapack_driver=driver)
        yield (
            f"{m} {n} times {scale} {driver}",
            {
                "x": relative(whole(x) * (scale / other) - exact, exact, T0, np.linalg.pinv(T0)),
                "rank": agree(rank == 9),
                "residues": agree(not found.size or np.allclose(found / other / other, residues, rtol=1e-10)),
                "s": agree(s is None or np.allclose(s / scale, s0, rtol=1e-10)),
            },
        )
    for driver in ("gelsd", "gelsy"):
        tiny = spread(np.eye(9) * 1e-310)
        x, *_ = linalg.lstsq(ctx, tiny, tiny, lapack_driver=driver)
        yield f"subnormal {driver}", relative(whole(x) - np.eye(9), np.eye(9))
    A0, b0 = random(400, 30, "float64"), random(400, 1, "float64")
    x, residues, *_ = linalg.lstsq(ctx, spread(A0.astype("float32"), "VC_STAR"), spread(b0))
    yield "mixed types", agree(x.dtype == np.float64, np.allclose(residues, np.sum((A0 @ whole(x) - b0) ** 2, 0), 1e-3))


@case
def lstsq_by_svd() -> Iterator[tuple[str, Any]]:
    """The method for ranks on several hosts."""
    kept, one_rank.preferred = one_rank.preferred, lambda *given: False
    try:
        for dtype, rank in itertools.product(TYPES, (50, 31)):
            A0, b0 = with_spectrum(60, 50, np.linspace(2, 1, rank), dtype), random(60, 2, dtype)
            exact = scipy.linalg.lstsq(A0, b0, 1e-4)[0]
            x, _, found, _ = linalg.lstsq(ctx, spread(A0), spread(b0), 1e-4)
            yield f"{dtype} {rank}", {"x": relative(whole(x) - exact, exact), "rank": agree(found == rank)}
    finally:
        one_rank.preferred = kept


# --- BLAS in place, and errors ----------------------------------------------------------------------------------------


@case
def blas_in_place() -> Iterator[tuple[str, Any]]:
    def part(m: int, n: int, order: Any, dtype: str) -> Array:
        return np.array(random(m + 3, n + 4, dtype), order=order)[2 : 2 + m, 1 : 1 + n]

    for dtype, orders in itertools.product(TYPES, itertools.product("CF", repeat=3)):
        worst = 0.0
        for m, n, k in itertools.product((0, 1, 2, 7), repeat=3):
            A, B, C = part(m, k, orders[0], dtype), part(k, n, orders[1], dtype), part(m, n, orders[2], dtype)
            exact = C - A @ B
            local_blas.subtract_product(C, A, B)
            worst = max(worst, relative(C - exact, np.ones(1, C.dtype)) if C.size else 0.0)
            for lower, unit in itertools.product((False, True), repeat=2):
                T, X = part(m, m, orders[0], dtype), part(m, n, orders[2], dtype)
                T += 4 * np.eye(m, dtype=dtype)
                B0, triangle = X.copy(), np.tril(T) if lower else np.triu(T)
                if unit:
                    np.fill_diagonal(triangle, 1)
                local_blas.solve_triangle(T, X, lower=lower, unit=unit)
                worst = max(worst, relative(triangle @ X - B0, triangle, X) if X.size else 0.0)
        yield f"{dtype} {orders}", worst


@case
def errors() -> Iterator[tuple[str, Any]]:
    A, square = random(20, 12, "float64"), random(20, 20, "float64")
    bad, infinite, singular = A.copy(), square.copy(), np.tril(square)
    bad[-1, -1], infinite[0, 0], singular[4, 4] = np.nan, np.inf, 0
    indefinite = np.diag(np.r_[np.ones(13), -1.0, np.ones(6)])
    factors, piv = linalg.lu_factor(ctx, spread(square))
    for name in ("lu", "lu_factor", "qr", "cholesky", "inv", "det", "slogdet", "condest"):
        yield f"{name} NaN", raised(getattr(linalg, name), spread(infinite, block=3))
        yield f"{name} integers", raised(getattr(linalg, name), spread(np.ones((4, 4), int)))
    for name in ("cholesky", "inv", "det", "slogdet", "condest"):
        yield f"{name} not square", raised(getattr(linalg, name), spread(A))
    for name in ("lu", "lu_factor", "qr", "inv", "cholesky", "det", "slogdet", "condest"):
        yield f"{name} empty", raised(getattr(linalg, name), spread(np.ones((0, 0))))
    for lower in (False, True):
        yield f"indefinite {lower}", raised(linalg.cholesky, spread(indefinite, block=3), lower)
    yield "solve indefinite", raised(linalg.solve, spread(indefinite), spread(square), assume_a="pos")
    yield "solve singular triangle", raised(linalg.solve, spread(singular), spread(A), assume_a="lower triangular")
    yield "solve structure", raised(linalg.solve, spread(square), spread(A), assume_a="banded")
    yield "solve no columns", raised(linalg.solve, spread(square), spread(np.ones((20, 0))))
    yield "inv singular", raised(linalg.inv, spread(np.ones((5, 5))))
    yield "lu_solve pivots", raised(linalg.lu_solve, factors, piv + 1, spread(A))
    yield "lu_solve trans", raised(linalg.lu_solve, factors, piv, spread(A), 3)
    yield "lu_solve rows", raised(linalg.lu_solve, factors, piv, spread(A[:5].copy()))
    yield "cho_solve singular", raised(linalg.cho_solve, spread(singular), spread(A), True)
    yield "cho_solve lower factor", raised(linalg.cho_solve, spread(np.tril(square), block=3), spread(A))
    yield "cho_solve upper factor", raised(linalg.cho_solve, spread(np.triu(square), block=3), spread(A), True)
    yield "cho_solve diagonal", raised(linalg.cho_solve, spread(np.eye(20)), spread(A), True)
    yield "qr mode", raised(linalg.qr, spread(A), "full")
    yield "lstsq rows", raised(linalg.lstsq, spread(A), spread(A[:5].copy()))
    yield "lstsq NaN", raised(linalg.lstsq, spread(square), spread(bad))
    yield "lstsq cond", raised(linalg.lstsq, spread(A), spread(A), -1.0)
    yield "lstsq driver", raised(linalg.lstsq, spread(A), spread(A), None, "gelss")
    yield "lstsq empty", raised(linalg.lstsq, spread(np.ones((3, 0))), spread(A[:3].copy()))
    yield "afterwards", raised(linalg.solve, spread(square), spread(A))


if __name__ == "__main__":
    main(sys.argv[1:])
