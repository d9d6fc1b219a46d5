"""The matrices of one worker: this rank's blocks, and the parts of them that have been written.

The store does not use MPI. The threads that serve senders and readers use it while another thread runs tasks.
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
    """One worker's part of a matrix.

    Attributes
    ----------
    matrix_id : int
        Number of the matrix in the session.
    spec : MatrixSpec or SparseSpec
        Shape, element type and layout.
    rows, cols : AxisPart
        The rows and columns that this worker holds.
    local : ndarray
        This worker's elements, C-ordered. For a sparse matrix, the slab (:mod:`.csr`) as one row of bytes; `rows` and
        `cols` then count bytes.
    replicated : bool
        Whether all ranks have their elements. Of the ranks that hold the same part, senders write to one. The others
        copy the part from that rank before the matrix is first used (:mod:`.replicas`).
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
        """Whether all elements have been written."""
        return self.to_write <= 0

    def region(self, part: Rectangle) -> str:
        """Return `part` in global indices, for messages."""
        return str(part if part.area == 0 else self.to_global(part))

    def to_global(self, part: Rectangle) -> Rectangle:
        """Return the smallest rectangle of the whole matrix that contains `part`, which must not be empty."""
        i0, i1 = self.rows.to_global(part.i0), self.rows.to_global(part.i1 - 1) + 1
        j0, j1 = self.cols.to_global(part.j0), self.cols.to_global(part.j1 - 1) + 1
        return Rectangle(i0, i1, j0, j1)


class Store:
    """The matrices of one worker, by id. Thread-safe.

    Parameters
    ----------
    arena : Arena
        The memory of the blocks.
    size, rank : int
        Size of the worker group, and rank of this worker.
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
            If the arena has no room for it.
        LayoutError
            If the layout is for another number of ranks, or the id is already used.
        """
        if isinstance(spec, SparseSpec) and len(spec.counts) != self._size:
            raise LayoutError(
                f"a sparse matrix has rows for {len(spec.counts)} ranks, but the worker group has {self._size}"
            )
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
        """Add a block that a task has made; copy it into the arena if it lies elsewhere."""
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
                raise LayoutError(f"matrix {stored.matrix_id} already exists")
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
        """Mark `part` as being written; return the matrix and the view to write to.

        Raises
        ------
        RegionError
            If `part` lies outside the block, or overlaps a part that has been written or is being written. Also if it
            is only a part of a sparse block, which is checked as a whole.
        """
        stored = self.get(matrix_id)
        view = self.view(stored, part)
        if isinstance(stored.spec, SparseSpec) and view.size < stored.local.size:
            raise RegionError(matrix_id, stored.region(part), "is only a part of a sparse block")
        with self._lock:
            if stored.complete or stored.coverage.overlaps(part):
                raise RegionError(
                    matrix_id, stored.region(part), "has been written before, or another sender is writing it"
                )
            stored.coverage.add(part)
            stored.claims.add(part)
        return stored, view

    def written(self, stored: StoredMatrix, part: Rectangle, region: Rectangle | None = None) -> None:
        """Mark the claimed `part` as written; it is this rank's part of `region`.

        Raises
        ------
        InvalidArrayError
            If it is a sparse block with wrong indices. Compiled code would not check them.
        """
        if isinstance(stored.spec, SparseSpec):
            csr.check(stored.spec.slab(self._rank).views(stored.local), stored.spec.shape[1])
        with self._lock:
            stored.claims.discard(part)
            stored.to_write -= part.area
            if region is not None:
                stored.committed.add(region)

    def disclaim(self, stored: StoredMatrix, part: Rectangle) -> None:
        """Mark the claimed `part` as not written, because its writer failed. It may be written again."""
        with self._lock:
            stored.claims.discard(part)
            stored.coverage.remove(part)

    def missing(self, matrix_id: int) -> list[Rectangle]:
        """Return the missing parts of this rank's block as rectangles that do not overlap."""
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
        """Drop matrices; return how many of them were held."""
        with self._lock:
            return sum(self._matrices.pop(matrix_id, None) is not None for matrix_id in set(matrix_ids))

    def discard(self, matrices: list[StoredMatrix]) -> None:
        """Drop these matrices; another that has got the number of one of them stays."""
        with self._lock:
            for stored in matrices:
                if self._matrices.get(stored.matrix_id) is stored:
                    del self._matrices[stored.matrix_id]

    def describe(self) -> list[dict[str, Any]]:
        """Return one row for each matrix, for status displays."""
        with self._lock:
            matrices = list(self._matrices.values())
        return [
            {"id": s.matrix_id, "complete": s.complete, "local_bytes": s.local.nbytes, **s.spec.to_wire()}
            for s in matrices
        ]
