"""Problems that are too small to distribute: one rank solves them with LAPACK.

A distributed algorithm exchanges messages for each panel of its matrix. For small orders this takes longer than the
arithmetic: the exponential of an 8 x 8 matrix took 50 times as long as SciPy's. So each routine first asks
:func:`suits`. If it returns True, :func:`solved` gathers the operands on one rank, which calls LAPACK with the cores of
all ranks of its host and distributes the results. This takes one message from each rank, one broadcast of the outcome,
and one message to each rank for each result that is too large for the broadcast. The other ranks wait without using
their cores.

If the problem has at most :data:`REPLICATED` bytes and all ranks are on one host, every rank gathers and solves it, so
no rank waits for the answer of another. All run the same code on the same processor, so their answers are equal.

:data:`LARGEST` holds the order up to which this pays for each routine, as measured by ``make bench-linalg``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import AlchemistError, ConvergenceError, NonFiniteError, PeerFailedError
from alchemist_ray.layouts import tiling
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import checks
from alchemist_ray.mpi_backend.libraries.linalg.host_cores import ranks_here, threads_of
from alchemist_ray.mpi_backend.libraries.linalg.whole_matrices import ROOT, deal, gathered, replicated
from alchemist_ray.mpi_backend.matrices.agreement import Agreement, finish_asleep

Array = npt.NDArray[Any]

LARGEST: dict[str, int] = {
    "cho_solve": 600,
    "cholesky": 900,
    "condest": 1000,
    "det": 1000,
    "eig": 450,
    "eigh": 650,
    "eigvals": 450,
    "expm": 500,
    "gemm": 600,
    "inv": 1000,
    "lstsq": 450,
    "lu": 1000,
    "lu_solve": 600,
    "pinv": 450,
    "polar": 450,
    "qr": 700,
    "solve": 1000,
    "svd": 450,
    "truncated_svd": 450,
}
"""For each routine the largest order that one rank solves; other routines always use all ranks.

A LAPACK call cannot be stopped. So for every order here it is short (:mod:`.stopping`), even with complex numbers.
"""

REPLICATED = 1 << 17
"""Largest size in bytes of a problem that every rank solves if all are on one host."""

_EMBEDDED = 4096
"""Largest size in bytes of a result matrix that is sent with the outcome."""

_ENVELOPE = 8192
"""Bytes of the broadcast with the outcome, or with its beginning."""

_WORTH_THREADS = 800
"""Smallest order for which LAPACK gets more than one thread; two threads were slower at 640 and faster at 1000."""


@dataclass(frozen=True)
class Whole:
    """A result matrix on the rank that has computed it.

    Attributes
    ----------
    array : ndarray
        The whole matrix, in any order.
    layout : Layout or str
        Layout of the distributed result.
    """

    array: Array
    layout: Layout | str = "MC_MR"


@dataclass(frozen=True)
class _Announced:
    """The announcement of a result matrix to all ranks, with its elements if it is small; else they follow."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    layout: Layout | str
    array: Array | None


def suits(routine: str, *shapes: tuple[int, int]) -> bool:
    """Whether one rank solves a problem with matrices of these shapes. Local.

    It does so if all matrices are small, and if one is empty, since the methods for all ranks need elements.
    """
    return any(0 in shape for shape in shapes) or max(map(max, shapes)) <= LARGEST.get(routine, 0)


def solved(ctx: TaskContext, work: Callable[..., Any], finite: bool = True, **matrices: DistMatrix) -> Any:
    """Call `work` with the whole matrices, and return its result on all ranks. Collective over comm.

    Parameters
    ----------
    ctx : TaskContext
        Context of the task.
    work : callable
        Called on one rank with the matrices by position, as Fortran-ordered arrays that it may overwrite. It returns a
        value for every rank, a :class:`Whole` for each result matrix, or a tuple of these.
    finite : bool
        Whether to refuse matrices that contain NaN or Inf.
    **matrices : DistMatrix
        The matrices; errors use the keywords as their names.

    Returns
    -------
    Any
        The result of `work`, with a DistMatrix in place of each :class:`Whole`.

    Raises
    ------
    NonFiniteError
        If a matrix contains NaN or Inf.
    ConvergenceError
        If NumPy or SciPy raised LinAlgError.
    AlchemistError
        If `work` raises it; all ranks raise the same error.
    MatrixMemoryError
        If a rank has not enough memory for its part of a result; the other ranks raise PeerFailedError.
    """
    ranks = ranks_here(ctx.comm)
    if ranks == ctx.comm.size and sum(matrix.nbytes for matrix in matrices.values()) <= REPLICATED:
        return _solved_by_each(ctx, work, {name: replicated(A) for name, A in matrices.items()}, finite)
    wholes = [gathered(matrix) for matrix in matrices.values()]
    if ctx.comm.rank != ROOT:
        return _received(ctx)
    try:
        if finite:
            _require_finite(ctx, dict(zip(matrices, wholes, strict=True)))
        result = _computed(ctx, work, wholes, ranks)
    except AlchemistError as error:
        _announce(ctx.comm, error)
        raise
    except BaseException:
        _announce(ctx.comm, PeerFailedError(ROOT))
        raise
    skeleton = _described(result)
    _announce(ctx.comm, skeleton)
    return _completed(ctx, skeleton, _each_whole(result))


def _solved_by_each(ctx: TaskContext, work: Callable[..., Any], matrices: dict[str, Array], finite: bool) -> Any:
    """Call `work` on this rank with the whole matrices; return its result with this rank's parts. Local."""
    if finite:
        _require_finite(ctx, matrices)
    return _own_parts(ctx, _computed(ctx, work, list(matrices.values()), 1))


def _own_parts(ctx: TaskContext, result: Any) -> Any:
    """Return a result with a matrix in place of each :class:`Whole`. Local.

    The worker moves the matrices to the memory for results, and reports if there is not enough of it.
    """
    if isinstance(result, tuple):
        return tuple(_own_parts(ctx, member) for member in result)
    return _own_part(ctx, result.array, result.layout) if isinstance(result, Whole) else result


def _own_part(ctx: TaskContext, array: Array, layout: Layout | str) -> DistMatrix:
    shape = array.shape[0], array.shape[1]
    if isinstance(layout, str):
        layout = Layout.of(layout, shape, ctx.comm.size)
    local = np.empty(layout.local_shape(shape, ctx.comm.rank), array.dtype)
    part = DistMatrix(ctx.comm, shape, layout, local, ctx.allocate)
    tiling.scatter(array, local, part.rows, part.cols)
    return part


def _require_finite(ctx: TaskContext, matrices: Mapping[str, Array]) -> None:
    for name, A in matrices.items():
        if not checks.is_finite(A):
            raise NonFiniteError(ctx.task, name)


def _computed(ctx: TaskContext, work: Callable[..., Any], matrices: list[Array], ranks: int) -> Any:
    """Call `work` with whole matrices and the threads of `ranks` ranks; return its result. Local."""
    order = max(max(A.shape) for A in matrices)
    try:
        with threads_of(ranks) if order >= _WORTH_THREADS else nullcontext():
            return work(*matrices)
    except np.linalg.LinAlgError as failure:
        if isinstance(failure, AlchemistError):
            raise
        raise ConvergenceError(ctx.task, str(failure)) from failure


# --- the outcome ------------------------------------------------------------------------------------------------------


def _described(result: Any) -> Any:
    """Return a result with an announcement in place of each :class:`Whole`. Local."""
    if isinstance(result, Whole):
        array = result.array
        embedded = array if array.nbytes <= _EMBEDDED else None
        return _Announced((array.shape[0], array.shape[1]), array.dtype, result.layout, embedded)
    return tuple(_described(member) for member in result) if isinstance(result, tuple) else result


def _each_whole(result: Any) -> list[Array]:
    """Return the arrays of all :class:`Whole` of a result, in order. Local."""
    if isinstance(result, Whole):
        return [result.array]
    return [array for member in result for array in _each_whole(member)] if isinstance(result, tuple) else []


def _announce(comm: MPI.Comm, outcome: Any) -> None:
    """Send the outcome to the other ranks. Collective over comm, together with :func:`_received`."""
    if comm.size == 1:
        return
    octets = MPI.pickle.dumps(outcome)  # like bcast, in which the waiting ranks would use their cores
    envelope = np.zeros(_ENVELOPE, np.uint8)
    envelope[:8] = np.frombuffer(len(octets).to_bytes(8, "little"), np.uint8)
    begin = octets[: _ENVELOPE - 8]
    envelope[8 : 8 + len(begin)] = np.frombuffer(begin, np.uint8)
    comm.Ibcast([envelope, MPI.BYTE], ROOT).Wait()
    if len(octets) > len(begin):
        comm.Bcast([np.frombuffer(octets[len(begin) :], np.uint8), MPI.BYTE], ROOT)


def _received(ctx: TaskContext) -> Any:
    """Return this rank's share of the result of :data:`ROOT`, or raise its error. Collective over comm."""
    comm, envelope = ctx.comm, np.empty(_ENVELOPE, np.uint8)
    finish_asleep(comm.Ibcast([envelope, MPI.BYTE], ROOT))
    length = int.from_bytes(envelope[:8].tobytes(), "little")
    octets = envelope[8 : 8 + length].tobytes()
    if length > len(octets):
        rest = np.empty(length - len(octets), np.uint8)
        comm.Bcast([rest, MPI.BYTE], ROOT)
        octets += rest.tobytes()
    outcome = MPI.pickle.loads(octets)
    if isinstance(outcome, AlchemistError):
        raise outcome
    return _completed(ctx, outcome, None)


def _completed(ctx: TaskContext, skeleton: Any, wholes: list[Array] | None) -> Any:
    """Return a result with its matrices distributed. Collective over comm."""
    matrices = _each_announced(skeleton)
    if not matrices:
        return skeleton
    with Agreement(ctx.comm):
        dealt = [ctx.empty(each.shape, each.dtype, each.layout) for each in matrices]
    for i, (announced, target) in enumerate(zip(matrices, dealt, strict=True)):
        if announced.array is not None:
            tiling.scatter(announced.array, target.local, target.rows, target.cols)
        else:
            deal(target, None if wholes is None else wholes[i])
    return _filled(skeleton, iter(dealt))


def _each_announced(skeleton: Any) -> list[_Announced]:
    if isinstance(skeleton, _Announced):
        return [skeleton]
    return [each for member in skeleton for each in _each_announced(member)] if isinstance(skeleton, tuple) else []


def _filled(skeleton: Any, dealt: Any) -> Any:
    if isinstance(skeleton, _Announced):
        return next(dealt)
    return tuple(_filled(member, dealt) for member in skeleton) if isinstance(skeleton, tuple) else skeleton
