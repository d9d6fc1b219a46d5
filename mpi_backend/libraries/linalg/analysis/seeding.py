"""The first centres of k-means: k-means++ and k-means||.

Both draw samples with probabilities proportional to their squared distances to the centres so far. All ranks draw the
same random numbers. A number either picks a sample from the running sum of the distances of all samples in their order,
or comes from a stream with one number for each sample. So, apart from rounding of the distances, the choice does not
depend on the number of ranks.

Sources: D. Arthur, S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007 (with the best of
several draws, as in scikit-learn); B. Bahmani et al., *Scalable k-means++*, PVLDB 5 (2012), 622, algorithm 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.libraries.linalg.analysis.clustering import Clustering
from alchemist_ray.mpi_backend.libraries.linalg.analysis.samples import Samples

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

_ROUNDS = 5
_OVERSAMPLING = 2
_LLOYD = 20
"""Iterations on the weighted candidates of k-means||."""


def plus_plus(clustering: Clustering, k: int, rng: np.random.Generator) -> Doubles:
    """Return `k` samples that are far apart, on every rank; each is the best of some draws.

    Collective over comm; `rng` must be in the same state on every rank.
    """
    trials = 2 + int(math.log(k))
    centres = np.empty((k, clustering.samples.shape[1]))
    centres[0] = clustering.rows(_drawn(clustering, clustering.weights, rng.random(1)))[0]
    nearest = _to_each(clustering, centres[:1])[:, 0]
    for count in range(1, k):
        candidates = clustering.rows(_drawn(clustering, nearest * clustering.weights, rng.random(trials)))
        distances = np.minimum(_to_each(clustering, candidates), nearest[:, np.newaxis])
        sums = clustering.weights @ distances
        clustering.samples.comm.Allreduce(MPI.IN_PLACE, sums)
        best = clustering.samples.comm.bcast(int(sums.argmin()))
        centres[count], nearest = candidates[best], distances[:, best].copy()
    return centres


def scalable(clustering: Clustering, k: int, rng: np.random.Generator) -> Doubles:
    """Return `k` centres that are far apart, on every rank, from many samples drawn at once. Collective over comm.

    Each of five rounds draws about 2k samples. These candidates are then clustered; the weight of a candidate is the
    number of samples for which it is the nearest.
    """
    samples, comm = clustering.samples, clustering.samples.comm
    candidates = clustering.rows(_drawn(clustering, clustering.weights, rng.random(1)))
    nearest = _to_each(clustering, candidates)[:, 0]
    for _ in range(_ROUNDS):
        cost = clustering.sum(float(nearest.sum()))
        draws = _stream(samples, int(rng.integers(2**63)))
        taken = np.flatnonzero(draws * cost < _OVERSAMPLING * k * nearest) + samples.first
        more = clustering.rows(np.concatenate(comm.allgather(taken)))
        candidates = np.concatenate([candidates, more])
        for start in range(0, len(more), k):
            distances = _to_each(clustering, more[start : start + k]).min(1)
            np.minimum(nearest, distances, out=nearest)
    if len(candidates) <= k:
        return plus_plus(clustering, k, rng)
    clustering.assign(candidates)
    counts = np.bincount(clustering.labels, minlength=len(candidates)).astype(float)
    comm.Allreduce(MPI.IN_PLACE, counts)
    centres = np.empty((k, samples.shape[1]))
    if comm.rank == 0:
        centres[...] = _of_candidates(candidates, counts, k, rng)
    comm.Bcast(centres)
    return centres


def _of_candidates(candidates: Doubles, counts: Doubles, k: int, rng: np.random.Generator) -> Doubles:
    """Return the centres of weighted candidates. Local."""
    layout = Layout.of("VC_STAR", (len(candidates), candidates.shape[1]), 1)
    alone = Samples(MPI.COMM_SELF, (len(candidates), candidates.shape[1]), layout, candidates)
    clustering = Clustering(alone, np.maximum(counts, 1))
    centres = plus_plus(clustering, k, rng)
    for _ in range(_LLOYD):
        if not clustering.assign(centres):
            break
        centres = clustering.means(centres)
    return centres


def _to_each(clustering: Clustering, centres: Doubles) -> Doubles:
    """Return squared distances of this rank's samples to a few centres. Local."""
    height = max(64, (1 << 17) // max(len(centres), clustering.samples.shape[1]))
    distances = np.empty((clustering.samples.height, len(centres)))
    for rows in clustering.samples.panels(height):
        distances[rows] = clustering.squared_distances(rows, centres)
    return distances


def _drawn(clustering: Clustering, chances: Array, draws: Doubles) -> npt.NDArray[np.int64]:
    """Return the indices that `draws` from [0, 1) pick with the given chances. Collective over comm.

    If all chances are zero, the first sample is picked.
    """
    comm, first = clustering.samples.comm, clustering.samples.first
    running = np.cumsum(chances, dtype=np.float64)
    totals = np.cumsum(np.array(comm.allgather(float(running[-1]) if running.size else 0.0)))
    wanted = draws * comm.bcast(totals[-1])
    before = totals[comm.rank - 1] if comm.rank else 0.0
    mine = (wanted >= before) & (wanted < totals[comm.rank])
    picked = np.zeros(draws.size, np.int64)
    if mine.any():
        places = np.searchsorted(running, wanted[mine] - before, side="right")
        picked[mine] = first + np.minimum(places, running.size - 1)
    comm.Allreduce(MPI.IN_PLACE, picked, MPI.MAX)
    return picked


def _stream(samples: Samples, seed: int) -> Doubles:
    """Return a random number from [0, 1) for each of this rank's samples; it does not depend on the ranks. Local."""
    bits = np.random.PCG64(seed)
    bits.advance(samples.first)
    return np.random.Generator(bits).random(samples.height)
