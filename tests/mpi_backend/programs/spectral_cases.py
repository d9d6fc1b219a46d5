"""Run the spectral cases that the command line names on all ranks; print one line of JSON for each.

Every case yields scaled residuals, which the test compares with its limit, or the names of the ranks' errors.
"""

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from cases import Array, case, comm, ctx, dealt, main, raised
from mpi4py import MPI

from alchemist_ray.layouts.csr import CsrArrays
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import linalg
from alchemist_ray.mpi_backend.libraries.linalg import one_rank, stopping
from alchemist_ray.mpi_backend.libraries.linalg.spectral import eigenvalues, full_svd, hermitian
from alchemist_ray.mpi_backend.libraries.linalg.spectral import polar_decomposition as polar
from alchemist_ray.mpi_backend.scalapack.spectral import Wanted

TYPES = ("float32", "float64", "complex64", "complex128")
LAYOUTS = itertools.cycle(
    [
        ("MC_MR", None),
        ("VC_STAR", 1),
        ("STAR_VR", 5),
        ("MR_MC", 3),
        ("STAR_STAR", None),
        ("CIRC_CIRC", None),
        ("MC_MR", 1),
    ]
)
SOME_TYPES = TYPES if comm.size <= 2 else TYPES[comm.size % 2 :: 2]
TURN = itertools.count(comm.size)
WRONG = 1e9


def spread(A: Array, pair: str = "", block: int | None = None) -> DistMatrix:
    """Return `A` in the given layout, by default in the next of the layouts."""
    pair, block = (pair, block) if pair else next(LAYOUTS)
    return DistMatrix.from_global(comm, A, Layout.of(pair, A.shape, comm.size, block=block))


def normal(shape: tuple[int, int], dtype: str, seed: int = 7) -> Array:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal(shape)
    return (A + 1j * rng.standard_normal(shape) if dtype[0] == "c" else A).astype(dtype)


def orthonormal(shape: tuple[int, int], dtype: str, seed: int) -> Array:
    return np.linalg.qr(normal(shape, dtype.replace("32", "64").replace("x64", "x128"), seed))[0]


def with_values(m: int, n: int, s: Array, dtype: str) -> Array:
    return ((orthonormal((m, s.size), dtype, 1) * s) @ orthonormal((n, s.size), dtype, 2).conj().T).astype(dtype)


def spectra(p: int) -> dict[str, Array]:
    return {
        "graded": np.logspace(0, -12, p),
        "deficient": np.r_[np.linspace(3, 1, p - p // 3), np.zeros(p // 3)],
        "clustered": np.r_[np.ones(p // 2), np.full(p - p // 2, 1e-3)],
    }


def matrices(m: int, n: int, dtype: str) -> Iterator[tuple[str, Array]]:
    """Yield a random matrix and, in turn, every other one of the harder matrices."""
    yield "random", normal((m, n), dtype)
    hilbert = (1 / (1.0 + np.arange(m)[:, np.newaxis] + np.arange(n))).astype(dtype)
    harder = {name: with_values(m, n, s, dtype) for name, s in spectra(min(m, n)).items()}
    yield from _every_other([("Hilbert", hilbert), *harder.items()])


def hermitians(n: int, dtype: str) -> Iterator[tuple[str, Array]]:
    """Yield a random Hermitian matrix and, in turn, every other one of the harder matrices."""
    X, Q = normal((n, n), dtype), orthonormal((n, n), dtype, 3)
    yield "random", X + X.conj().T
    signs = np.where(np.arange(n) % 3, 1, -1)
    harder = {name: (Q * s * signs) @ Q.conj().T for name, s in spectra(n).items()}
    harder["Hilbert"] = scipy.linalg.hilbert(n)
    yield from _every_other([(name, ((A + A.conj().T) / 2).astype(dtype)) for name, A in harder.items()])


def _every_other(named: list[tuple[str, Array]]) -> list[tuple[str, Array]]:
    return named[next(TURN) % 2 :: 2]


def shared_out(first: Iterable[Any], second: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Return a share of all pairs, with each value in turn: half on one rank, the rest on two, a quarter on more."""
    pairs = enumerate(itertools.product(first, second))
    half = [pair for at, pair in pairs if (at + at // len(second)) % 2 == comm.size % 2]
    if comm.size <= 2:
        return half
    return [pair for at, pair in enumerate(half) if at % 2 == (at // 2 + at // 4) % 2]


def size_of(A: Array) -> float:
    return float(np.linalg.norm(A)) or 1.0


def scaled(error: float, A: Array) -> float:
    """Return an error in units of eps times the size of A; it should be of order 1."""
    return float(error) / (size_of(A) * np.finfo(A.dtype).eps * max(A.shape))


def orthogonality(V: Array) -> float:
    """Return how far the columns are from orthonormal, in units of n eps."""
    gram = V.conj().T.astype(complex) @ V
    return float(np.linalg.norm(gram - np.eye(len(gram))) / (np.finfo(V.dtype).eps * max(V.shape)))


def difference(found: Array, exact: Array, A: Array) -> float:
    return scaled(np.abs(found - exact).max(initial=0), A) if found.shape == exact.shape else WRONG


# --- eigenvalues ------------------------------------------------------------------------------------------------------


def pair_residuals(A: Array, w: Array, V: DistMatrix | None, exact: Array) -> dict[str, float]:
    residuals = {"values": difference(w, exact, A), "type": 0 if w.dtype == A.real.dtype else WRONG}
    if V is not None:
        residuals["shape"] = 0 if V.shape == (len(A), len(w)) else WRONG
    if V is not None and len(w):
        v = V.to_global()
        residuals |= {"A V - V w": scaled(np.linalg.norm(A @ v - v * w), A), "orthogonality": orthogonality(v)}
    return residuals


def one_triangle(A: Array, lower: bool) -> Array:
    """Return `A` with other numbers in the triangle that must not be read."""
    other = np.full_like(A, 7)
    return np.tril(A) + np.triu(other, 1) if lower else np.triu(A) + np.tril(other, -1)


@case
def symmetric() -> Iterator[tuple[str, Any]]:
    for n, dtype in shared_out((1, 2, 5, 50), TYPES):
        for name, A in itertools.islice(hermitians(n, dtype), 1 if n < 10 else None):
            exact = np.linalg.eigvalsh(A.astype("complex128"))
            lower = bool(next(TURN) % 2)
            given = spread(one_triangle(A, lower))
            middle = float(exact[n // 2] + exact[n // 2 - 1]) / 2 if n > 1 else -100.0
            wanted = [
                ("all", Wanted(), exact),
                ("indices", Wanted(indices=(n // 2, n - 1)), exact[n // 2 :]),
                ("interval", Wanted(interval=(middle, np.inf)), exact[exact > middle]),
                ("empty interval", Wanted(interval=(exact[-1] + 1, np.inf)), exact[:0]),
            ]
            if name != "random":
                wanted = wanted[:2]  # no interval ends among equal eigenvalues
            for where in (hermitian.on_one_rank, hermitian.on_all_ranks):
                for what, some, values in wanted if name == "random" else wanted[:1]:
                    label = f"{n} {dtype} {name} {lower} {where.__name__} {what}"
                    yield label, pair_residuals(A, *where(ctx, given, lower, some, True), values)
                what, some, values = wanted[next(TURN) % len(wanted)]
                label = f"{n} {dtype} {name} {lower} {where.__name__} {what}, no vectors"
                yield label, pair_residuals(A, *where(ctx, given, lower, some, False), values)
            yield "input is kept", WRONG * np.abs(given.to_global() - one_triangle(A, lower)).max()
    A = next(hermitians(40, "float64"))[1]
    exact = np.linalg.eigvalsh(A)
    yield "task", pair_residuals(A, *linalg.eigh(ctx, spread(A)), exact)
    yield "task, subset", pair_residuals(A, *linalg.eigh(ctx, spread(A), subset_by_index=[3, 9]), exact[3:10])
    yield "task, values", difference(linalg.eigh(ctx, spread(A), eigvals_only=True), exact, A)
    some = linalg.eigvalsh(ctx, spread(A), subset_by_value=[-2.0, 2.0])
    yield "eigvalsh", difference(some, exact[(exact > -2) & (exact <= 2)], A)
    w, V = linalg.eigh(ctx, spread(A), subset_by_value=[1e6, 1e7])
    yield "nothing there", 0 if w.shape == (0,) and V.shape == (40, 0) else WRONG


@case
def tight_clusters() -> Iterator[tuple[str, Any]]:
    for dtype in SOME_TYPES:
        Q = orthonormal((130, 130), dtype, 0)
        A = (Q[:, :65] @ Q[:, :65].conj().T).astype(dtype)
        exact = np.r_[np.zeros(65), np.ones(65)]
        for some, values in (
            (Wanted(), exact),
            (Wanted((0, 128)), exact[:-1]),
            (Wanted(interval=(0.5, 2.0)), exact[65:]),
        ):
            for vectors in (True, False):
                w, V = hermitian.on_all_ranks(ctx, spread(A, "MC_MR", 32), True, some, vectors)
                yield f"{dtype} {some} {vectors}", pair_residuals(A, w, V, values)


def spectrum_residuals(A: Array, w: Array) -> dict[str, float]:
    """Each value is an eigenvalue of a matrix near A, their sum is the trace, and those of a real matrix are pairs."""
    double = A.astype("complex128")
    distances = np.linalg.svd(double - w[:, np.newaxis, np.newaxis] * np.eye(len(A)), compute_uv=False)[:, -1]
    return {
        "distance": scaled(distances.max(), A),
        "trace": scaled(abs(w.astype("complex128").sum() - np.trace(double)), A) / len(A) ** 0.5,
        "kind": 0 if w.dtype == np.result_type(A.dtype, "complex64") and w.shape == (len(A),) else WRONG,
    }


@case
def general() -> Iterator[tuple[str, Any]]:
    for n, dtype in shared_out((1, 2, 3, 40), TYPES):
        for name, A in matrices(n, n, dtype) if n > 3 else [("random", normal((n, n), dtype))]:
            given = spread(A)
            for where in (eigenvalues.values_on_one_rank, eigenvalues.values_on_all_ranks):
                yield f"{n} {dtype} {name} {where.__name__}", spectrum_residuals(A, where(ctx, given))
            w, V = linalg.eig(ctx, given)
            v = V.to_global()
            yield (
                f"eig {n} {dtype} {name}",
                {
                    "A V - V w": scaled(np.linalg.norm(A @ v - v * w), A),
                    "norms": np.abs(np.linalg.norm(v, axis=0) - 1).max() / (n * np.finfo(A.dtype).eps),
                    "input": WRONG * np.abs(given.to_global() - A).max(),
                },
            )
    companion = scipy.linalg.companion(np.poly([1.0, 2.0, 3.0, 4.0]))
    for where in (linalg.eigvals, eigenvalues.values_on_all_ranks):
        w = where(ctx, spread(companion))
        yield f"roots {where.__name__}", np.abs(np.sort_complex(w) - [1, 2, 3, 4]).max() / 1e-11


@case
def every_type_on_all_ranks() -> Iterator[tuple[str, Any]]:
    for at, dtype in enumerate(TYPES):
        A = normal((40, 40), dtype)
        H = A + A.conj().T
        exact = np.linalg.eigvalsh(H.astype("complex128"))
        yield f"eigh {dtype}", pair_residuals(H, *hermitian.on_all_ranks(ctx, spread(H), True, Wanted(), True), exact)
        yield f"eigvals {dtype}", spectrum_residuals(A, eigenvalues.values_on_all_ranks(ctx, spread(A)))
        yield f"svd {dtype}", svd_residuals(A, *full_svd.on_all_ranks(ctx, spread(A), False, True), False)
        power = 2.0 ** ((110 if A.real.dtype == "float32" else 970) * (-1) ** (at + at // 2 + comm.size))
        extreme, positive = A * A.dtype.type(power), Wanted(interval=(0.0, np.inf))
        w, _ = hermitian.on_all_ranks(ctx, spread(extreme + extreme.conj().T), True, positive, False)
        yield f"eigvalsh {dtype} {power}", difference(w / power, exact[exact > 0], H)
        w = eigenvalues.values_on_all_ranks(ctx, spread(extreme))
        yield f"eigvals {dtype} {power}", spectrum_residuals(A, (w.view(w.real.dtype) / power).view(w.dtype))


# --- singular values --------------------------------------------------------------------------------------------------


def svd_residuals(A: Array, U: DistMatrix, s: Array, Vt: DistMatrix, full: bool) -> dict[str, float]:
    (m, n), p = A.shape, min(A.shape)
    u, vt = U.to_global(), Vt.to_global()
    shapes = ((m, m), (p,), (n, n)) if full else ((m, p), (p,), (p, n))
    return {
        "shapes": 0 if (u.shape, s.shape, vt.shape) == shapes and s.dtype == A.real.dtype else WRONG,
        "A - U s Vt": scaled(np.linalg.norm(A - (u[:, :p] * s) @ vt[:p]), A),
        "U": orthogonality(u),
        "V": orthogonality(vt.conj().T),
        "values": difference(s, np.linalg.svd(A.astype("complex128"), compute_uv=False), A),
        "order": 0 if (np.diff(s) <= 0).all() and (s >= 0).all() else WRONG,
    }


@case
def singular_values() -> Iterator[tuple[str, Any]]:
    shapes = ((2, 1), (1, 5), (3, 3), (50, 40), (40, 41))
    for (m, n), dtype in shared_out(shapes, TYPES):
        for name, A in matrices(m, n, dtype) if min(m, n) == 40 else [("random", normal((m, n), dtype))]:
            given = spread(A)
            for where in (full_svd.on_one_rank, full_svd.on_all_ranks):
                for full in (False, True) if name == "random" and m + n > 50 else (False,):
                    label = f"{m} {n} {dtype} {name} {where.__name__} {full}"
                    yield label, svd_residuals(A, *where(ctx, given, full, True), full)
                values = np.linalg.svd(A.astype("complex128"), compute_uv=False)
                yield f"values {label}", difference(where(ctx, given, False, False), values, A)
            yield "input is kept", WRONG * np.abs(given.to_global() - A).max()
        yield f"task {m} {n} {dtype}", svd_residuals(A, *linalg.svd(ctx, given), False)
        yield f"task, values {m} {n} {dtype}", difference(linalg.svd(ctx, given, compute_uv=False), values, A)
    for power in (1e-300, 1e300):
        A = normal((40, 36), "float64") * power
        s = full_svd.on_all_ranks(ctx, spread(A), False, False)
        yield f"{power}", np.abs(s / np.linalg.svd(A, compute_uv=False) - 1).max() / 1e-12


def triplet_residuals(A: Array, U: DistMatrix, s: Array, Vt: DistMatrix, tol: float) -> dict[str, float]:
    u, vt = U.to_global(), Vt.to_global()
    exact = np.linalg.svd(A, compute_uv=False)[: len(s)]
    tol = max(tol, 100 * float(np.finfo(A.dtype).eps))
    return {
        "A v - s u": np.linalg.norm(A @ vt.conj().T - u * s, axis=0).max() / (tol * exact[0]) * 10,
        "A^H u - s v": np.linalg.norm(A.conj().T @ u - vt.conj().T * s, axis=0).max() / (tol * exact[0]) * 10,
        "U": orthogonality(u),
        "V": orthogonality(vt.conj().T),
        "values": np.abs(s - exact).max() / (tol * exact[0]) * 10,
    }


@case
def leading() -> Iterator[tuple[str, Any]]:
    for (m, n), dtype in shared_out(((150, 90), (90, 120)), TYPES):
        A = with_values(m, n, np.r_[3.0, 3.0, 2.0 * 0.97 ** np.arange(min(m, n) - 2)], dtype)
        for method in ("auto", "krylov", "gram", "tsqr"):
            found = linalg.truncated_svd(ctx, spread(A), 6, method=method)
            yield f"{method} {m} {n} {dtype}", triplet_residuals(A, *found, 1e-10)
        S = A * (np.random.default_rng(0).random(A.shape) < 0.3)
        sparse = SparseDistMatrix.from_local(comm, S.shape, _my_rows(S))
        for method in ("auto", "krylov"):
            found = linalg.truncated_svd(ctx, sparse, 4, method=method)
            yield f"sparse {method} {m} {n} {dtype}", triplet_residuals(S, *found, 1e-10)


def _my_rows(S: Array) -> CsrArrays:
    rows, _ = Layout.of("VC_STAR", S.shape, comm.size).part(S.shape, comm.rank)
    mine = scipy.sparse.csr_array(S[rows.indices()])
    return CsrArrays(mine.indptr.astype(np.int64), mine.indices, mine.data)


@case
def randomised() -> Iterator[tuple[str, Any]]:
    k = 8
    for (m, n), dtype in shared_out(((200, 90), (90, 200)), TYPES):
        for name, s in (("fast", 0.5 ** np.arange(90)), ("slow", 1 / np.arange(1.0, 91))):
            A = with_values(m, n, s, dtype)
            for q in (0, 2):
                U, S, Vt = linalg.truncated_svd(
                    ctx, spread(A), k, method="randomized", oversampling=k, power_iterations=q
                )
                u, vt = U.to_global(), Vt.to_global()
                bound = (1 + 4 * np.sqrt(2 * 90 / (k - 1))) ** (1 / (2 * q + 1)) * s[k]
                error = np.linalg.norm(A - (u * S) @ vt, 2)
                yield (
                    f"{name} {q} {m} {n} {dtype}",
                    {
                        "error within the bound of the theory": 30 * float(error / bound),
                        "U": orthogonality(u),
                        "V": orthogonality(vt.conj().T),
                        "residual of the long side": scaled(
                            np.linalg.norm(A @ vt.conj().T - u * S if m > n else A.conj().T @ u - vt.conj().T * S), A
                        ),
                    },
                )
    first, second = (linalg.truncated_svd(ctx, spread(A, "VC_STAR"), 3, method="randomized", seed=5) for _ in range(2))
    yield "the same seed, the same result", WRONG * np.abs(first[0].to_global() - second[0].to_global()).max()


# --- matrix functions -------------------------------------------------------------------------------------------------


@case
def exponential() -> Iterator[tuple[str, Any]]:
    for dtype in SOME_TYPES:
        for n, size in ((2, 0.3), (3, 8.0), (40, 0.01), (40, 0.2), (40, 0.9), (40, 2.0), (40, 6.0))[
            next(TURN) % 2 :: 2
        ]:
            A = normal((n, n), dtype)
            A *= A.real.dtype.type(size / np.abs(A).sum(axis=0).max())
            given = spread(A)
            E = linalg.expm(ctx, given).to_global()
            exact = scipy.linalg.expm(A.astype("complex128"))
            yield f"{n} {size} {dtype}", scaled(np.linalg.norm(E - exact), E) / max(1, size)
            yield f"type of {dtype}", 0 if E.dtype == A.dtype else WRONG
            yield "input is kept", WRONG * np.abs(given.to_global() - A).max()
        Q = orthonormal((40, 40), dtype, 4)
        for w in (-np.logspace(-3, 2, 40), np.linspace(-5, 5, 40)):
            A = ((Q * w) @ Q.conj().T).astype(dtype)
            E = linalg.expm(ctx, spread(A)).to_global()
            exact = ((Q * np.exp(w)) @ Q.conj().T).astype(dtype)
            yield f"normal {w[0]:.3f} {dtype}", scaled(np.linalg.norm(E - exact), exact) / np.abs(w).max()
        yield (
            f"zero {dtype}",
            WRONG * np.abs(linalg.expm(ctx, spread(np.zeros((7, 7), dtype))).to_global() - np.eye(7)).max(),
        )
        stiff = np.diag([-1e6, 0, 1]).astype(dtype)
        E = linalg.expm(ctx, spread(stiff)).to_global()
        yield f"stiff {dtype}", scaled(np.linalg.norm(E - np.diag([0, 1, np.e])), E) / 1e6
    shear = np.array([[1, 1e6], [0, -1]])
    exact = np.array([[np.e, 1e6 * np.sinh(1)], [0, 1 / np.e]])
    yield (
        "far from normal",
        (np.abs(linalg.expm(ctx, spread(shear)).to_global() - exact) / np.where(exact, exact, 1)).max() / 1e-14,
    )
    for diagonal in ([1.7e308, 1.7e308], [1e4, -1.0]):
        E = linalg.expm(ctx, spread(np.diag(diagonal))).to_global()
        yield f"too large {diagonal}", WRONG * np.isfinite(E).any()
    full = linalg.expm(ctx, spread(np.full((2, 2), 1.7e308))).to_global()
    yield "norm too large", WRONG * np.isfinite(full).any()
    yield (
        "nilpotent",
        scaled(np.linalg.norm(linalg.expm(ctx, spread(np.eye(30, k=1))).to_global() - _nilpotent(30)), _nilpotent(30)),
    )


def _nilpotent(n: int) -> Array:
    return scipy.linalg.toeplitz(np.eye(n)[0], 1 / np.r_[1.0, np.cumprod(np.arange(1.0, n))])


@case
def pseudoinverse() -> Iterator[tuple[str, Any]]:
    for (m, n), dtype in shared_out(((1, 4), (6, 2), (45, 45), (80, 35), (36, 50)), TYPES):
        for name, A in matrices(m, n, dtype) if min(m, n) > 30 else [("random", normal((m, n), dtype))]:
            rtol = 3e-4 if dtype in ("float32", "complex64") else 3e-6
            B, rank = linalg.pinv(ctx, spread(A), rtol=rtol, return_rank=True)
            s = np.linalg.svd(A, compute_uv=False)
            kept = s[s > rtol * s[0]]
            b, condition = B.to_global(), kept[0] / kept[-1]
            low = A if name == "random" else with_rank(A, len(kept))
            yield (
                f"{name} {m} {n} {dtype}",
                {
                    "rank": 0 if rank == len(kept) else WRONG,
                    "shape": 0 if b.shape == (n, m) else WRONG,
                    "A B A - A": scaled(np.linalg.norm(low @ b @ low - low), A) / condition,
                    "B A B - B": scaled(np.linalg.norm(b @ low @ b - b), b) / condition,
                    "A B": scaled(np.linalg.norm(low @ b - (low @ b).conj().T), np.eye(max(m, n), dtype=dtype))
                    / condition,
                    "B A": scaled(np.linalg.norm(b @ low - (b @ low).conj().T), np.eye(max(m, n), dtype=dtype))
                    / condition,
                },
            )
    A = with_values(30, 20, np.r_[np.linspace(2, 1, 15), np.zeros(5)], "float64")
    yield "default", scaled(np.linalg.norm(linalg.pinv(ctx, spread(A)).to_global() - np.linalg.pinv(A, 1e-13)), A)
    yield (
        "atol",
        0
        if linalg.pinv(ctx, spread(A), atol=1.53, return_rank=True)[1] == int((np.linalg.svd(A)[1] > 1.53).sum())
        else WRONG,
    )
    yield "atol and the default of rtol", WRONG * abs(linalg.pinv(ctx, spread(A), atol=1e-30, return_rank=True)[1] - 15)
    Z, rank = linalg.pinv(ctx, spread(np.zeros((5, 3))), return_rank=True)
    yield "zero", 0 if rank == 0 and Z.shape == (3, 5) and not Z.to_global().any() else WRONG


def with_rank(A: Array, rank: int) -> Array:
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    low: Array = (U[:, :rank] * s[:rank]) @ Vt[:rank]
    return low


def polar_residuals(A: Array, U: DistMatrix, P: DistMatrix, side: str) -> dict[str, float]:
    u, p = U.to_global(), P.to_global()
    (m, n), order = A.shape, len(p)
    return {
        "shapes": 0 if u.shape == A.shape and order == (n if side == "right" else m) else WRONG,
        "A - U P": scaled(np.linalg.norm(A - (u @ p if side == "right" else p @ u)), A),
        "U": orthogonality(u if m >= n else u.conj().T),
        "symmetry": scaled(np.linalg.norm(p - p.conj().T), A),
        "semidefinite": scaled(max(0.0, -float(np.linalg.eigvalsh(p.astype("complex128"))[0])), A),
    }


@case
def polar_factors() -> Iterator[tuple[str, Any]]:
    for (m, n), dtype in shared_out(((1, 1), (7, 2), (24, 24), (30, 24), (24, 40)), TYPES):
        given = (
            [*matrices(m, n, dtype), ("zero", np.zeros((m, n), dtype))]
            if m == n == 24
            else [("random", normal((m, n), dtype))]
        )
        for name, A in given:
            for where, side in itertools.product((polar.by_svd, polar.by_iteration), ("right", "left")):
                if side == "left" and m <= n:
                    continue
                yield (
                    f"{name} {m} {n} {dtype} {where.__name__} {side}",
                    polar_residuals(A, *where(ctx, spread(A), side), side),
                )
    A = normal((30, 20), "complex128")
    exact, _ = scipy.linalg.polar(A)
    for U, _ in (linalg.polar(ctx, spread(A)), polar.by_iteration(ctx, spread(A), "right")):
        yield "the same U as SciPy's", scaled(np.linalg.norm(U.to_global() - exact), exact)
    for power in (1e-300, 1e300):
        A = normal((6, 6), "float64") * power
        U, P = polar.by_iteration(ctx, spread(A), "right")
        yield f"{power}", np.abs(U.to_global() @ (P.to_global() / power) - A / power).max() / 1e-14


@case
def in_a_child_process() -> Iterator[tuple[str, Any]]:
    """Results of a child process are those of the rank, bit for bit."""
    kept = stopping.is_long
    for n, dtype in ((60, "float64"), (50, "complex64")):
        A = normal((n, n), dtype)
        B, tall = spread(A + A.conj().T), spread(normal((3 * n, n), dtype))
        A = spread(A)
        routines = {
            "eig": lambda A=A: linalg.eig(ctx, A),
            "eigvals": lambda A=A: linalg.eigvals(ctx, A),
            "eigvals of all ranks": lambda A=A: eigenvalues.values_on_all_ranks(ctx, A),
            "eigh": lambda B=B: linalg.eigh(ctx, B, subset_by_index=[3, 20]),
            "eigvalsh": lambda B=B: linalg.eigvalsh(ctx, B),
            "svd": lambda A=A: linalg.svd(ctx, A),
            "svd, long": lambda tall=tall: linalg.svd(ctx, tall),
            "qr, long": lambda tall=tall: linalg.qr(ctx, tall),
            "truncated_svd": lambda tall=tall: linalg.truncated_svd(ctx, tall, 5, method="gram"),
            "pinv": lambda A=A: linalg.pinv(ctx, A),
            "polar": lambda A=A: linalg.polar(ctx, A),
            "lstsq": lambda A=A, B=B: linalg.lstsq(ctx, A, B),
            "lstsq, long": lambda tall=tall: linalg.lstsq(ctx, tall, tall),
        }
        for name, routine in dealt(routines.items(), (1, 2)):
            try:
                found = []
                for apart in (False, True):
                    stopping.is_long = lambda *given, apart=apart: apart
                    result = routine()
                    parts = result if isinstance(result, tuple) else (result,)
                    found.append([part.to_global() if isinstance(part, DistMatrix) else part for part in parts])
            finally:
                stopping.is_long = kept
            same = all(np.array_equal(*pair, equal_nan=True) for pair in zip(*found, strict=True))
            yield f"{name} {n} {dtype}", 0 if same else WRONG


@case
def in_parts() -> Iterator[tuple[str, Any]]:
    """Products and Gram matrices that are cut so that a task can stop between their parts."""
    kept = stopping.LONG
    for dtype in ("float32", "complex128"):
        A, B = normal((301, 40), dtype), normal((40, 23), dtype)
        try:
            for stopping.LONG in (1e4, 1e5):
                C = linalg.gemm(ctx, spread(A, "VC_STAR"), spread(B, "STAR_STAR")).to_global()
                yield f"rows {dtype}", scaled(np.linalg.norm(C - A @ B), A @ B)
                G = linalg.gemm(ctx, spread(A, "VC_STAR"), spread(A, "VC_STAR"), transpose_a=True).to_global()
                yield f"inner {dtype}", scaled(np.linalg.norm(G - A.T @ A), A.T @ A)
                _, s, _ = linalg.truncated_svd(ctx, spread(A), 3, method="gram")
                exact = np.linalg.svd(A, compute_uv=False)[:3]
                yield f"gram {dtype}", scaled(float(np.abs(s - exact).max()), A)
                if dtype == "float32":
                    found = linalg.pca(ctx, spread(A), 3)["explained_variance"]
                    exact = np.linalg.svd(A - A.mean(0), compute_uv=False)[:3] ** 2 / 300
                    yield "pca", scaled(float(np.abs(found - exact).max()), exact)
        finally:
            stopping.LONG = kept


@case
def stopped() -> Iterator[tuple[str, Any]]:
    """A task that was cancelled on one rank ends on all, in a child process and between two parts."""
    A, kept = spread(normal((400, 30), "float64"), "VC_STAR"), stopping.LONG
    stop = TaskContext(comm, "linalg.case", cancelled=lambda: comm.rank in (0, comm.size - 1))
    work = 2 * kept, np.dtype(float)
    yield "child", raised(lambda ctx: one_rank.run(ctx, *work, lambda: time.sleep(60)), context=stop)
    yield (
        "child on each rank",
        raised(lambda ctx: stopping.on_each_rank(ctx, *work, lambda: time.sleep(1)), context=stop),
    )
    stopping.LONG = 1e4
    yield "parts", raised(lambda ctx: linalg.truncated_svd(ctx, A, 3, method="gram"), context=stop)
    stopping.LONG = kept


# --- one rank works, and errors ---------------------------------------------------------------------------------------


@case
def others_sleep() -> Iterator[tuple[str, Any]]:
    one_rank.run(ctx, 0, np.dtype(float), lambda: None)  # does its imports
    before = time.process_time()
    for count in (0, stopping.LONG):  # here, and in a child process
        found = one_rank.run(ctx, count, np.dtype(float), lambda: time.sleep(0.5) or "done")
        yield f"result {count}", 0 if (found == "done") == (comm.rank == 0) else WRONG
    spent = time.process_time() - before
    yield "seconds of processor time", 30 * comm.allreduce(spent, MPI.MAX) / 0.5


def _no_convergence() -> None:
    raise np.linalg.LinAlgError("it did not converge")


@case
def errors() -> Iterator[tuple[str, Any]]:
    square, wide, empty = normal((6, 6), "float64"), normal((4, 6), "float64"), np.zeros((0, 0))
    bad = square.copy()
    bad[-1, 0] = np.nan
    integers = np.ones((4, 4), "int64")
    for name in ("eigh", "eigvalsh", "eigvals", "eig", "expm", "svd", "pinv", "polar"):
        function = getattr(linalg, name)
        yield f"{name} NaN", raised(function, spread(bad))
        yield f"{name} int", raised(function, spread(integers))
        yield f"{name} empty", raised(function, spread(empty, "MC_MR"))
        if name not in ("svd", "pinv", "polar"):
            yield f"{name} wide", raised(function, spread(wide))
    A = spread(square)
    yield "both subsets", raised(linalg.eigh, A, subset_by_index=[0, 1], subset_by_value=[0.0, 1.0])
    yield "indices", raised(linalg.eigh, A, subset_by_index=[2, 6])
    yield "three indices", raised(linalg.eigvalsh, A, subset_by_index=[1, 2, 3])
    yield "interval", raised(linalg.eigh, A, subset_by_value=[1.0, 1.0])
    yield "side", raised(linalg.polar, A, side="top")
    yield "rtol", raised(linalg.pinv, A, rtol=-1.0)
    yield "method", raised(linalg.truncated_svd, A, 2, method="magic")
    yield "oversampling", raised(linalg.truncated_svd, A, 2, method="randomized", oversampling=-1)
    yield "krylov without room", raised(linalg.truncated_svd, A, 6, method="krylov")
    steep = with_values(60, 50, np.r_[1.0, np.full(49, 1e-9)], "float64")
    yield "gram, inaccurate", raised(linalg.truncated_svd, spread(steep), 2, method="gram")
    yield "convergence", raised(lambda ctx: one_rank.run(ctx, 0, np.dtype(float), _no_convergence))
    work = stopping.LONG, np.dtype(float)
    yield "convergence in a child", raised(lambda ctx: one_rank.run(ctx, *work, _no_convergence))
    yield "killed child", raised(lambda ctx: one_rank.run(ctx, *work, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    yield "afterwards", raised(linalg.eigh, A)


if __name__ == "__main__":
    main(sys.argv[1:])
