"""Run the cases of linear algebra that the command line names on all ranks; print one line of JSON for each.

Every case yields scaled residuals, which the test compares with its limit, or the names of the ranks' errors.
"""

import itertools
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from cases import Array, case, comm, ctx, dealt, main, raised, spread

from alchemist_ray.layouts.layout import PAIRS, Grid, Layout
from alchemist_ray.mpi_backend import scalapack
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import linalg, testlib
from alchemist_ray.mpi_backend.libraries.linalg import slabs
from alchemist_ray.mpi_backend.libraries.linalg.spectral import gram, lanczos, singular

Residuals = dict[str, float]


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def everywhere(blocks: list[tuple[str, int]]) -> Iterator[tuple[str, str, int | None]]:
    """Yield float64 with all pairs and with the pairs in `blocks`, and float32 only with those in `blocks`."""
    for pair, block in [*((pair, None) for pair in PAIRS), *blocks]:
        yield "float64", pair, block
    for pair, block in blocks:
        yield "float32", pair, block


def whole(A: DistMatrix) -> Array:
    return A.to_global()


def eps(A: Array) -> float:
    return float(np.finfo(A.dtype).eps)


def orthogonality(Q: Array) -> float:
    exact = Q.astype(float)
    return float(np.abs(exact.T @ exact - np.eye(Q.shape[1])).max() / (eps(Q) * max(Q.shape)))


def with_spectrum(m: int, n: int, s: Array, dtype: str = "float64") -> Array:
    U = np.linalg.qr(rng().standard_normal((m, s.size)))[0]
    V = np.linalg.qr(rng().standard_normal((n, s.size)))[0]
    return ((U * s) @ V.T).astype(dtype)


# --- products ---------------------------------------------------------------------------------------------------------


def product_residual(A: Array, B: Array, C: DistMatrix, alpha: float = 1.0) -> float:
    exact = alpha * (A.astype(float) @ B.astype(float))
    scale = abs(alpha) * np.linalg.norm(A) * np.linalg.norm(B) * eps(C.local)
    return float(np.linalg.norm(whole(C) - exact) / max(scale, 1e-300))


@case
def gemm() -> Iterator[tuple[str, Any]]:
    A0, B0 = rng().standard_normal((33, 47)), rng().standard_normal((47, 29))
    places = everywhere([("MC_MR", 1), ("VC_STAR", 1), ("STAR_VR", 5), ("MC_MR", 64)])
    for (dtype, pair, block), ta, tb in dealt(itertools.product(places, (False, True), (False, True))):
        A1, B1 = A0.astype(dtype), B0.astype(dtype)
        A = spread(A1.T.copy() if ta else A1, pair, block)
        B = spread(B1.T.copy() if tb else B1, "MC_MR", 1 if ta else None)
        C = linalg.gemm(ctx, A, B, ta, tb, alpha=-2.5)
        yield f"{pair} {block} {ta} {tb} {dtype}", product_residual(A1, B1, C, -2.5)


@case
def gemm_shapes() -> Iterator[tuple[str, Any]]:
    shapes = ((2500, 9, 7), (9, 2500, 7), (7, 9, 2500), (300, 2300, 200), (1, 1, 1), (1, 50, 1), (3, 1, 2))
    for (m, k, n), pair, ta in dealt(itertools.product(shapes, ("MC_MR", "VC_STAR"), (False, True))):
        A, B = rng().standard_normal((m, k)), rng().standard_normal((k, n))
        left = spread(A.T.copy() if ta else A, "STAR_VC" if ta and pair == "VC_STAR" else pair)
        yield f"{m} {k} {n} {pair} {ta}", product_residual(A, B, linalg.gemm(ctx, left, spread(B, pair), ta))
    for m, k, n in dealt(shapes):
        A, B = rng().standard_normal((m, k)), rng().standard_normal((k, n))
        inner = linalg.gemm(ctx, spread(A, "VC_STAR"), spread(A @ B, "VC_STAR"), True)
        yield f"inner {m} {k} {n}", product_residual(A.T, A @ B, inner)
    A, B = rng().standard_normal((150, 170)), rng().standard_normal((170, 160))
    for grid in (Grid(comm.size, 1), Grid(1, comm.size)):
        for align in range(comm.size):
            at = (align % grid.nprow, align % grid.npcol)
            left = spread(A, block=64, grid=grid, align=at)
            right = spread(B, block=64, grid=grid, align=at[::-1] if comm.size == 1 else (0, at[1]))
            yield f"aligned {grid} {at}", product_residual(A, B, linalg.gemm(ctx, left, right))
    mixed = linalg.gemm(ctx, spread(A.astype("float32")), spread(B))
    yield "mixed dtypes promote", 0.0 if mixed.dtype == np.float64 else 1e9
    nan = A.copy()
    nan[3, 5] = np.nan
    C = whole(linalg.gemm(ctx, spread(nan), spread(B)))
    yield "NaN stays in its row", 0.0 if np.isnan(C[3]).all() and np.isnan(C).sum() == C.shape[1] else 1e9


# --- QR and linear systems --------------------------------------------------------------------------------------------


@case
def qr() -> Iterator[tuple[str, Any]]:
    shapes = ((60, 60), (400, 7), (37, 80), (200, 90), (5, 3), (3, 5), (1, 1), (2, 1), (1, 4))
    layouts = (("MC_MR", None), ("VC_STAR", None), ("MC_MR", 1), ("STAR_STAR", None), ("MR_MC", 3))
    types = [("float64", *place) for place in layouts] + [("float32", *place) for place in layouts[:2]]
    for (m, n), (dtype, pair, block) in dealt(itertools.product(shapes, types)):
        A0 = rng().standard_normal((m, n)).astype(dtype)
        A = spread(A0, pair, block)
        Q, R = linalg.qr(ctx, A)
        q, r = whole(Q), whole(R)
        p = min(m, n)
        yield (
            f"{m} {n} {pair} {block} {dtype}",
            {
                "A - QR": np.linalg.norm(A0 - q @ r) / (np.linalg.norm(A0) * eps(A0) * max(m, n)),
                "orthogonality": orthogonality(q),
                "triangle": 1e9 * np.abs(np.tril(r, -1)).max(),
                "shapes": 0 if (q.shape, r.shape) == ((m, p), (p, n)) else 1e9,
                "input": 1e9 * np.abs(whole(A) - A0).max(),
            },
        )


@case
def solve() -> Iterator[tuple[str, Any]]:
    orders = ((2, 3), (111, 20), (40, 90), (1, 1), (50, 1), (600, 3))
    systems = [("float64", *order) for order in orders] + [("float32", *order) for order in orders[:3]]
    layouts = (("MC_MR", None), ("VC_STAR", 1), ("CIRC_CIRC", None), ("MC_MR", 1))
    for (dtype, n, nrhs), (pair, block) in dealt(itertools.product(systems, layouts)):
        A0 = rng().standard_normal((n, n)).astype(dtype)
        b0 = rng().standard_normal((n, nrhs)).astype(dtype)
        A, b = spread(A0, pair, block), spread(b0, pair, block)
        x = linalg.solve(ctx, A, b)
        X = whole(x)
        scale = np.linalg.norm(A0) * np.linalg.norm(X) * eps(A0) * n
        yield (
            f"{n} {nrhs} {pair} {block} {dtype}",
            {
                "A x - b": np.linalg.norm(A0 @ X - b0) / scale,
                "inputs": 1e9 * max(np.abs(whole(A) - A0).max(), np.abs(whole(b) - b0).max()),
                "layout": 0 if x.layout == b.layout else 1e9,
            },
        )


# --- singular values --------------------------------------------------------------------------------------------------


def svd_residuals(A: Array, U: DistMatrix, S: Array, Vt: DistMatrix) -> Residuals:
    """Return residuals in units of their allowed size: 1e-10 sigma_1 in float64, and c eps otherwise."""
    u, vt = whole(U), whole(Vt)
    k, orthogonal = S.size, {"U": orthogonality(u), "V": orthogonality(vt.T)}
    tolerance = max(1e-10, 100 * eps(A))
    checksums = comm.allgather(zlib.crc32(S.tobytes()))
    shapes = U.shape, S.shape, Vt.shape
    A, u, vt, S = A.astype(float), u.astype(float), vt.astype(float), S.astype(float)
    exact = np.linalg.svd(A, compute_uv=False)
    unit = max(float(exact[0]), 1e-300) * tolerance / 30
    return {
        "A v - sigma u": np.linalg.norm(A @ vt.T - u * S, axis=0).max() / unit,
        "A^T u - sigma v": np.linalg.norm(A.T @ u - vt.T * S, axis=0).max() / unit,
        "values": np.abs(S - exact[:k]).max() / unit,
        **orthogonal,
        "descending": 0 if (np.diff(S) <= 0).all() and (S >= 0).all() else 1e9,
        "equal on all ranks": 0 if len(set(checksums)) == 1 else 1e9,
        "shapes": 0 if shapes == ((A.shape[0], k), (k,), (k, A.shape[1])) else 1e9,
    }


@case
def svd_layouts() -> Iterator[tuple[str, Any]]:
    places = everywhere([("MC_MR", 1), ("VC_STAR", 1), ("STAR_VC", 3)])
    for (dtype, pair, block), (m, n) in dealt(itertools.product(places, ((90, 20), (20, 90), (40, 40)))):
        A0 = rng().standard_normal((m, n)).astype(dtype)
        A = spread(A0, pair, block)
        yield f"{m} {n} {pair} {block} {dtype}", svd_residuals(A0, *linalg.truncated_svd(ctx, A, 6))
        yield "input is kept", 1e9 * np.abs(whole(A) - A0).max()


@case
def svd_spectra() -> Iterator[tuple[str, Any]]:
    spectra = {
        "graded": 10.0 ** -np.arange(30),
        "clustered": np.r_[np.ones(12), np.full(12, 1e-3), np.full(6, 1e-9)],
        "deficient": np.r_[np.linspace(5, 1, 9), np.zeros(21)],
        "huge": np.linspace(2, 1, 30) * 1e30,
        "tiny": np.linspace(2, 1, 30) * 1e-30,
    }
    types, shapes = ("float64", "float32"), ((300, 30), (30, 300), (30, 30))
    for dtype, (name, s), shape, k in dealt(itertools.product(types, spectra.items(), shapes, (1, 10, 30))):
        A = with_spectrum(*shape, s, dtype)
        yield f"{name} {shape} {k} {dtype}", svd_residuals(A, *linalg.truncated_svd(ctx, spread(A, "VC_STAR"), k))
    for dtype in types:
        for shape in ((1, 1), (1, 9), (9, 1), (2, 2)):
            for A in (np.zeros(shape, dtype), np.ones(shape, dtype)):
                got = linalg.truncated_svd(ctx, spread(A), 1)
                yield f"constant {shape} {dtype}", svd_residuals(A, *got)
    for power in (1e300, 1e-300, 5e-324):
        A = rng().integers(1, 4, (12, 5)) * power
        U, S, Vt = linalg.truncated_svd(ctx, spread(A), 5)
        exact = np.linalg.svd(A, compute_uv=False)
        error = np.abs(S - exact).max() / max(exact[0] * 1e-13, 1e-323)
        yield f"{power} times", {"values": error, "U": orthogonality(whole(U)), "V": orthogonality(whole(Vt).T)}


def _as_results(slab: slabs.TallMatrix, found: Any) -> tuple[DistMatrix, Array, DistMatrix]:
    return singular._results(ctx, slab, found)


@case
def svd_methods() -> Iterator[tuple[str, Any]]:
    """Each method by itself, on matrices that are too small to select it."""
    spectra = {
        "linear": np.linspace(1, 0.1, 300),
        "geometric": 0.9 ** np.arange(300),
        "clustered": np.r_[np.ones(30), np.full(270, 0.5)],
        "deficient": np.r_[np.linspace(2, 1, 5), np.zeros(295)],
        "zero": np.zeros(300),
    }
    types = ("float64", "float32")
    large = [("float64", (500, 300)), ("float64", (300, 400)), ("float32", (300, 400))]
    for (dtype, shape), (name, s), k in dealt(itertools.product(large, spectra.items(), (1, 10)), (1, 3)):
        tolerance = max(1e-10, 100 * float(np.finfo(dtype).eps))
        A = with_spectrum(*shape, s, dtype)
        slab = slabs.slab_of(spread(A, "MC_MR"))
        plan = lanczos.LanczosPlan.wide(k, 300)
        found = lanczos.lanczos_svd(slab, plan, tolerance, 0, 5000, lambda count, residual: None)
        label = f"{name} {shape} {k} {dtype}"
        yield f"Lanczos {label}", 1e9 if found is None else svd_residuals(A, *_as_results(slab, found))
        found = gram.gram_svd(ctx, slab, k, tolerance)
        if found is not None:
            yield f"Gram {label}", svd_residuals(A, *_as_results(slab, found))
        elif name in ("linear", "clustered"):
            yield f"Gram {label} was refused", 1e9
    for dtype, shape in itertools.product(types, ((90, 60), (60, 90), (5, 5))):
        A = with_spectrum(*shape, np.linspace(1, 0, min(shape)), dtype)
        yield f"p?gesvd {shape} {dtype}", svd_residuals(A, *singular._full(ctx, spread(A), min(shape), 4.0))
    steep = with_spectrum(400, 300, np.r_[1.0, np.full(299, 1e-9)])
    refused = gram.gram_svd(ctx, slabs.slab_of(spread(steep, "VC_STAR")), 2, 1e-10) is None
    yield "Gram refuses what it would spoil", 0.0 if refused else 1e9


@case
def svd_large() -> Iterator[tuple[str, Any]]:
    """Matrices that are large enough to select the fast methods."""
    A = rng().standard_normal((9000, 500))
    yield "Gram", svd_residuals(A, *linalg.truncated_svd(ctx, spread(A, "VC_STAR"), 20))
    yield (
        "Gram, float32",
        svd_residuals(A.astype("float32"), *linalg.truncated_svd(ctx, spread(A.astype("float32"), "VC_STAR"), 20)),
    )
    A = A * np.logspace(0, -14, 500)
    yield "graded", svd_residuals(A, *linalg.truncated_svd(ctx, spread(A, "VC_STAR"), 100))
    yield "wide", svd_residuals(A.T.copy(), *linalg.truncated_svd(ctx, spread(A.T.copy(), "STAR_VR"), 3))


# --- errors -----------------------------------------------------------------------------------------------------------


@case
def errors() -> Iterator[tuple[str, Any]]:
    A = rng().standard_normal((20, 12))
    square = rng().standard_normal((20, 20))
    bad = A.copy()
    bad[-1, -1] = np.nan
    infinite = square.copy()
    infinite[0, 0] = np.inf
    singular_matrix = square.copy()
    singular_matrix[:, 4] = 0
    yield "gemm shapes", raised(linalg.gemm, spread(A), spread(square))
    yield "gemm transposed shapes", raised(linalg.gemm, spread(A), spread(A), transpose_a=True, transpose_b=True)
    yield "gemm bool", raised(linalg.gemm, spread(np.ones((2, 20), bool)), spread(A))
    yield "svd k = 0", raised(linalg.truncated_svd, spread(A), 0)
    yield "svd k = 13", raised(linalg.truncated_svd, spread(A), 13)
    yield "svd tol", raised(linalg.truncated_svd, spread(A), 1, tol=-1.0)
    yield "svd NaN", raised(linalg.truncated_svd, spread(bad, "VC_STAR"), 2)
    yield "svd int", raised(linalg.truncated_svd, spread(A.astype(int)), 2)
    yield "qr NaN", raised(linalg.qr, spread(bad, block=1))
    yield "solve not square", raised(linalg.solve, spread(A), spread(A))
    yield "solve rows", raised(linalg.solve, spread(square), spread(A[:5].copy()))
    yield "solve Inf", raised(linalg.solve, spread(infinite), spread(A))
    yield "solve NaN", raised(linalg.solve, spread(square), spread(bad))
    yield "solve singular", raised(linalg.solve, spread(singular_matrix, block=3), spread(A))
    yield "TestLib rank", raised(testlib.truncated_svd, spread(A), 0)
    yield "afterwards", raised(linalg.truncated_svd, spread(A), 2)


# --- ScaLAPACK and TestLib --------------------------------------------------------------------------------------------


@case
def contexts() -> Iterator[tuple[str, Any]]:
    for count in range(40):
        ranks = comm.Dup()
        layout = Layout.of("MC_MR", (10, 10), comm.size, block=2)
        first = scalapack.context(ranks, layout)
        yield "cached", 0 if scalapack.context(ranks, layout) == first else 1e9
        scalapack.context(ranks, Layout.of("VR_STAR", (10, 10), comm.size))
        if count % 2:
            scalapack.release(ranks)
            scalapack.context(ranks, layout)
        ranks.Free()
    reverse = comm.Split(0, -comm.rank)
    inner = TaskContext(reverse, "linalg.case")
    A = rng().standard_normal((30, 30))
    D = DistMatrix.from_global(reverse, A, Layout.of("MC_MR", A.shape, comm.size, block=4))
    x = linalg.solve(inner, D, DistMatrix.from_global(reverse, A, D.layout)).to_global()
    yield "ranks in another order", float(np.abs(x - np.eye(30)).max() / 1e-11)
    reverse.Free()
    alone = comm.Split(comm.rank, 0)
    D = DistMatrix.from_global(alone, A, Layout.of("MC_MR", A.shape, 1))
    x = linalg.solve(TaskContext(alone), D, D).to_global()
    yield "a group of one", float(np.abs(x - np.eye(30)).max() / 1e-11)
    alone.Free()


@case
def test_library() -> Iterator[tuple[str, Any]]:
    yield "greet", testlib.greet(ctx, "Ada")
    for m, n in ((60, 25), (25, 60)):
        A = rng().standard_normal((m, n))
        S, U, V = testlib.truncated_svd(ctx, spread(A), 5)
        s, u, v = whole(S), whole(U), whole(V)
        exact = np.linalg.svd(A, compute_uv=False)[:5][::-1]
        yield (
            f"svd {m} {n}",
            {
                "shapes": 0 if (s.shape, u.shape, v.shape) == ((5, 1), (m, 5), (n, 5)) else 1e9,
                "values": np.abs(s[:, 0] - exact).max() / 1e-12,
                "A v - sigma u": np.abs(A @ v - u * s[:, 0]).max() / 1e-12,
                "A^T u - sigma v": np.abs(A.T @ u - v * s[:, 0]).max() / 1e-12,
            },
        )
    testlib.noop(ctx)
    testlib.sleep(ctx, 0.01)
    try:
        testlib.fail(ctx, comm.size - 1, "as asked")
        outcome = "returned"
    except ValueError as error:
        outcome = str(error)
    yield "fail", comm.gather(outcome)


if __name__ == "__main__":
    main(sys.argv[1:])
