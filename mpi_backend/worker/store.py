"""The matrices of one worker: this rank's blocks, and which parts of them have been written.

The store knows no MPI: it is used by the threads that serve senders and readers, while one other thread runs tasks.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import FreedMatrixError, IncompleteMatrixError, LayoutError, RegionError
from alchemist_ray.layouts import csr
from alchemist_ray.layouts.layout import AxisPart
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec, SparseSpec
from alchemist_ray.mpi_backend.memory.arena import Arena
from alchemist_ray.mpi_backend.worker.coverage import Coverage

Array = npt.NDArray[Any]


class StoredMatrix:
    """One matrix, as one worker holds it.

    Attributes
    ----------
    matrix_id : int
        Its number in the session.
    spec : MatrixSpec or SparseSpec
        Shape, element type and layout.
    rows, cols : AxisPart
        What this worker holds.
    local : ndarray
        This worker's elements, C-ordered. Of a sparse matrix, the slab (:mod:`.csr`) as one row of bytes,
        and `rows`, `cols` count these.
    replicated : bool
        Whether those ranks have their elements that senders do not write to: of ranks that hold the same part one is
        written to, and the others get it from that one before the matrix is first used (:mod:`.replicas`).
    """

    def __init__(self, matrix_id: int, spec: MatrixSpec | SparseSpec, rank: int, local: Array, written: bool) -> None:
        self.matrix_id = matrix_id
        self.spec = spec
        self.local = local
        if isinstance(spec, SparseSpec):
            self.rows, self.cols = AxisPart(1, 1, 1, 0), AxisPart(local.size, local.size, 1, 0)
        else:
            self.rows, self.cols = spec.layout.part(spec.shape, rank)
        self.replicated = written or not spec.layout.redundant
        self.to_write = 0 if written or not spec.layout.is_source(rank) else local.size
        self.coverage = Coverage(local.shape)
        self.claims: set[Rectangle] = set()
        self.committed: set[Rectangle] = set()

    @property
    def complete(self) -> bool:
        """Whether every element that is to be written has been."""
        return self.to_write <= 0

    def region(self, part: Rectangle) -> str:
        """Return `part` in global indices, for messages."""
        return str(part if part.area == 0 else self.to_global(part))

    def to_global(self, part: Rectangle) -> Rectangle:
        """Return the rectangle of the whole matrix that has all of `part`, which is not empty."""
        i0, i1 = self.rows.to_global(part.i0), self.rows.to_global(part.i1 - 1) + 1
        j0, j1 = self.cols.to_global(part.j0), self.cols.to_global(part.j1 - 1) + 1
        return Rectangle(i0, i1, j0, j1)


class Store:
    """The matrices of one worker, by id. Thread-safe.

    Parameters
    ----------
    arena : Arena
        Where the blocks lie.
    size, rank : int
        Of the worker group, and of this worker in it.
    """

    def __init__(self, arena: Arena, size: int, rank: int) -> None:
        self.arena = arena
        self._size = size
        self._rank = rank
        self._matrices: dict[int, StoredMatrix] = {}
        self._lock = threading.Lock()

    def create(self, matrix_id: int, spec: MatrixSpec | SparseSpec) -> StoredMatrix:
        """Make room for this rank's block of a new matrix.

        Raises
        ------
        MatrixMemoryError
            If there is none.
        LayoutError
            If the layout is for another number of ranks, or the id is taken.
        """
        if isinstance(spec, SparseSpec) and len(spec.counts) != self._size:
            raise LayoutError(f"rows for {len(spec.counts)} ranks, but the worker group has {self._size}")
        if spec.layout.grid.size != self._size:
            raise LayoutError(
                f"a {spec.layout.grid} grid has {spec.layout.grid.size} ranks, but the worker group has {self._size}"
            )
        if isinstance(spec, SparseSpec):
            local = self.arena.allocate((1, spec.slab(self._rank).nbytes), np.dtype(np.uint8))
        else:
            local = self.arena.allocate(spec.layout.local_shape(spec.shape, self._rank), spec.dtype)
        stored = StoredMatrix(matrix_id, spec, self._rank, local, written=False)
        self._add(stored)
        return stored

    def adopt(self, matrix_id: int, spec: MatrixSpec | SparseSpec, local: Array) -> StoredMatrix:
        """Take in a block that a task has made, copying it into the arena if it lies elsewhere."""
        if self.arena.offset_of(local) is None or not local.flags.c_contiguous:
            placed = self.arena.allocate((local.shape[0], local.shape[1]), local.dtype)
            np.copyto(placed, local)
            local = placed
        stored = StoredMatrix(matrix_id, spec, self._rank, local, written=True)
        self._add(stored)
        return stored

    def _add(self, stored: StoredMatrix) -> None:
        with self._lock:
            if stored.matrix_id in self._matrices:
                raise LayoutError(f"there is a matrix {stored.matrix_id} already")
            self._matrices[stored.matrix_id] = stored

    def get(self, matrix_id: int) -> StoredMatrix:
        """Return a matrix, complete or not; raise :class:`FreedMatrixError` if it is not here."""
        with self._lock:
            stored = self._matrices.get(matrix_id)
        if stored is None:
            raise FreedMatrixError(matrix_id)
        return stored

    def get_complete(self, matrix_id: int) -> StoredMatrix:
        """Return a matrix whose block is complete; raise :class:`IncompleteMatrixError` if it is not."""
        stored = self.get(matrix_id)
        if not stored.complete:
            total = stored.local.size
            raise IncompleteMatrixError(
                matrix_id, f"{stored.to_write:,} of the {total:,} elements of rank {self._rank} were not written"
            )
        return stored

    def claim(self, matrix_id: int, part: Rectangle) -> tuple[StoredMatrix, Array]:
        """Note that `part` is being written; return the matrix and the view to write to.

        Raises
        ------
        RegionError
            If it lies outside the block, or overlaps a part that has been written or is being written; or if it is but
            a part of a sparse block, which is checked as a whole.
        """
        stored = self.get(matrix_id)
        view = self.view(stored, part)
        if isinstance(stored.spec, SparseSpec) and view.size < stored.local.size:
            raise RegionError(matrix_id, stored.region(part), "is but a part of a sparse block")
        with self._lock:
            if stored.complete or stored.coverage.overlaps(part):
                raise RegionError(
                    matrix_id, stored.region(part), "has been written before, or somebody else is writing it"
                )
            stored.coverage.add(part)
            stored.claims.add(part)
        return stored, view

    def written(self, stored: StoredMatrix, part: Rectangle, region: Rectangle | None = None) -> None:
        """Note that `part`, which was claimed, has been written, as this rank's part of `region`.

        Raises
        ------
        InvalidArrayError
            If it is a sparse block that is none: compiled code would not check its indices.
        """
        if isinstance(stored.spec, SparseSpec):
            csr.check(stored.spec.slab(self._rank).views(stored.local), stored.spec.shape[1])
        with self._lock:
            stored.claims.discard(part)
            stored.to_write -= part.area
            if region is not None:
                stored.committed.add(region)

    def disclaim(self, stored: StoredMatrix, part: Rectangle) -> None:
        """Note that the writer of `part`, which was claimed, has failed: it may be written again."""
        with self._lock:
            stored.claims.discard(part)
            stored.coverage.remove(part)

    def missing(self, matrix_id: int) -> list[Rectangle]:
        """Return what is yet to be written of this rank's block, as rectangles of that; they do not overlap."""
        stored = self.get(matrix_id)
        if stored.complete:
            return []
        with self._lock:
            return [*stored.coverage.missing(), *(part for part in stored.claims if part.area)]

    def view(self, stored: StoredMatrix, part: Rectangle) -> Array:
        """Return the elements of `part`; raise :class:`RegionError` if it lies outside the block."""
        rows, cols = stored.local.shape
        if not (0 <= part.i0 <= part.i1 <= rows and 0 <= part.j0 <= part.j1 <= cols):
            region = f"local {part}"
            raise RegionError(stored.matrix_id, region, f"lies outside the {rows} x {cols} block of rank {self._rank}")
        return stored.local[part.i0 : part.i1, part.j0 : part.j1]

    def free(self, matrix_ids: list[int]) -> int:
        """Forget matrices; return how many of them were held."""
        with self._lock:
            return sum(self._matrices.pop(matrix_id, None) is not None for matrix_id in set(matrix_ids))

    def describe(self) -> list[dict[str, Any]]:
        """Return one row a matrix, for status displays."""
        with self._lock:
            matrices = list(self._matrices.values())
        return [
            {"id": s.matrix_id, "complete": s.complete, "local_bytes": s.local.nbytes, **s.spec.to_wire()}
            for s in matrices
        ]
