"""Samples in the rows of a matrix, the input of the methods of data analysis.

Each rank has a run of consecutive whole rows, and the runs are in the order of the ranks. So a result that depends on
the order of the samples (a random choice among them) does not depend on the number of ranks. A dense matrix in another
layout is copied; a sparse one always has this layout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import ArgumentError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """The samples of a group of ranks; this rank holds some of them.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks.
    shape : (int, int)
        Number of samples on all ranks, and number of features.
    layout : Layout
        Layout of the rows.
    local : ndarray or scipy.sparse.csr_array, shape (height, n)
        This rank's samples.
    """

    comm: MPI.Comm
    shape: tuple[int, int]
    layout: Layout
    local: Any

    @property
    def height(self) -> int:
        """Number of samples of this rank."""
        return int(self.local.shape[0])

    @property
    def first(self) -> int:
        """Index of this rank's first sample among all."""
        before = (self.layout.part(self.shape, rank)[0].size for rank in range(self.comm.rank))
        return sum(before)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        dtype: np.dtype[Any] = self.local.dtype
        return dtype

    @property
    def sparse(self) -> bool:
        """Whether :attr:`local` is sparse."""
        return not isinstance(self.local, np.ndarray)

    def panels(self, height: int) -> Iterator[slice]:
        """Yield ranges of at most `height` of this rank's samples."""
        for start in range(0, self.height, height):
            yield slice(start, min(start + height, self.height))

    def dense(self, which: slice | Array) -> Array:
        """Return some of this rank's samples as a dense array. Local."""
        rows: Any = self.local[which]
        elements: Array = rows.toarray() if self.sparse else rows
        return elements

    @property
    def elements(self) -> Array:
        """The elements of this rank's samples, in any order; for a sparse matrix the stored ones."""
        elements: Array = self.local.data if self.sparse else self.local
        return elements

    def scaled(self, factor: float) -> Samples:
        """Return `factor` times the samples, in new memory; the samples themselves if it is 1. Collective over comm."""
        if factor == 1:
            return self
        with Agreement(self.comm):
            return dataclasses.replace(self, local=self.local * self.dtype.type(factor))

    def column_means(self) -> npt.NDArray[np.float64]:
        """Return the mean of the samples, bitwise equal on every rank. Collective over comm."""
        sums = np.zeros(self.shape[1])
        if self.sparse:
            sums += self.local.sum(0, dtype=np.float64)
        elif self.height:
            self.local.sum(0, np.float64, sums)
        self.comm.Allreduce(MPI.IN_PLACE, sums)
        self.comm.Bcast(sums)
        return sums / self.shape[0]


def samples_of(A: DistMatrix | SparseDistMatrix) -> Samples:
    """Return the rows of `A` as samples. Collective over comm if data must move."""
    if isinstance(A, SparseDistMatrix):
        return Samples(A.comm, A.shape, A.layout, A.local)
    A = A if in_runs(A) else A.relayout("VC_STAR")
    return Samples(A.comm, A.shape, A.layout, A.local)


def in_runs(A: DistMatrix) -> bool:
    """Whether each rank has one run of whole rows of `A`, in the order of the ranks. Local."""
    layout = A.layout
    return layout.pair == "VC_STAR" and layout.align == (0, 0) and layout.block[0] * A.comm.size >= A.shape[0]


def dealt_like(A: DistMatrix, samples: Samples) -> DistMatrix:
    """Return `A`, which has a row for each sample, with its rows on the ranks of the samples. Collective over comm."""
    return A.relayout(Layout("VC_STAR", samples.layout.grid, (samples.layout.block[0], max(1, A.shape[1]))))


def require_real(ctx: TaskContext, **matrices: DistMatrix | SparseDistMatrix) -> np.dtype[Any]:
    """Return the common element type of the named matrices. Local.

    Raises
    ------
    ArgumentError
        If one of them is not float32 or float64.
    """
    for name, A in matrices.items():
        if A.dtype.kind == "c":
            raise ArgumentError(
                ctx.task, f"matrix {name} has dtype {A.dtype}, but this is defined for float32 and float64 only"
            )
    return checks.require_floating(ctx, **matrices)
