"""Run the cases of data analysis that the command line names on all ranks; print one line of JSON for each.

A case yields residuals in units of their allowed size, which the test compares with its limit, or results that it
compares with each other. The reference values come from scikit-learn, SciPy and NumPy.
"""

import itertools
import math
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from cases import Array, case, comm, ctx, dealt, main, raised
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel

from alchemist_ray.errors import MatrixMemoryError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import linalg

LAYOUTS = [("VC_STAR", None), ("MC_MR", 3), ("STAR_VR", 1), ("CIRC_CIRC", None), ("STAR_STAR", None), ("VC_STAR", 2)]
WRONG = 1e9


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def spread(A: Array, pair: str = "VC_STAR", block: int | None = None) -> DistMatrix:
    return DistMatrix.from_global(comm, A, Layout.of(pair, A.shape, comm.size, block=block))


def sparse(A: Array) -> SparseDistMatrix:
    return SparseDistMatrix.from_global(comm, scipy.sparse.csr_array(A))


def with_zeros(m: int, n: int, density: float, dtype: str = "float64") -> Array:
    return (rng().standard_normal((m, n)) * (rng(8).random((m, n)) < density)).astype(dtype)


def flag(fine: Any) -> float:
    return 0.0 if fine else WRONG


def relative(got: Any, exact: Any, unit: float) -> float:
    """Return the largest error relative to the largest exact value, in units of `unit`."""
    got, exact = np.asarray(got), np.asarray(exact)
    if got.shape != exact.shape:
        return WRONG
    scale = float(np.abs(exact).max(initial=0)) or 1.0
    return float(np.abs(got.astype(complex) - exact).max(initial=0)) / (scale * unit)


def eps(dtype: Any) -> float:
    return float(np.finfo(dtype).eps)


def same_everywhere(*arrays: Array) -> float:
    return flag(len(set(comm.allgather(zlib.crc32(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))))) == 1)


# --- principal components ---------------------------------------------------------------------------------------------


def pca_residuals(A: Array, found: dict[str, Any], k: int, unit: float, vectors: bool = True) -> dict[str, float]:
    """Return the errors against the exact SVD of the centred matrix, and against scikit-learn's signs."""
    exact = PCA(k, svd_solver="full").fit(A.astype(float))
    components = found["components"].to_global()
    residuals = {
        "variance": relative(found["explained_variance"], exact.explained_variance_, unit),
        "ratio": relative(found["explained_variance_ratio"], exact.explained_variance_ratio_, unit),
        "values": relative(found["singular_values"], exact.singular_values_, unit),
        "mean": relative(found["mean"], exact.mean_, 10 * eps(A.dtype)),
        "orthonormal": float(np.abs(components @ components.T - np.eye(k)).max() / (eps(A.dtype) * max(A.shape))),
        "types": flag(all(found[name].dtype == A.dtype for name in ("components", "mean", "explained_variance"))),
        "alike": same_everywhere(found["mean"], found["explained_variance"], found["singular_values"]),
    }
    if vectors:
        residuals["components and signs"] = relative(components, exact.components_, unit)
    if "scores" in found:
        scores = found["scores"].to_global()
        shifted = (A.astype(float) - exact.mean_) @ components.T.astype(float)
        # errors of the scores are relative to the matrix, because scores may be small
        residuals["scores"] = float(np.abs(scores - shifted).max() / (np.abs(A).max() * max(A.shape) * eps(A.dtype)))
    return residuals


@case
def pca_layouts() -> Iterator[tuple[str, Any]]:
    places = [("float64", *place) for place in LAYOUTS] + [("float32", *place) for place in LAYOUTS[:3]]
    for (m, n), (dtype, pair, block) in dealt(itertools.product(((120, 9), (9, 80), (30, 30)), places)):
        A = (rng().standard_normal((m, n)) * np.linspace(3, 1, n) + 5).astype(dtype)
        D = spread(A, pair, block)
        label = f"{m}x{n} {pair} {block} {dtype}"
        yield label, pca_residuals(A, linalg.pca(ctx, D, 4), 4, 100 * eps(dtype))
        yield f"{label} input", flag((D.to_global() == A).all())


@case
def pca_shapes() -> Iterator[tuple[str, Any]]:
    for m, n in ((2, 1), (2, 7), (7, 1), (3, 3), (50, 4)):
        A = rng().standard_normal((m, n))
        found = linalg.pca(ctx, spread(A))
        # with fewer samples than features the last component has no variance and no unique direction
        yield f"all of {m}x{n}", pca_residuals(A, found, min(m, n), 100 * eps(float), vectors=m > n)
        few = linalg.pca(ctx, spread(A), 1, scores=False)
        yield f"one of {m}x{n}", pca_residuals(A, few, 1, 100 * eps(float)) | {"no scores": flag("scores" not in few)}
    constant = linalg.pca(ctx, spread(np.full((6, 3), 2.5)))
    yield (
        "no variance",
        flag(not constant["explained_variance"].any() and not constant["explained_variance_ratio"].any()),
    )


@case
def pca_spectra() -> Iterator[tuple[str, Any]]:
    """Accuracy for components that the Gram matrix would lose, and for samples far from zero."""
    U, V = np.linalg.qr(rng().standard_normal((150, 12)))[0], np.linalg.qr(rng().standard_normal((40, 12)))[0]
    spectra = {"graded": 10.0 ** -np.arange(12), "clustered": np.r_[np.ones(6), np.full(6, 1e-7)]}
    for name, s in spectra.items():
        for flipped in (False, True):
            A = (U * s) @ V.T
            A = A.T.copy() if flipped else A
            found = linalg.pca(ctx, spread(A, "MC_MR", 3), 12)
            exact = np.linalg.svd(A - A.mean(0), compute_uv=False)[:12]
            yield (
                f"{name} {flipped}",
                {
                    "values": float(np.abs(found["singular_values"] - exact).max() / (exact[0] * 10 * eps(float))),
                    **pca_residuals(A, found, 12, 1e-10, vectors=False),
                },
            )
    for dtype, offset, unit in (("float64", 1e8, 1e-7), ("float32", 1e3, 1e-3)):
        A = (rng().standard_normal((200, 6)) * np.arange(6, 0, -1) + offset).astype(dtype)
        found = linalg.pca(ctx, spread(A), 6)
        exact = PCA(6, svd_solver="full").fit(A.astype(float))
        yield f"offset {dtype}", relative(found["components"].to_global(), exact.components_, unit / 30)
    for power in (1e200, 1e-200):
        A = rng().standard_normal((40, 5)) * np.arange(5, 0, -1)
        found = linalg.pca(ctx, spread(A * power), 3)
        exact = PCA(3, svd_solver="full").fit(A)
        scores = exact.transform(A)
        yield (
            f"{power} times",
            {
                "components": relative(found["components"].to_global(), exact.components_, 1e-13),
                "values": relative(found["singular_values"] / power, exact.singular_values_, 1e-14),
                "scores": relative(found["scores"].to_global() / power, scores, 1e-13),
                "mean": relative(found["mean"] / power, exact.mean_, 1e-14),
            },
        )

    for flipped in (False, True):
        A = rng().uniform(0.2, 1.0, (5, 40) if flipped else (40, 5))
        found = linalg.pca(ctx, spread(A * 1.7e308), 3)
        exact = PCA(3, svd_solver="full").fit(A)
        yield (
            f"sums of samples overflow {flipped}",
            {
                "components": relative(found["components"].to_global(), exact.components_, 1e-13),
                "mean": relative(found["mean"] / 1.7e308, exact.mean_, 1e-14),
                "ratio": relative(found["explained_variance_ratio"], exact.explained_variance_ratio_, 1e-13),
            },
        )


@case
def pca_iterated() -> Iterator[tuple[str, Any]]:
    """Sparse matrices, by iteration; and matrices that are too small for it."""
    matrices = ((400, 260, "float64"), (260, 400, "float64"), (400, 260, "float32"), (60, 40, "float64"))
    for (m, n, dtype), k in dealt(itertools.product(matrices, (3, 30)), (1, 3)):
        A = with_zeros(m, n, 0.05, dtype)
        A[:, :3] *= 4
        unit = 1e-9 if dtype == "float64" else 1e-4
        yield f"{m}x{n} {dtype} {k}", pca_residuals(A, linalg.pca(ctx, sparse(A), k), k, unit, vectors=k == 3)


@case
def pca_large() -> Iterator[tuple[str, Any]]:
    """A dense matrix that is large enough for the iteration."""
    A = rng().standard_normal((2100, 2050)).astype("float32")
    A[:, :2] *= 30
    found = linalg.pca(ctx, spread(A), 2)
    centred = A.astype(float) - A.mean(0, dtype=float)
    exact = scipy.sparse.linalg.svds(centred, 2, return_singular_vectors=False, random_state=0)
    yield "dense", relative(found["singular_values"], np.sort(exact)[::-1], 1e-6)


@case
def digits() -> Iterator[tuple[str, Any]]:
    """The digits that are shipped with scikit-learn: 1797 images of 64 pixels."""
    A, target = load_digits(return_X_y=True)
    for dtype in ("float64", "float32"):
        X = A.astype(dtype)
        yield f"PCA {dtype}", pca_residuals(X, linalg.pca(ctx, spread(X, "MC_MR", 3), 10), 10, 100 * eps(dtype))
    yield "sparse PCA", pca_residuals(A, linalg.pca(ctx, sparse(A), 10), 10, 1e-11)
    # means, not samples: other samples may be at equal distances from two samples
    first = np.array([A[start::10][:20].mean(0) for start in range(10)])
    found = linalg.kmeans(ctx, spread(A, "MC_MR"), 10, spread(first), tol=0.0)
    yield "k-means", kmeans_residuals(A, found, KMeans(10, init=first, n_init=1, tol=0).fit(A), 1e-12)
    train = slice(0, 1200)
    mean, sigma, reg_param = A[train].mean(0), 25.0, 1e-4
    X, Y = A - mean, np.where(target[:, np.newaxis] == np.arange(10), 1.0, -1.0)
    model = linalg.rf_ridge(ctx, spread(X[train]), spread(Y[train]), 1000, sigma, reg_param, tol=1e-4, seed=3)
    guess = linalg.rf_predict(ctx, spread(X[1200:]), model["coef"], sigma, 3).to_global().argmax(1)
    kernel = KernelRidge(alpha=reg_param * 1200, kernel="rbf", gamma=1 / (2 * sigma**2)).fit(X[train], Y[train])
    errors, exact = (float(np.mean(each != target[1200:])) for each in (guess, kernel.predict(X[1200:]).argmax(1)))
    yield "random features classify as the kernel does", flag(errors <= exact + 0.02 and errors < 0.05)
    indices, C, found_x = linalg.cx(ctx, spread(A), 10, 30)
    best = np.sqrt(np.sum(np.linalg.svd(A, compute_uv=False)[10:] ** 2))
    yield "CX", flag(np.linalg.norm(A - C.to_global() @ found_x.to_global()) <= best and len(indices) == 30)


# --- k-means ----------------------------------------------------------------------------------------------------------


def kmeans_residuals(A: Array, found: dict[str, Any], exact: KMeans, unit: float) -> dict[str, float]:
    labels, centers = found["labels"].to_global(), found["centers"].to_global()
    return {
        "labels": float(np.count_nonzero(labels[:, 0] != exact.labels_)) * WRONG,
        "centers": relative(centers, exact.cluster_centers_, unit),
        "inertia": abs(found["inertia"] / exact.inertia_ - 1) / unit
        if exact.inertia_
        else flag(found["inertia"] < unit),
        "n_iter": flag(found["n_iter"] == exact.n_iter_),
        "types": flag(labels.dtype == np.int32 and centers.dtype == A.dtype and labels.shape == (len(A), 1)),
        "alike": same_everywhere(np.array([found["inertia"], found["n_iter"]])),
    }


@case
def kmeans_from_centers() -> Iterator[tuple[str, Any]]:
    for dtype in ("float64", "float32"):
        A = make_blobs(150, 5, centers=6, cluster_std=3.0, random_state=1)[0].astype(dtype)
        first = A[:7].copy()
        for tol in (0.0, 1e-2):
            exact = KMeans(7, init=first, n_init=1, tol=tol).fit(A)
            for pair, block in dealt(LAYOUTS) if tol else LAYOUTS[:1]:
                found = linalg.kmeans(ctx, spread(A, pair, block), 7, spread(first, pair, block), tol=tol)
                yield f"{pair} {block} {dtype} {tol}", kmeans_residuals(A, found, exact, 10 * eps(dtype))
        few = linalg.kmeans(ctx, spread(A), 7, spread(first), max_iter=2)
        yield f"two iterations {dtype}", flag(few["n_iter"] == 2)
        predicted = linalg.kmeans_predict(ctx, spread(A[:40].copy(), "MC_MR", 2), few["centers"]).to_global()
        yield f"predict {dtype}", flag((predicted == few["labels"].to_global()[:40]).all())
    A = with_zeros(150, 30, 0.2)
    exact = KMeans(4, init=A[:4], n_init=1, tol=0).fit(A)
    yield "sparse", kmeans_residuals(A, linalg.kmeans(ctx, sparse(A), 4, spread(A[:4].copy()), tol=0.0), exact, 1e-13)
    A = rng().standard_normal((100, 4)) + 1e6
    exact = KMeans(3, init=A[:3], n_init=1, tol=0).fit(A)
    yield (
        "far from zero",
        kmeans_residuals(A, linalg.kmeans(ctx, spread(A), 3, spread(A[:3].copy()), tol=0.0), exact, 1e-9),
    )


@case
def kmeans_empty_clusters() -> Iterator[tuple[str, Any]]:
    A = rng().standard_normal((60, 3))
    far = np.concatenate([A[:2], np.full((2, 3), 1e3)])
    exact = KMeans(4, init=far, n_init=1, tol=0).fit(A)
    found = linalg.kmeans(ctx, spread(A), 4, spread(far), tol=0.0)
    yield "two far centres", kmeans_residuals(A, found, exact, 1e-13)
    few = np.repeat(rng().standard_normal((3, 2)), 5, axis=0)
    for init in ("k-means++", "k-means||"):
        found = linalg.kmeans(ctx, spread(few), 5, init)
        yield (
            f"fewer places than clusters, {init}",
            flag(found["inertia"] < 1e-25 and np.isfinite(found["centers"].local).all()),
        )
    found = linalg.kmeans(ctx, spread(few[:5].copy()), 5)
    yield "all samples in one place", flag(found["inertia"] < 1e-25)
    own = rng().standard_normal((6, 2))
    found = linalg.kmeans(ctx, spread(own), 6)
    labels = found["labels"].to_global()[:, 0]
    yield "as many as samples", flag(found["inertia"] < 1e-25 and sorted(labels) == list(range(6)))
    one = linalg.kmeans(ctx, spread(own), 1)
    yield "one", relative(one["centers"].to_global()[0], own.mean(0), 1e-14)


@case
def kmeans_scales() -> Iterator[tuple[str, Any]]:
    """Squares of the samples, or of far centres, would underflow or overflow."""
    A, truth = make_blobs(60, 3, centers=3, cluster_std=0.3, random_state=2)
    first = [int(np.argmax(truth == each)) for each in range(3)]
    exact = KMeans(3, init=A[first], n_init=1, tol=0).fit(A)
    scales = [("float64", e) for e in (-1040, -560, 515, 1010)] + [("float32", e) for e in (-145, -80, 70, 120)]
    for (dtype, exponent), stored in dealt(zip(scales, [spread, sparse] * 4, strict=True), (1, 3)):
        X = np.ldexp(A.astype(dtype), exponent)
        found = linalg.kmeans(ctx, stored(X), 3, spread(X[first]), tol=0.0)
        labels = found["labels"].to_global()
        centers = np.ldexp(found["centers"].to_global(), -exponent)
        yield (
            f"{dtype} 2^{exponent}",
            {
                "labels": flag((labels[:, 0] == exact.labels_).all()),
                # the smallest numbers of both types have only a few bits
                "centers": relative(centers, exact.cluster_centers_, 1e-6 if exponent > -145 else 1e-1),
                "predicted": flag(
                    (linalg.kmeans_predict(ctx, stored(X), found["centers"]).to_global() == labels).all()
                ),
            },
        )
        for init in ("k-means++", "k-means||"):
            seeded = linalg.kmeans(ctx, stored(X), 3, init, n_init=3)["labels"].to_global()[:, 0]
            pairs = {tuple(pair) for pair in np.c_[seeded, exact.labels_].tolist()}
            yield f"{dtype} 2^{exponent} {init}", flag(len(pairs) == 3)
    inertia = linalg.kmeans(ctx, spread(np.ldexp(A, 400)), 3, spread(np.ldexp(A[first], 400)), tol=0.0)["inertia"]
    yield "inertia", abs(np.ldexp(inertia, -800) / exact.inertia_ - 1) / 1e-12
    far = np.r_[np.ldexp(A[:1], -900), np.full((1, 3), 1e300)]
    labels = linalg.kmeans_predict(ctx, spread(np.ldexp(A, -900)), spread(far)).to_global()
    yield "a centre far away", flag(not labels.any())


@case
def kmeans_seeding() -> Iterator[tuple[str, Any]]:
    """As good as scikit-learn, and the same on any number of ranks: the test compares the results of `seeds`."""
    A, truth = make_blobs(600, 8, centers=12, cluster_std=0.7, random_state=3)
    exact, noise = KMeans(12, n_init=10, random_state=0).fit(A).inertia_, rng().standard_normal((90, 4))
    for init in ("k-means++", "k-means||"):
        found = linalg.kmeans(ctx, spread(A), 12, init, n_init=5)
        yield f"{init} finds the blobs", flag(found["inertia"] <= 1.001 * exact)
        pairs = {tuple(pair) for pair in np.c_[truth, found["labels"].to_global()[:, 0]].tolist()}
        yield f"{init} labels", flag(len(pairs) == 12)
        again = linalg.kmeans(ctx, spread(A, "MC_MR", 3), 12, init, n_init=5)
        yield f"{init} again", flag((again["labels"].to_global() == found["labels"].to_global()).all())
        one, other = (linalg.kmeans(ctx, spread(noise), 12, init, seed=seed, max_iter=1) for seed in (1, 2))
        yield f"{init} depends on the seed", flag(one["inertia"] != other["inertia"])


@case
def seeds() -> Iterator[tuple[str, Any]]:
    A = rng().standard_normal((301, 6))
    for init in ("k-means++", "k-means||"):
        found = linalg.kmeans(ctx, spread(A), 9, init, seed=5)
        yield f"{init} labels", zlib.crc32(found["labels"].to_global().tobytes())
        yield f"{init} iterations", found["n_iter"]
    Z = linalg.random_features(ctx, spread(A), 300, seed=5).to_global()
    yield "random features", np.round(np.abs(Z).sum(), 6)


# --- ridge regression and random features -----------------------------------------------------------------------------


def ridge_residuals(A: Array, B: Array, found: dict[str, Any], reg_param: float, tol: float) -> dict[str, float]:
    wide = np.result_type(A.dtype, B.dtype)
    exact = "complex128" if wide.kind == "c" else "float64"
    a, b, x = A.astype(exact), B.astype(exact), found["coef"].to_global().astype(exact)
    left = a.conj().T @ a + len(a) * reg_param * np.eye(a.shape[1])
    right = a.conj().T @ b
    true = np.linalg.norm(right - left @ x, axis=0) / np.linalg.norm(right, axis=0)
    rounding = np.linalg.norm(left, 2) * np.linalg.norm(x, axis=0) / np.linalg.norm(right, axis=0) * eps(wide) * 10
    reported = found["residuals"]
    return {
        "true residual": 30 * float(np.max(true / (tol + rounding))),
        "reported residual": float(np.max(np.abs(reported[-1] - true) / (0.1 * tol + rounding))),
        "history": flag(reported.shape == (found["n_iter"] + 1, B.shape[1]) and np.allclose(reported[0], 1)),
        "converged": flag(found["converged"]),
        "types": flag(found["coef"].dtype == wide and found["coef"].shape == (A.shape[1], B.shape[1])),
        "alike": same_everywhere(reported),
    }


@case
def ridge() -> Iterator[tuple[str, Any]]:
    types = (("float64", 1e-10), ("float32", 1e-4), ("complex128", 1e-10), ("complex64", 1e-4))
    for dtype, tol in types:
        A, B = rng().standard_normal((90, 14)), rng(8).standard_normal((90, 5))
        if dtype.startswith("complex"):
            A, B = A + 1j * rng(9).standard_normal(A.shape), B + 1j * rng(10).standard_normal(B.shape)
        A, B = A.astype(dtype), B.astype(dtype)
        for number, (pair, block) in dealt(enumerate(LAYOUTS if dtype == "float64" else LAYOUTS[:3])):
            other = LAYOUTS[(number + 1) % len(LAYOUTS)]
            found = linalg.ridge_cg(ctx, spread(A, pair, block), spread(B, *other), 1e-2, tol)
            yield f"{pair} {block} {dtype}", ridge_residuals(A, B, found, 1e-2, tol)
        wide = A[:10].T.copy()[:9]
        found = linalg.ridge_cg(ctx, spread(wide), spread(B[:9].copy()), 1e-2, tol)
        yield f"more unknowns than rows {dtype}", ridge_residuals(wide, B[:9], found, 1e-2, tol)
        S = with_zeros(80, 20, 0.2, dtype) + (1j * with_zeros(80, 20, 0.2) if dtype.startswith("complex") else 0)
        S = S.astype(dtype)
        found = linalg.ridge_cg(ctx, sparse(S), spread(B[:80].copy()), 1e-3, tol)
        yield f"sparse {dtype}", ridge_residuals(S, B[:80], found, 1e-3, tol)
    A, B = rng().standard_normal((70, 6)), rng(8).standard_normal((70, 3))
    for alpha in (0.5, 20.0):
        exact = Ridge(alpha, fit_intercept=False, solver="cholesky").fit(A, B).coef_.T
        found = linalg.ridge_cg(ctx, spread(A), spread(B), alpha / 70, 1e-13)
        yield f"scikit-learn, alpha {alpha}", relative(found["coef"].to_global(), exact, 1e-12)
    exact = np.linalg.lstsq(A, B, rcond=None)[0]
    found = linalg.ridge_cg(ctx, spread(A), spread(B), 0.0, 1e-13)
    yield "least squares", relative(found["coef"].to_global(), exact, 1e-12)
    mixed = linalg.ridge_cg(ctx, spread(A.astype("float32")), spread(B), 0.1, 1e-8)
    yield "mixed types", ridge_residuals(A.astype("float32").astype(float), B, mixed, 0.1, 1e-8)
    B[:, 1] = 0
    zero = linalg.ridge_cg(ctx, spread(A), spread(B), 0.1)
    yield "a right-hand side of zeros", flag(not zero["coef"].to_global()[:, 1].any() and zero["converged"])


@case
def ridge_hard() -> Iterator[tuple[str, Any]]:
    """Ill-conditioned equations: `converged` is False if tol is not reached, and the reported residuals are true."""
    H = scipy.linalg.hilbert(40)[:, :15].copy()
    B = rng().standard_normal((40, 2))
    found = linalg.ridge_cg(ctx, spread(H), spread(B), 1e-9, 1e-9, 400)
    yield "Hilbert", ridge_residuals(H, B, found, 1e-9, 1e-9)
    few = linalg.ridge_cg(ctx, spread(H), spread(B), 1e-12, 1e-12, 2)
    yield "two iterations", flag(not few["converged"] and few["n_iter"] == 2 and few["residuals"][-1].max() > 1e-12)
    single = linalg.ridge_cg(ctx, spread(H.astype("float32")), spread(B.astype("float32")), 1e-6, 1e-12, 200)
    yield "more than float32 has", flag(not single["converged"] and 1e-9 < single["residuals"][-1].max() < 1e-3)
    A, B = rng().standard_normal((50, 6)), rng(3).standard_normal((50, 2))
    exact = np.linalg.lstsq(A, B, rcond=None)[0]
    for dtype, a, b in (
        ("float64", -700, -500),
        ("float64", 520, 900),
        ("float64", -1040, -1040),
        ("float32", -90, -60),
    ):
        scaled = np.ldexp(A.astype(dtype), a), np.ldexp(B.astype(dtype), [b, b + 20])
        found = linalg.ridge_cg(ctx, *map(spread, scaled), 0.0, 1e-5 if dtype == "float32" else 1e-12)
        coef = np.ldexp(found["coef"].to_global(), [a - b, a - b - 20])
        unit = 1e-5 if dtype == "float32" else 1e-12 if a > -1040 else 1e-7
        yield f"{dtype} 2^{a} 2^{b}", {"coef": relative(coef, exact, unit), "converged": flag(found["converged"])}
    small = linalg.ridge_cg(ctx, spread(np.ldexp(A, -700)), spread(B), 1.0, 1e-12)
    exact = np.ldexp(A.T @ B / 50, -700)
    yield "a shift that is all", relative(np.ldexp(small["coef"].to_global(), 700), np.ldexp(exact, 700), 1e-12)
    apart = linalg.ridge_cg(ctx, spread(A), spread(B * [1, 1e-200]), 1e-2, 1e-10)["coef"].to_global()
    alike = linalg.ridge_cg(ctx, spread(A), spread(B), 1e-2, 1e-10)["coef"].to_global()
    yield "columns of different scales", relative(apart * [1, 1e200], alike, 1e-9)
    deficient = np.repeat(rng().standard_normal((50, 3)), 2, axis=1)
    found = linalg.ridge_cg(ctx, spread(deficient), spread(rng(3).standard_normal((50, 2))), 0.0, 1e-10)
    exact = np.linalg.lstsq(deficient, rng(3).standard_normal((50, 2)), rcond=None)[0]
    yield "rank-deficient, the shortest solution", relative(found["coef"].to_global(), exact, 1e-10)


@case
def features() -> Iterator[tuple[str, Any]]:
    A = rng().standard_normal((60, 7))
    kernel = rbf_kernel(A, gamma=1 / (2 * 2.5**2))
    for dtype in ("float64", "float32"):
        first = None
        for pair, block in LAYOUTS if dtype == "float64" else LAYOUTS[1:3]:
            Z = linalg.random_features(ctx, spread(A.astype(dtype), pair, block), 4000, 2.5, seed=1).to_global()
            # the error of an entry has a deviation of at most 1 / sqrt(D)
            yield f"kernel {pair} {block} {dtype}", 5 * np.abs(Z @ Z.T - kernel).max() * math.sqrt(4000)
            first = Z if first is None else first
            yield f"the same {pair} {block} {dtype}", float(np.abs(Z - first).max() / (100 * eps(dtype)))
        yield f"type {dtype}", flag(first is not None and first.dtype == dtype and first.shape == (60, 4000))
    some = linalg.random_features(ctx, spread(A), 300, 2.5, seed=1).to_global() * math.sqrt(300)
    more = linalg.random_features(ctx, spread(A), 700, 2.5, seed=1).to_global() * math.sqrt(700)
    yield "the first do not depend on the number", float(np.abs(more[:, :300] - some).max() / 1e-13)
    other = linalg.random_features(ctx, spread(A), 300, 2.5, seed=2).to_global() * math.sqrt(300)
    yield "the seed", flag(np.abs(other - some).max() > 0.1)
    S = with_zeros(40, 7, 0.3)
    difference = (
        linalg.random_features(ctx, sparse(S), 50).to_global() - linalg.random_features(ctx, spread(S), 50).to_global()
    )
    yield "sparse", float(np.abs(difference).max() / 1e-14)


@case
def random_feature_ridge() -> Iterator[tuple[str, Any]]:
    A = rng().uniform(-2, 2, (140, 3))
    B = np.c_[np.sin(A.sum(1)), A[:, 0] * A[:, 1]]
    for dtype, tol in (("float64", 1e-8), ("float32", 1e-4)):
        X, Y = A.astype(dtype), B.astype(dtype)
        Z = linalg.random_features(ctx, spread(X), 90, 1.5, seed=4).to_global()
        for store, (pair, block) in zip((None, True, False, False), LAYOUTS, strict=False):
            D = spread(X, pair, block)
            found = linalg.rf_ridge(ctx, D, spread(Y), 90, 1.5, 1e-2, tol, seed=4, store=store)
            yield f"{store} {pair} {block} {dtype}", ridge_residuals(Z, Y, found, 1e-2, tol)
        predicted = linalg.rf_predict(ctx, spread(X, "MC_MR", 3), found["coef"], 1.5, 4).to_global()
        yield f"prediction {dtype}", relative(predicted, Z @ found["coef"].to_global(), 100 * eps(dtype))
    kernel = KernelRidge(alpha=1e-2 * 140, kernel="rbf", gamma=1 / (2 * 1.5**2)).fit(A, B)
    found = linalg.rf_ridge(ctx, spread(A), spread(B), 2000, 1.5, 1e-2, 1e-4, seed=4)
    apart = linalg.rf_predict(ctx, spread(A), found["coef"], 1.5, 4).to_global() - kernel.predict(A)
    yield "kernel ridge regression", float(np.linalg.norm(apart) / np.linalg.norm(B)) / 1e-3
    full = TaskContext(comm, "linalg.case", allocate=_small_room)
    found = linalg.rf_ridge(full, spread(A), spread(B), 90, 1.5, 1e-3, seed=4)
    Z = linalg.random_features(ctx, spread(A), 90, 1.5, seed=4).to_global()
    yield "no room for the features", ridge_residuals(Z, B, found, 1e-3, 1e-6)
    yield (
        "no room, but asked for",
        flag(
            any(
                text.startswith("MatrixMemoryError")
                for text in raised(linalg.rf_ridge, spread(A), spread(B), 90, store=True, context=full)
            )
        ),
    )


def _small_room(shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    if comm.rank == comm.size - 1 and shape[1] == 90:
        raise MatrixMemoryError(shape[0] * shape[1] * dtype.itemsize, 100, 100)
    return np.empty(shape, dtype)


# --- CX ---------------------------------------------------------------------------------------------------------------


def cx_residuals(A: Array, found: tuple[Array, DistMatrix, DistMatrix], k: int, count: int) -> dict[str, float]:
    indices, C, X = found
    c, x = C.to_global(), X.to_global()
    wide = "complex128" if A.dtype.kind == "c" else "float64"
    nearest = np.linalg.norm(A - c.astype(wide) @ np.linalg.lstsq(c.astype(wide), A.astype(wide), rcond=1e-10)[0])
    mine = np.linalg.norm(A - c.astype(wide) @ x)
    return {
        "columns of A": flag((c == A[:, indices]).all()),
        "indices": flag(len(set(indices.tolist())) == count and (np.diff(indices) > 0).all()),
        "nearest": float((mine - nearest) / (np.linalg.norm(A) * eps(A.dtype) * max(A.shape))),
        "types": flag(c.dtype == x.dtype == A.dtype and x.shape == (count, A.shape[1])),
        "alike": same_everywhere(indices),
    }


def _nearly_low_rank(shape: tuple[int, int], dtype: str) -> Array:
    m, n = shape
    A = (rng().standard_normal((m, 6)) * 3.0 ** -np.arange(6)) @ rng(5).standard_normal((6, n))
    A = A + 1e-3 * rng(6).standard_normal((m, n))
    return (A + 1j * rng(3).permutation(A) if dtype.startswith("complex") else A).astype(dtype)


@case
def cx() -> Iterator[tuple[str, Any]]:
    types, methods = ("float64", "float32", "complex128", "complex64"), ("leverage", "deterministic", "deterministic")
    matrices = itertools.product(types, ((80, 30), (25, 60)), (0, 1))
    combined = zip(matrices, itertools.cycle(LAYOUTS), itertools.cycle([*methods, "leverage"]), strict=False)
    for (dtype, shape, _), (pair, block), method in dealt(combined):
        A = _nearly_low_rank(shape, dtype)
        found = linalg.cx(ctx, spread(A, pair, block), 4, 8, method)
        yield f"{shape} {pair} {block} {method} {dtype}", cx_residuals(A, found, 4, 8)
    for dtype, shape in dealt(itertools.product(types, ((80, 30), (25, 60)))):
        A = _nearly_low_rank(shape, dtype)
        scores = linalg.leverage_scores(ctx, spread(A, "MC_MR", 3), 4)
        V = np.linalg.svd(A.astype("complex128"))[2][:4]
        yield f"scores {shape} {dtype}", relative(scores, np.sum(np.abs(V) ** 2, 0), 100 * eps(dtype))
    A = with_zeros(120, 50, 0.1)
    yield "sparse", cx_residuals(A, linalg.cx(ctx, sparse(A), 5, 20), 5, 20)
    yield "all columns", cx_residuals(A[:, :6].copy(), linalg.cx(ctx, spread(A[:, :6].copy()), 6), 6, 6)
    twice = np.repeat(rng().standard_normal((40, 5)), 3, axis=1)
    found = linalg.cx(ctx, spread(twice), 5, 15)
    yield "every column three times", cx_residuals(twice, found, 5, 15)
    yield "zero", flag(not linalg.cx(ctx, spread(np.zeros((4, 3))), 1, 2)[2].to_global().any())
    yield "one by one", cx_residuals(np.full((1, 1), 3.0), linalg.cx(ctx, spread(np.full((1, 1), 3.0)), 1), 1, 1)
    ratios = []
    for seed in dealt(range(20)):
        A = (
            rng(seed).standard_normal((60, 40))
            * 0.85 ** np.arange(40)
            @ np.linalg.qr(rng(seed + 50).standard_normal((40, 40)))[0]
        )
        _, C, X = linalg.cx(ctx, spread(A), 5, 20, seed=seed)
        best = np.sqrt(np.sum(np.linalg.svd(A, compute_uv=False)[5:] ** 2))
        ratios.append(np.linalg.norm(A - C.to_global() @ X.to_global()) / best)
    yield "near the best approximation", 30 * float(np.median(ratios)) / 1.1


# --- norms ------------------------------------------------------------------------------------------------------------


@case
def norms() -> Iterator[tuple[str, Any]]:
    orders = (1, -1, 2, -2, math.inf, -math.inf, "inf", "-inf", "fro", "nuc")
    types = ("float64", "float32", "complex128", "complex64", "int32", "int64", "bool")
    matrices = itertools.product(types, ((17, 6), (5, 20), (1, 1)))
    for (dtype, (m, n)), (pair, block) in dealt(zip(matrices, itertools.cycle(LAYOUTS), strict=False)):
        A = rng().integers(-9, 9, (m, n)) + (1j * rng(4).integers(-9, 9, (m, n)) if "complex" in dtype else 0)
        A = A.astype(dtype)
        exact = A.astype(complex if "complex" in dtype else float)
        unit = 10 * eps(dtype if A.dtype.kind in "fc" else float) * max(np.linalg.norm(exact), 1)
        D, label = spread(A, pair, block), f"{m}x{n} {pair} {block} {dtype}"
        for order in orders if m == 17 else (-1, -math.inf, "nuc"):
            truth = np.linalg.norm(exact, float(order) if "inf" in str(order) else order)
            yield f"{order} {label}", abs(linalg.norm(ctx, D, order) - truth) / unit
        yield from _vector_norms(D, exact, label, (0, 1))
    for pair, block in dealt(LAYOUTS):
        A = rng().standard_normal((9, 14))
        D = spread(A, pair, block)
        yield from _vector_norms(D, A, f"{pair} {block}", (-1, -2))
        for order in (-1, -math.inf, 2, -2):
            error = abs(linalg.norm(ctx, D, order) - np.linalg.norm(A, order))
            yield f"{order} {pair} {block}", error / (10 * eps(float) * np.linalg.norm(A))
    S = with_zeros(30, 12, 0.3)
    for order in orders:
        exact = np.linalg.norm(S, float(order) if "inf" in str(order) else order)
        yield f"sparse {order}", abs(linalg.norm(ctx, sparse(S), order) - exact) / 1e-13
    yield from _vector_norms(sparse(S), S, "sparse", (0, 1))


def _vector_norms(
    D: DistMatrix | SparseDistMatrix, exact: Array, label: str, axes: tuple[int, ...]
) -> Iterator[tuple[str, Any]]:
    for axis in axes:
        for order, word in ((2 if axis else "fro", 2), (1, 1), (math.inf if axis else "max", math.inf)):
            found = linalg.norm(ctx, D, order, axis)
            truth = np.linalg.norm(exact, word, axis, keepdims=True)
            yield f"{order} along {axis} {label}", relative(found.to_global(), truth, eps(float))


@case
def extreme_norms() -> Iterator[tuple[str, Any]]:
    A = rng().uniform(1, 2, (20, 6)) * 10.0 ** np.array([-300, -100, 0, 100, 200, 300])
    exact = np.array([[math.hypot(*column) for column in A.T]])
    for pair, block in LAYOUTS:
        found = linalg.norm(ctx, spread(A, pair, block), 2, 0).to_global()
        yield f"graded columns {pair}", float(np.abs(found / exact - 1).max() / 1e-15)
        rows = linalg.norm(ctx, spread(A.T.copy(), pair, block), 2, 1).to_global()
        yield f"graded rows {pair}", float(np.abs(rows.T / exact - 1).max() / 1e-15)
        bad = A.copy()
        bad[3, 2], bad[7, 4], bad[:, 5] = np.nan, np.inf, 0
        for order, empty in ((2, 0.0), (1, 0.0), (math.inf, 0.0)):
            row = linalg.norm(ctx, spread(bad, pair, block), order, 0).to_global()[0]
            fine = np.isnan(row[2]) and row[4] == np.inf and row[5] == empty and np.isfinite(row[[0, 1, 3]]).all()
            yield f"NaN and Inf in {order} {pair}", flag(fine)
        yield f"smallest sum {pair}", flag(math.isnan(linalg.norm(ctx, spread(bad, pair, block), -1)))
    found = linalg.norm(ctx, sparse(A), 2, 0).to_global()
    yield "graded sparse", float(np.abs(found / exact - 1).max() / 1e-15)
    found = linalg.norm(ctx, sparse(A.T.copy()), 2, 1).to_global()
    yield "graded sparse rows", float(np.abs(found.T / exact - 1).max() / 1e-15)
    for power in (1e200, 1e-200):
        B = rng().standard_normal((12, 5))
        for order in (2, -2, "nuc"):
            truth = np.linalg.norm(B, order) * power
            yield f"{order} of {power}", abs(linalg.norm(ctx, spread(B * power), order) / truth - 1) / 1e-14
    for order in (1, -1, 2, -2, math.inf, "fro", "nuc", "max"):
        yield f"nothing {order}", flag(linalg.norm(ctx, spread(np.zeros((0, 3))), order) == 0)


# --- errors -----------------------------------------------------------------------------------------------------------


@case
def errors() -> Iterator[tuple[str, Any]]:
    A = rng().standard_normal((20, 6))
    bad = A.copy()
    bad[-1, -1] = np.nan
    D, B, N, Z = spread(A), spread(A[:, :2].copy()), spread(bad), spread(A.astype(complex))
    yield "pca k", raised(linalg.pca, D, 7)
    yield "pca one sample", raised(linalg.pca, spread(A[:1].copy()))
    yield "pca NaN", raised(linalg.pca, N)
    yield "pca complex", raised(linalg.pca, Z)
    yield "pca int", raised(linalg.pca, spread(A.astype("int64")))
    yield "kmeans clusters", raised(linalg.kmeans, D, 21)
    yield "kmeans init", raised(linalg.kmeans, D, 2, "random")
    yield "kmeans init shape", raised(linalg.kmeans, D, 3, B)
    yield "kmeans n_init", raised(linalg.kmeans, D, 3, n_init=0)
    yield "kmeans tol", raised(linalg.kmeans, D, 3, tol=math.nan)
    yield "kmeans NaN", raised(linalg.kmeans, N, 3)
    yield "kmeans init NaN", raised(linalg.kmeans, D, 20, N)
    yield "kmeans complex", raised(linalg.kmeans, Z, 3)
    yield "kmeans seed", raised(linalg.kmeans, D, 3, seed=-1)
    yield "predict shape", raised(linalg.kmeans_predict, D, B)
    yield "ridge rows", raised(linalg.ridge_cg, D, spread(A[:5].copy()))
    yield "ridge lambda", raised(linalg.ridge_cg, D, B, -1.0)
    yield "ridge tol", raised(linalg.ridge_cg, D, B, tol=0.0)
    yield "ridge NaN", raised(linalg.ridge_cg, N, B)
    yield "ridge int", raised(linalg.ridge_cg, D, spread(A.astype("int64")))
    yield "ridge nothing", raised(linalg.ridge_cg, D, spread(np.zeros((20, 0))))
    yield "features count", raised(linalg.random_features, D, 0)
    yield "features sigma", raised(linalg.random_features, D, 5, 0.0)
    yield "features seed", raised(linalg.random_features, D, 5, seed=-1)
    yield "rf complex", raised(linalg.rf_ridge, Z, B, 5)
    yield "rf NaN", raised(linalg.rf_ridge, N, B, 5)
    yield "rf predict NaN", raised(linalg.rf_predict, N, B)
    yield "cx k", raised(linalg.cx, D, 0)
    yield "cx columns", raised(linalg.cx, D, 3, 2)
    yield "cx method", raised(linalg.cx, D, 3, 4, "best")
    yield "cx NaN", raised(linalg.cx, N, 3)
    yield "norm ord", raised(linalg.norm, D, 3)
    yield "norm vector ord", raised(linalg.norm, D, "nuc", 0)
    yield "norm axis", raised(linalg.norm, D, 2, 2)
    yield "norm NaN", raised(linalg.norm, N, 2)
    yield "afterwards", raised(linalg.pca, D)


if __name__ == "__main__":
    main(sys.argv[1:])
