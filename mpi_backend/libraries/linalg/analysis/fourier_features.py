"""Random Fourier features: a map whose inner products approximate a Gaussian kernel.

    z(x) = sqrt(2 / D) cos(x W + b),   z(x).z(y) ~ exp(-|x - y|^2 / (2 sigma^2))

The entries of W are drawn from a normal distribution of deviation 1 / sigma, and those of b from [0, 2 pi). Every rank
draws W and b itself from the seed, 256 features at a time. So other samples get the same features later, on any number
of ranks, and the first features do not depend on how many follow.

Source: A. Rahimi, B. Recht, *Random features for large-scale kernel machines*, NIPS 2007, algorithm 1 (with the phases
of its extended version).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.analysis.samples import Samples, require_real, samples_of

Array = npt.NDArray[Any]

_BLOCK = 256
"""Features that are drawn at a time."""

_PANEL = 1 << 20
"""Elements of a panel of features; such a panel about fits into the cache."""


@dataclass(frozen=True)
class RandomFeatures:
    """The features of samples, computed when needed.

    Attributes
    ----------
    samples : Samples
        The samples.
    W : ndarray, shape (n, D)
        Directions.
    b : ndarray, shape (D,)
        Phases.
    """

    samples: Samples
    W: Array
    b: Array

    @classmethod
    def drawn(cls, samples: Samples, n_features: int, sigma: float, seed: int) -> RandomFeatures:
        """Return the features for `seed`. Local."""
        n, dtype = samples.shape[1], samples.dtype
        W, b = np.empty((n, n_features), dtype), np.empty(n_features, dtype)
        for block, start in enumerate(range(0, n_features, _BLOCK)):
            width = min(_BLOCK, n_features - start)
            rng = np.random.default_rng([seed, block])
            b[start : start + width] = rng.uniform(0, 2 * math.pi, _BLOCK)[:width]
            W[:, start : start + width] = rng.standard_normal((_BLOCK, n))[:width].T / sigma
        return cls(samples, W, b)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of features."""
        return self.samples.shape[0], self.b.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.b.dtype

    def panels(self) -> Iterator[tuple[slice, Array]]:
        """Yield ranges of this rank's samples, and their features; each panel overwrites the one before. Local."""
        height = max(64, _PANEL // self.b.size)
        memory = np.empty((min(height, self.samples.height), self.b.size), self.dtype)
        for rows in self.samples.panels(height):
            features = memory[: rows.stop - rows.start]
            self.write(rows, features)
            yield rows, features

    def write(self, rows: slice, out: Array) -> None:
        """Write the features of some of this rank's samples to `out`. Local."""
        local = self.samples.local[rows]
        if self.samples.sparse:
            out[...] = local @ self.W
        else:
            np.matmul(local, self.W, out=out)
        out += self.b
        np.cos(out, out=out)
        out *= out.dtype.type(math.sqrt(2 / self.b.size))


@task
def random_features(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, n_features: int, sigma: float = 1.0, seed: int = 0
) -> DistMatrix:
    """Return random Fourier features of samples, whose inner products approximate a Gaussian kernel.

    Parameters
    ----------
    A : DistMatrix or SparseDistMatrix, shape (n_samples, n)
        The samples in rows, float32 or float64.
    n_features : int
        Number of features.
    sigma : float
        Width of the kernel ``exp(-|x - y|^2 / (2 sigma^2))``; scikit-learn's gamma is ``1 / (2 sigma^2)``.
    seed : int
        The same seed gives the same features on any number of workers (with the same release of NumPy).

    Returns
    -------
    Z : DistMatrix, shape (n_samples, n_features)
        The features, in VC_STAR.

    Raises
    ------
    ArgumentError
        If A is not float32 or float64.
    ArgumentValueError
        If n_features or sigma is not positive.
    NonFiniteError
        If A contains NaN or Inf.

    Notes
    -----
    2 n_samples n n_features operations, and as many cosines as Z has elements. In float32 NumPy has vectorised cosines,
    which take almost no time; in float64 they may take longer than the rest. Memory beyond Z: a copy of A if it is not
    in VC_STAR, and n x n_features numbers on each rank. :func:`rf_ridge` can use the features without storing them.
    Source: Rahimi and Recht, NIPS 2007.
    """
    Z = stored(ctx, features_of(ctx, A, n_features, sigma, seed))
    return DistMatrix(ctx.comm, Z.shape, Z.layout, Z.local, ctx.allocate)


def features_of(
    ctx: TaskContext, A: DistMatrix | SparseDistMatrix, n_features: int, sigma: float, seed: int
) -> RandomFeatures:
    """Check the arguments and return the features of the rows of `A`. Collective over comm.

    Raises
    ------
    ArgumentError, ArgumentValueError, NonFiniteError
        As in :func:`random_features`.
    """
    require_real(ctx, A=A)
    if n_features < 1 or not 0 < sigma < math.inf:
        raise ArgumentValueError(
            ctx.task, f"n_features and sigma must be positive and finite, but they are {n_features} and {sigma}"
        )
    if seed < 0:
        raise ArgumentValueError(ctx.task, f"seed must not be negative, but is {seed}")
    checks.require_finite(ctx, A=A)
    return RandomFeatures.drawn(samples_of(A), n_features, sigma, seed)


def stored(ctx: TaskContext, features: RandomFeatures) -> Samples:
    """Return all features, computed once and stored. Collective over comm.

    Raises
    ------
    MatrixMemoryError
        If a rank has not enough memory for them; the other ranks raise PeerFailedError.
    """
    Z = checks.allocated(ctx, features.shape, features.dtype, _layout(features))
    for rows in features.samples.panels(max(64, _PANEL // features.b.size)):
        features.write(rows, Z.local[rows])
        ctx.progress(rows.stop, features.samples.height, "random features")
    return Samples(ctx.comm, features.shape, Z.layout, Z.local)


def _layout(features: RandomFeatures) -> Layout:
    """Return the layout of the features, which lie on the ranks of their samples."""
    samples = features.samples.layout
    return Layout("VC_STAR", samples.grid, (samples.block[0], features.b.size))
