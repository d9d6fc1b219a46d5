"""The cluster FFT of MKL: two-dimensional complex transforms of matrices that are distributed by rows.

MKL works in place on slabs of consecutive rows. If m is not a multiple of p, MKL gives the first ranks one row more,
while VC_STAR gives all ranks but the last ones ``ceil(m / p)`` rows. Where the two differ, rows move between
neighbours. MKL refuses a matrix with a side shorter than the number of ranks (status 1001).

Source: *Developer Reference for Intel oneMKL*, Cluster FFT Functions; constants from ``mkl_dfti.h, mkl_cdft_types.h``.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import math
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import LibraryLoadError, RemoteTaskError
from alchemist_ray.layouts.csr import slab_rows
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.fft.axes import require_transformable
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.scalapack import libraries

Array = npt.NDArray[Any]

_PRECISION = {"complex64": 35, "complex128": 36}  # DFTI_SINGLE, DFTI_DOUBLE
_COMPLEX = 32
_FORWARD_SCALE, _BACKWARD_SCALE = 4, 5
_LOCAL_SIZE, _LOCAL_X_START, _LOCAL_NX = 1000, 1001, 1002


def applies(A: DistMatrix) -> bool:
    """Whether MKL can transform `A`. Local; the answer is the same on all ranks."""
    return min(A.shape) >= A.comm.size and _library() is not None


def fft2(ctx: TaskContext, A: DistMatrix, norm: str | None, *, inverse: bool) -> DistMatrix:
    """Return the transform of `A`, or the inverse transform, in the layout of `A`. Collective over comm."""
    require_transformable(ctx, A, norm)
    dtype = np.dtype(np.complex64 if A.dtype in (np.float32, np.complex64) else np.complex128)
    by_rows = Layout.of("VC_STAR", A.shape, ctx.comm.size)
    B = allocated(ctx, A.shape, dtype, by_rows)
    np.copyto(B.local, A.relayout(by_rows).local)
    with _Transform(ctx, A.shape, dtype, _scale(A.shape, norm, inverse)) as transform:
        rows = transform.rows
        theirs = [slab_rows(A.shape[0], ctx.comm.size, rank) for rank in range(ctx.comm.size)]
        if rows == theirs and transform.fits:
            transform.run(B.local, inverse)
        else:
            with Agreement(ctx.comm):
                slab = np.empty(max(transform.elements, 1), dtype)
            _move_rows(ctx.comm, B.local, theirs, slab, rows, A.shape[1])
            transform.run(slab, inverse)
            _move_rows(ctx.comm, slab, rows, B.local, theirs, A.shape[1])
    return B.relayout(A.layout)


def _scale(shape: tuple[int, int], norm: str | None, inverse: bool) -> float:
    if norm == "ortho":
        return 1 / math.sqrt(math.prod(shape))
    return 1 / math.prod(shape) if inverse != (norm == "forward") else 1.0


class _Transform:
    """An MKL descriptor: shape, type and scale of a transform, and the rows of each rank.

    Every method is collective over the communicator.

    Attributes
    ----------
    elements : int
        Number of elements that the in-place array of this rank must have.
    rows : list of (int, int)
        For each rank, its first row and the row after its last.
    fits : bool
        Whether on every rank its own rows are enough space for the transform.
    """

    def __init__(self, ctx: TaskContext, shape: tuple[int, int], dtype: np.dtype[Any], scale: float) -> None:
        self._ctx, self._shape, self._dtype, self._scale = ctx, shape, dtype, scale
        self._handle = ctypes.c_void_p()
        self._functions = _library()

    def __enter__(self) -> Self:
        lengths = (ctypes.c_long * 2)(*self._shape)
        self._call(
            "mkl_cdft_DftiCreateDescriptorDM",
            _handle_of(self._ctx.comm),
            ctypes.byref(self._handle),
            ctypes.c_int(_PRECISION[self._dtype.name]),
            ctypes.c_int(_COMPLEX),
            ctypes.c_long(2),
            lengths,
        )
        try:
            for parameter in (_FORWARD_SCALE, _BACKWARD_SCALE):
                self._call("DftiSetValueDM", self._handle, ctypes.c_int(parameter), ctypes.c_double(self._scale))
            self._call("mkl_cdft_DftiCommitDescriptorDM", self._handle)
            self.elements = self._asked(_LOCAL_SIZE)
            start, size = self._asked(_LOCAL_X_START), self._asked(_LOCAL_NX)
            said = self._ctx.comm.allgather((start, start + size, self.elements <= size * self._shape[1]))
            self.rows = [(first, last) for first, last, _ in said]
            self.fits = all(fits for _, _, fits in said)
        except BaseException:
            self._free()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._free()

    def run(self, local: Array, inverse: bool) -> None:
        """Transform this rank's rows in place."""
        name = "DftiComputeBackwardDM" if inverse else "DftiComputeForwardDM"
        self._call(name, self._handle, ctypes.c_void_p(local.ctypes.data))

    def _asked(self, parameter: int) -> int:
        answer = ctypes.c_long()
        self._call("mkl_cdft_DftiGetValueDM", self._handle, ctypes.c_int(parameter), ctypes.byref(answer))
        return answer.value

    def _call(self, name: str, *arguments: Any) -> None:
        status = np.array([self._functions[name](*arguments)], np.int64)
        self._ctx.comm.Allreduce(MPI.IN_PLACE, status, MPI.MAX)
        if status[0]:
            raise RemoteTaskError(self._ctx.task, name.rpartition("_")[2], f"MKL's cluster FFT, status {status[0]}")

    def _free(self) -> None:
        self._functions["mkl_cdft_DftiFreeDescriptorDM"](ctypes.byref(self._handle))


def _move_rows(
    comm: MPI.Comm, source: Array, here: list[tuple[int, int]], target: Array, there: list[tuple[int, int]], width: int
) -> None:
    """Move rows from the slabs `here` to the slabs `there`. Collective over comm."""
    row = MPI.BYTE.Create_contiguous(width * source.itemsize).Commit()
    mine, wanted = here[comm.rank], there[comm.rank]
    comm.Alltoallv(
        [source, *_overlaps(mine, there), row],
        [target, *_overlaps(wanted, here), row],
    )
    row.Free()


def _overlaps(mine: tuple[int, int], theirs: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return for each rank how many of `mine` rows lie in its slab, and their offset in `mine`."""
    cuts = [(max(mine[0], start), min(mine[1], stop)) for start, stop in theirs]
    return [max(stop - start, 0) for start, stop in cuts], [max(start - mine[0], 0) for start, _ in cuts]


def _handle_of(comm: MPI.Comm) -> ctypes.c_int | ctypes.c_void_p:
    """Return the C handle of the communicator: an integer in MPICH and its descendants, a pointer in Open MPI."""
    kind = ctypes.c_int if MPI._sizeof(MPI.Comm) == ctypes.sizeof(ctypes.c_int) else ctypes.c_void_p
    return kind.from_address(MPI._addressof(comm))


@lru_cache(maxsize=1)
def _library() -> Any:
    """Return MKL's cluster FFT for the MPI of mpi4py; None if MKL is not installed. Local."""
    try:
        if libraries().name != "MKL":  # loads the layers below it
            return None
    except LibraryLoadError:
        return None
    installed = importlib.metadata.distribution("mkl").files or []
    found = [file for file in installed if file.name.startswith("libmkl_cdft_core.so")]
    if not found:
        return None
    return ctypes.CDLL(str(Path(str(found[0].locate())).resolve()), mode=ctypes.RTLD_GLOBAL)
