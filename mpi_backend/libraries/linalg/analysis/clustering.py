"""Distances between samples and a few centres, and the steps of k-means that use them.

Squared distances are computed by products. With mu the mean of all samples and c' = c - mu,

    |x - c|^2 = |x - mu|^2 - 2 x.c' + 2 mu.c' + |c'|^2.

Only differences from the mean are squared, so samples far from zero lose few digits, and x needs no centring, so it may
be sparse. Samples are processed one panel at a time, so the distances stay in the cache. Every rank holds the same
centres bit for bit, because rank 0 broadcasts each sum over the ranks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.libraries.linalg.analysis.samples import Samples

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

_PANEL = 1 << 17
"""Largest number of elements of a panel of samples, and of their distances to the centres."""


class Clustering:
    """Samples and their distances to centres. Creating one is collective over comm.

    Parameters
    ----------
    samples : Samples
        The samples.
    weights : ndarray, optional
        Weights of this rank's samples.

    Attributes
    ----------
    nearest : ndarray of float64, shape (height,)
        Squared distances of this rank's samples to their centres, set by :meth:`assign`.
    labels : ndarray of int32, shape (height,)
        The numbers of these centres.
    """

    def __init__(self, samples: Samples, weights: Array | None = None) -> None:
        self.samples = samples
        self.weights = np.ones(samples.height) if weights is None else weights
        self.mean = samples.column_means()
        self.squares = self._squared_deviations()
        self.labels = np.full(samples.height, -1, np.int32)
        self.nearest = np.zeros(samples.height)

    def _squared_deviations(self) -> Doubles:
        """Return |x - mu|^2 of this rank's samples. Local."""
        X, squares = self.samples, np.empty(self.samples.height)
        mean = self.mean.astype(X.dtype)
        for rows in X.panels(self._panel_height(1)):
            if X.sparse:
                panel = X.local[rows]
                squares[rows] = np.asarray(panel.multiply(panel).sum(1)).reshape(-1) - 2 * (panel @ self.mean)
            else:
                deviations = X.local[rows] - mean
                squares[rows] = np.einsum("ij,ij->i", deviations, deviations)
        return np.maximum(squares + float(self.mean @ self.mean), 0) if X.sparse else squares

    def _panel_height(self, k: int) -> int:
        return max(64, _PANEL // max(k, self.samples.shape[1]))

    @property
    def variance(self) -> float:
        """Mean of the variances of the features. Collective over comm."""
        return self.sum(float(self.squares.sum())) / max(1, math.prod(self.samples.shape))

    def sum(self, mine: float) -> float:
        """Return the sum over the ranks, bitwise equal on all. Collective over comm."""
        comm = self.samples.comm
        return float(comm.bcast(comm.reduce(mine)))

    def squared_distances(self, rows: slice, centres: Doubles) -> Array:
        """Return squared distances of some of this rank's samples to `centres`, shape (rows, k). Local."""
        factors, offsets = self._form(centres)
        distances = self._products(rows, factors) + offsets
        distances += self.squares[rows, np.newaxis]
        np.maximum(distances, 0, out=distances)
        return distances

    def _form(self, centres: Doubles) -> tuple[Array, Array]:
        """Return M and d for which ``|x - mu|^2 + x M + d`` are the squared distances of x to the centres. Local."""
        shifted = centres - self.mean
        offsets = 2 * (shifted @ self.mean) + np.einsum("ij,ij->i", shifted, shifted)
        return np.ascontiguousarray(-2 * shifted.T, self.samples.dtype), offsets

    def _products(self, rows: slice, factors: Array) -> Array:
        products: Array = self.samples.local[rows] @ factors
        return products

    def assign(self, centres: Doubles) -> bool:
        """Find the nearest centre of each sample; return whether any label has changed. Collective over comm."""
        factors, offsets = self._form(centres)
        offsets = offsets.astype(self.samples.dtype)
        changed = False
        for rows in self.samples.panels(self._panel_height(len(centres))):
            distances = self._products(rows, factors)
            distances += offsets
            labels = distances.argmin(1)
            changed |= not np.array_equal(labels, self.labels[rows])
            self.labels[rows] = labels
            self.nearest[rows] = np.take_along_axis(distances, labels[:, np.newaxis], 1)[:, 0]
        self.nearest += self.squares
        np.maximum(self.nearest, 0, out=self.nearest)
        return bool(self.samples.comm.allreduce(changed, MPI.LOR))

    def means(self, centres: Doubles) -> Doubles:
        """Return the means of the samples that :meth:`assign` gave each of the `centres`. Collective over comm.

        A centre without samples moves to the sample that is farthest from its own centre; that centre loses the sample.
        """
        from scipy.sparse import csc_array

        k, X = len(centres), self.samples
        sums = np.zeros((k, X.shape[1] + 1))  # the last column is the sum of weights
        for rows in X.panels(max(8192, self._panel_height(k))):
            count = rows.stop - rows.start
            weights = self.weights[rows].astype(X.dtype)
            membership = csc_array((weights, self.labels[rows], np.arange(count + 1)), (k, count))
            product = membership @ X.local[rows]
            sums[:, :-1] += product.toarray() if X.sparse else product
            sums[:, -1] += np.bincount(self.labels[rows], self.weights[rows], k)
        X.comm.Allreduce(MPI.IN_PLACE, sums)
        X.comm.Bcast(sums)
        empty = np.flatnonzero(sums[:, -1] == 0)
        if empty.size:
            self._fill(sums, empty)
        return sums[:, :-1] / sums[:, -1:]

    def _fill(self, sums: Doubles, empty: Array) -> None:
        """Give each centre without samples one that is farthest from its own centre. Collective over comm."""
        X = self.samples
        order = np.argsort(-self.nearest, kind="stable")[: empty.size]
        mine = list(zip(-self.nearest[order], order + X.first, self.labels[order], self.weights[order], strict=True))
        farthest = sorted(each for some in X.comm.allgather(mine) for each in some)[: empty.size]
        rows = self.rows(np.array([index for _, index, _, _ in farthest]))
        for target, row, (_, _, label, weight) in zip(empty, rows, farthest, strict=False):
            if sums[label, -1] > weight:
                sums[label] -= np.append(row, 1) * weight
                sums[target] = np.append(row, 1) * weight
        still = sums[:, -1] == 0  # fewer distinct samples than centres: these centres coincide
        sums[still] = np.append(rows[0], 1)

    def rows(self, indices: Array) -> Doubles:
        """Return the samples with these global indices on every rank. Collective over comm."""
        X = self.samples
        found = np.zeros((len(indices), X.shape[1]))
        mine = np.flatnonzero((indices >= X.first) & (indices < X.first + X.height))
        if mine.size:
            found[mine] = X.dense(indices[mine] - X.first)
        X.comm.Allreduce(MPI.IN_PLACE, found)  # all but one rank have zeros
        return found

    def inertia(self, centres: Doubles) -> float:
        """Return the sum of squared distances to the centres of :attr:`labels`. Collective over comm.

        For a dense matrix it is computed from differences, which loses no digits.
        """
        X, total = self.samples, 0.0
        if X.sparse:
            return self.sum(float(self.weights @ self.nearest))
        for rows in X.panels(self._panel_height(1)):
            differences = X.local[rows] - centres[self.labels[rows]]
            total += float(self.weights[rows] @ np.einsum("ij,ij->i", differences, differences))
        return self.sum(total)
