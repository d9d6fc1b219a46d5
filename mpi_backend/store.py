"""The matrices of one worker: this rank's blocks, and which parts of them have been written.

The store knows no MPI: it is used by the threads that serve senders and readers, while one other thread runs tasks.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import FreedMatrixError, IncompleteMatrixError, LayoutError, RegionError
from alchemist_ray.layout import AxisPart
from alchemist_ray.mpi_backend.arena import Arena
from alchemist_ray.spec import MatrixSpec

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rectangle:
    """Local rows [i0, i1) and columns [j0, j1) of a block."""

    i0: int
    i1: int
    j0: int
    j1: int

    @property
    def area(self) -> int:
        """Number of elements."""
        return (self.i1 - self.i0) * (self.j1 - self.j0)

    def overlaps(self, other: Rectangle) -> bool:
        """Whether the two share an element."""
        rows = min(self.i1, other.i1) - max(self.i0, other.i0)
        columns = min(self.j1, other.j1) - max(self.j0, other.j0)
        return rows > 0 and columns > 0


@dataclass
class StoredMatrix:
    """One matrix, as one worker holds it."""

    matrix_id: int
    spec: MatrixSpec
    rows: AxisPart
    cols: AxisPart
    local: Array
    written: list[Rectangle] = field(default_factory=list)
    elements_written: int = 0

    @property
    def complete(self) -> bool:
        """Whether every element of the block has been written."""
        return self.elements_written >= self.local.size

    def region(self, part: Rectangle) -> str:
        """Return `part` in global indices, for messages."""
        if part.area == 0:
            return "an empty region"
        i0, i1 = self.rows.to_global(part.i0), self.rows.to_global(part.i1 - 1)
        j0, j1 = self.cols.to_global(part.j0), self.cols.to_global(part.j1 - 1)
        return f"rows {i0}..{i1}, columns {j0}..{j1}"


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

    def create(self, matrix_id: int, spec: MatrixSpec) -> StoredMatrix:
        """Make room for this rank's block of a new matrix.

        Raises
        ------
        MatrixMemoryError
            If there is none.
        LayoutError
            If the layout is for another number of ranks, or the id is taken.
        """
        if spec.layout.grid.size != self._size:
            raise LayoutError(
                f"a {spec.layout.grid} grid has {spec.layout.grid.size} ranks, but the worker group has {self._size}"
            )
        rows, cols = spec.layout.part(spec.shape, self._rank)
        local = self.arena.allocate((rows.size, cols.size), spec.dtype)
        stored = StoredMatrix(matrix_id, spec, rows, cols, local)
        self._add(stored)
        return stored

    def adopt(self, matrix_id: int, spec: MatrixSpec, local: Array) -> StoredMatrix:
        """Take in a block that a task has made, copying it into the arena if it lies elsewhere."""
        if self.arena.offset_of(local) is None or not local.flags.c_contiguous:
            placed = self.arena.allocate((local.shape[0], local.shape[1]), spec.dtype)
            np.copyto(placed, local)
            local = placed
        rows, cols = spec.layout.part(spec.shape, self._rank)
        stored = StoredMatrix(matrix_id, spec, rows, cols, local, elements_written=local.size)
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
            missing = stored.local.size - stored.elements_written
            raise IncompleteMatrixError(
                matrix_id, f"{missing:,} of the {stored.local.size:,} elements of rank {self._rank} were not written"
            )
        return stored

    def claim(self, matrix_id: int, part: Rectangle) -> tuple[StoredMatrix, Array]:
        """Note that `part` is being written; return the matrix and the view to write to.

        Raises
        ------
        RegionError
            If it lies outside the block, or overlaps a part that has been written.
        """
        stored = self.get(matrix_id)
        view = self.view(stored, part)
        with self._lock:
            if stored.complete or any(part.overlaps(other) for other in stored.written):
                raise RegionError(matrix_id, stored.region(part), "has been written before")
            stored.written.append(part)
        return stored, view

    def written(self, stored: StoredMatrix, part: Rectangle) -> None:
        """Note that `part`, which was claimed, has been written."""
        with self._lock:
            stored.elements_written += part.area
            if stored.complete:
                stored.written.clear()

    def disclaim(self, stored: StoredMatrix, part: Rectangle) -> None:
        """Note that the writer of `part`, which was claimed, has failed: it may be written again."""
        with self._lock:
            stored.written.remove(part)

    def view(self, stored: StoredMatrix, part: Rectangle) -> Array:
        """Return the elements of `part`; raise :class:`RegionError` if it lies outside the block."""
        rows, cols = stored.local.shape
        if not (0 <= part.i0 <= part.i1 <= rows and 0 <= part.j0 <= part.j1 <= cols):
            region = f"local rows {part.i0}..{part.i1 - 1}, columns {part.j0}..{part.j1 - 1}"
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
