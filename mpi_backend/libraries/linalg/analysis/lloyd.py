"""k-means clustering by Lloyd's iteration.

Each sample is assigned to the nearest centre, and each centre moves to the mean of its samples, until neither changes.
Distances are computed by products (:mod:`.clustering`); :mod:`.seeding` chooses the first centres. The ranks exchange
only centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.analysis.clustering import Clustering
from alchemist_ray.mpi_backend.libraries.linalg.analysis.samples import Samples, require_real, samples_of
from alchemist_ray.mpi_backend.libraries.linalg.analysis.seeding import plus_plus, scalable
from alchemist_ray.mpi_backend.libraries.linalg.scaling import safe_factor

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

_SEEDINGS = {"k-means++": plus_plus, "k-means||": scalable}


@task
def kmeans(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    n_clusters: int,
    init: Literal["k-means++", "k-means||"] | DistMatrix = "k-means++",
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
    seed: int = 0,
) -> dict[str, Any]:
    """Cluster samples by k-means.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (n_samples, n_features)
        The samples in rows, float32 or float64.
    n_clusters : int
        Number of clusters, at most n_samples.
    init : str or DistMatrix, shape (n_clusters, n_features)
        The first centres, or the method that chooses them: ``"k-means++"`` one after the other, ``"k-means||"`` in five
        rounds, which is faster for many clusters.
    n_init : int
        Number of starts; the clustering with the smallest inertia is returned. Ignored if `init` is a matrix.
    max_iter : int
        Largest number of iterations for each start.
    tol : float
        The iteration ends when the sum of squared moves of the centres is at most `tol` times the mean variance of the
        features, or when no sample changes its cluster.
    seed : int
        Seed of all random choices. Apart from rounding, the same seed gives the same result on any number of workers.

    Returns
    -------
    dict
        Named after scikit-learn:

        - ``labels``: DistMatrix of int32, shape (n_samples, 1), in VC_STAR: the cluster of each sample.
        - ``centers``: DistMatrix, shape (n_clusters, n_features), the mean of each cluster.
        - ``inertia``: float, the sum of squared distances of the samples to their centres.
        - ``n_iter``: int, number of iterations.

    Raises
    ------
    ArgumentError
        If a matrix is not float32 or float64.
    ArgumentValueError
        If n_clusters, n_init, max_iter, tol or seed is out of range, or init is unknown or of the wrong shape.
    NonFiniteError
        If a matrix contains NaN or Inf.

    Notes
    -----
    For m samples of n features and k clusters, an iteration takes 2mnk operations and two passes over A. Before that,
    k-means++ takes (2 + log k) times as much as an iteration, and k-means|| about 20 times. An empty cluster gets the
    sample that is farthest from its centre. Memory: a copy of A if it is not in VC_STAR with one run of rows per rank,
    or if squares of its elements would overflow or underflow; three numbers per sample; on each rank some copies of the
    centres, and with k-means|| of 10k candidates.

    Source: S. Lloyd, IEEE Trans. Inf. Theory 28 (1982), 129; stopping rules and empty clusters as in scikit-learn.
    """
    require_real(ctx, A=A)
    _check(ctx, A, n_clusters, init, n_init, max_iter, tol, seed)
    checks.require_finite(ctx, A=A)
    samples = samples_of(A)
    given = None if isinstance(init, str) else init.to_global().astype(np.float64)
    factor = _safe_factor(samples, given)
    clustering = Clustering(samples.scaled(factor))
    threshold = tol * clustering.variance
    runs = n_init if isinstance(init, str) else 1

    def first(run: int) -> Doubles:
        if isinstance(init, str):
            return _SEEDINGS[init](clustering, n_clusters, np.random.default_rng([seed, run]))
        return np.asarray(given) * factor

    fits = (_lloyd(ctx, clustering, first(run), max_iter, threshold, (run, runs)) for run in range(runs))
    best = min(fits, key=lambda fit: fit.inertia)
    ctx.progress(1, 1, "done")
    return {
        "labels": _column(ctx, samples, best.labels),
        "centers": checks.replicated(ctx, (best.centres / factor).astype(A.dtype), "MC_MR"),
        "inertia": best.inertia / factor / factor,
        "n_iter": best.iterations,
    }


@task
def kmeans_predict(ctx: TaskContext, A: DistMatrix | SparseDistMatrix, centers: DistMatrix) -> DistMatrix:
    """Return the nearest centre of each sample.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (n_samples, n_features)
        The samples in rows, float32 or float64.
    centers : DistMatrix, shape (n_clusters, n_features)
        Centres, as :func:`kmeans` returns them.

    Returns
    -------
    labels : DistMatrix of int32, shape (n_samples, 1)
        In VC_STAR.

    Raises
    ------
    ArgumentError
        If a matrix is not float32 or float64.
    ArgumentValueError
        If the centres have a different number of features than A, or there are no centres.
    NonFiniteError
        If a matrix contains NaN or Inf.

    Notes
    -----
    2 n_samples n_features n_clusters operations; memory as in :func:`kmeans`.
    """
    require_real(ctx, A=A, centers=centers)
    if centers.shape[1] != A.shape[1] or 0 in (*centers.shape, A.shape[0]):
        raise ArgumentValueError(
            ctx.task,
            f"A is {A.shape[0]}x{A.shape[1]}, centers is {centers.shape[0]}x{centers.shape[1]}: both must "
            "have rows, and the same number of columns",
        )
    checks.require_finite(ctx, A=A, centers=centers)
    samples = samples_of(A)
    given = centers.to_global().astype(np.float64)
    factor = _safe_factor(samples, given)
    clustering = Clustering(samples.scaled(factor))
    clustering.assign(given * factor)
    return _column(ctx, samples, clustering.labels)


@dataclass(frozen=True)
class _Fit:
    """The result of one start; `labels` are those of this rank's samples."""

    centres: Doubles
    labels: Array
    inertia: float
    iterations: int


def _check(
    ctx: TaskContext,
    A: DistMatrix | SparseDistMatrix,
    n_clusters: int,
    init: str | DistMatrix,
    n_init: int,
    max_iter: int,
    tol: float,
    seed: int,
) -> None:
    """Check the arguments of :func:`kmeans`. Collective over comm."""
    m, n = A.shape
    if not 1 <= n_clusters <= m or n == 0:
        raise ArgumentValueError(
            ctx.task, f"n_clusters must lie in 1..{m}, the number of samples of a {m}x{n} matrix, but is {n_clusters}"
        )
    if n_init < 1 or max_iter < 1 or not tol >= 0 or seed < 0:
        raise ArgumentValueError(
            ctx.task,
            "n_init and max_iter must be at least 1, tol and seed not negative, but they are "
            f"{n_init}, {max_iter}, {tol} and {seed}",
        )
    if isinstance(init, str):
        if init not in _SEEDINGS:
            raise ArgumentValueError(
                ctx.task, f"init must be {' or '.join(map(repr, _SEEDINGS))} or a matrix, but is {init!r}"
            )
        return
    require_real(ctx, init=init)
    if init.shape != (n_clusters, n):
        raise ArgumentValueError(
            ctx.task, f"init must be {n_clusters}x{n}, a row for each centre, but is {init.shape[0]}x{init.shape[1]}"
        )
    checks.require_finite(ctx, init=init)


def _safe_factor(samples: Samples, centres: Doubles | None) -> float:
    """Return a power of two for which squared distances neither overflow nor underflow. Collective over comm.

    It is the factor for the samples, or a smaller one if that would make distances to the given centres overflow.
    """
    factor = safe_factor(samples.comm, samples.elements)
    if centres is None:
        return factor
    room = int(np.finfo(samples.dtype).maxexp) // 4 - math.frexp(float(np.abs(centres).max()))[1]
    return min(factor, math.ldexp(1.0, min(room, 1022)))


def _lloyd(
    ctx: TaskContext, clustering: Clustering, centres: Doubles, max_iter: int, threshold: float, run: tuple[int, int]
) -> _Fit:
    """Run Lloyd's iteration from the given first centres. Collective over comm."""
    clustering.labels[:] = -1
    iterations, settled = 0, False
    while iterations < max_iter:
        iterations += 1
        ctx.check_cancelled()
        settled = not clustering.assign(centres)
        if settled:
            break
        moved = clustering.means(centres)
        shift = float(np.sum((moved - centres) ** 2))
        centres = moved
        ctx.progress(
            run[0] + iterations / max_iter, run[1], f"k-means, start {run[0] + 1}, iteration {iterations}, {shift:.1e}"
        )
        if shift <= threshold:
            break
    if not settled:
        clustering.assign(centres)
    return _Fit(centres, clustering.labels.copy(), clustering.inertia(centres), iterations)


def _column(ctx: TaskContext, samples: Samples, labels: Array) -> DistMatrix:
    """Return a column matrix; each rank passes the entries of its samples. Collective over comm."""
    layout = Layout("VC_STAR", samples.layout.grid, (samples.layout.block[0], 1))
    column = checks.allocated(ctx, (samples.shape[0], 1), np.int32, layout)
    column.local[:, 0] = labels
    return column
