"""A library that misbehaves on purpose."""

import ctypes
import os
import signal
import sys
import time
from typing import Annotated, Any, Literal

import numpy as np
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task

__version__ = "3.1"


@task
def echo(ctx: TaskContext, value: Any) -> Any:
    """Return the value."""
    return value


@task
def typed(ctx: TaskContext, A: DistMatrix, k: int, *, tol: float = 1e-3, name: str | None = None) -> dict:
    """Take one argument of each kind."""
    return {"shape": list(A.shape), "k": k, "tol": tol, "name": name}


@task
def scale(ctx: TaskContext, A: DistMatrix, factor: float) -> DistMatrix:
    """Return factor * A."""
    B = A.new(A.shape, A.layout)
    np.multiply(A.local, factor, out=B.local)
    return B


@task
def total(ctx: TaskContext, A: DistMatrix) -> float:
    """Return the sum of all elements, computed in a non-redundant layout."""
    local = A.relayout("VC_STAR").local
    return float(ctx.comm.allreduce(local.sum()))


@task
def local_sums(ctx: TaskContext, A: DistMatrix) -> list:
    """Return the sum of the elements that each rank holds."""
    return ctx.comm.allgather(float(A.local.sum()))


@task
def raise_on(ctx: TaskContext, rank: int, message: str) -> None:
    """Raise ValueError on one rank; the others return."""
    if ctx.comm.rank == rank:
        raise ValueError(message)


@task
def raise_on_and_wait(ctx: TaskContext, rank: int) -> None:
    """Raise on one rank while the others wait for it in MPI, endlessly."""
    if ctx.comm.rank == rank:
        raise RuntimeError("left the others waiting")
    ctx.comm.barrier()


@task
def leave(ctx: TaskContext) -> None:
    """Call exit()."""
    sys.exit(3)


@task
def crash(ctx: TaskContext, rank: int) -> None:
    """Die of a segmentation fault on one rank."""
    if ctx.comm.rank == rank:
        os.kill(os.getpid(), signal.SIGSEGV)
    ctx.comm.barrier()


@task
def nap(ctx: TaskContext, seconds: float) -> float:
    """Sleep, and report the progress of the sleep."""
    for tenth in range(10):
        ctx.progress(tenth, 10, "sleeping")
        time.sleep(seconds / 10)
    ctx.progress(10, 10, "awake")
    return seconds


@task
def unspeakable(ctx: TaskContext) -> Any:
    """Return a value that cannot cross the wire."""
    return {1, 2, 3}


@task
def one_sided(ctx: TaskContext, bytes_on_last: int) -> DistMatrix:
    """Return a matrix with elements on the last rank only."""
    import dataclasses

    from alchemist_ray.layouts.layout import Layout

    shape = (1, max(1, bytes_on_last // 8))
    layout = dataclasses.replace(Layout.of("CIRC_CIRC", shape, ctx.comm.size), align=(ctx.comm.size - 1, 0))
    local = np.zeros(layout.local_shape(shape, ctx.comm.rank))
    return DistMatrix(ctx.comm, shape, layout, local)


@task
def half_kept(ctx: TaskContext, rows: int) -> list:
    """Return two matrices, the second of an unknown element type."""
    return [ctx.empty((rows, 100), "float64", "VC_STAR"), ctx.empty((rows, 100), "int8", "VC_STAR")]


@task
def seize(ctx: TaskContext) -> None:
    """Sleep with the interpreter lock held, so that no other thread of the worker runs."""
    ctypes.PyDLL(None).sleep(30)


@task
def count(ctx: TaskContext, steps: int, seconds: float = 0.02) -> int:
    """Take this many steps, and check for cancellation before each; rank 1 is slower than the others."""
    for step in range(steps):
        ctx.check_cancelled()
        ctx.progress(step, steps, "counting")
        time.sleep(seconds * (1 + (ctx.comm.rank == 1)))
    return steps


@task
def count_with_matrix(ctx: TaskContext, steps: int) -> DistMatrix:
    """Make a matrix, take this many steps, and return it."""
    A = ctx.empty((1000, 100), "float64", "VC_STAR")
    A.local[...] = count(ctx, steps)
    return A


@task
def hang(ctx: TaskContext, rank: int) -> None:
    """Wait on one rank for a message that never comes."""
    if ctx.comm.rank == rank:
        ctx.comm.recv(source=rank, tag=77)


@task
def lie(ctx: TaskContext, how: Literal["scalar", "array", "type", "none", "shape", "number"]) -> Any:
    """Return a different value on each rank."""
    rank = ctx.comm.rank
    match how:
        case "scalar":
            return rank
        case "array":
            return np.full(3, float(rank == 1))
        case "type":
            return 1 if rank == 0 else 1.0
        case "none":
            return None if rank == 0 else rank
        case "shape":
            return ctx.empty((100 + rank, 7), "float64", "VC_STAR")
        case _:
            return [ctx.empty((8, 8), "float64", "VC_STAR") for _ in range(1 + rank)]


@task
def only_on_root(ctx: TaskContext) -> float | None:
    """Return a value on rank 0 only."""
    return 2.5 if ctx.comm.rank == 0 else None


@task
def same_everywhere(ctx: TaskContext) -> dict:
    """Return the same on every rank, NaN included."""
    return {"x": np.array([1.0, np.nan]), "y": [1, "two", 3j]}


@task
def is_thread_multiple(ctx: TaskContext) -> bool:
    """Return whether all ranks have MPI's highest thread level."""
    return ctx.comm.allreduce(MPI.Query_thread() == MPI.THREAD_MULTIPLE, MPI.LAND)


@task
def abort(ctx: TaskContext, rank: int) -> None:
    """Call MPI_Abort on one rank."""
    if ctx.comm.rank == rank:
        ctx.comm.Abort(7)
    ctx.comm.barrier()


@task
def hold_lock(ctx: TaskContext, seconds: float) -> None:
    """Stay in C for so long, with the lock of the interpreter held."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@task
def receive_from_any(ctx: TaskContext, rounds: int) -> int:
    """Have rank 0 receive from any source what all others send; return the sum of the senders' ranks."""
    comm, total = ctx.comm, 0
    if comm.rank:
        for _ in range(rounds):
            comm.Send(np.array([comm.rank]), dest=0)
    else:
        received = np.zeros(1, np.int64)
        for _ in range(rounds * (comm.size - 1)):
            comm.Recv(received)
            total += int(received[0])
    return comm.bcast(total)


@task
def quit_process(ctx: TaskContext) -> None:
    """Call the exit() of C."""
    ctypes.CDLL(None).exit(3)


@task
def shout(ctx: TaskContext, megabytes: int, how: Literal["python", "c", "c_with_lock"]) -> None:
    """Print this much on every rank."""
    line = b"x" * 1023 + b"\n"
    libc = ctypes.PyDLL(None) if how == "c_with_lock" else ctypes.CDLL(None)
    for _ in range(megabytes):
        if how == "python":
            sys.stdout.write((line * 1024).decode())
        else:
            libc.write(1, line * 1024, 2**20)
    print("the last word")


@task
def say(ctx: TaskContext, words: str) -> None:
    """Print, log, and write to stderr, from Python and from C."""
    print(f"{words} printed by rank {ctx.comm.rank}")
    print(f"{words} to stderr", file=sys.stderr)
    ctx.log.info("%s logged", words)
    ctypes.CDLL(None).puts(f"{words} by C".encode())
    ctypes.CDLL(None).fflush(None)


@task
def leave_file(ctx: TaskContext) -> list:
    """Write a file to the scratch directory; return the directory of each rank."""
    (ctx.scratch / "left").write_text(str(ctx.comm.rank))
    return ctx.comm.allgather(str(ctx.scratch))


@task
def layout_of(ctx: TaskContext, A: Annotated[DistMatrix, "VC_STAR"]) -> list:
    """Return the layout in which a matrix arrived, and the sum of its elements."""
    return [A.layout.pair, ctx.comm.allreduce(float(A.local.sum()))]


@task
def choose(ctx: TaskContext, method: Literal["fast", "exact", 3] | None = "fast") -> Any:
    """Return the choice."""
    return method


@task
def report_and_look(ctx: TaskContext, seconds: float, total: float = 1.0) -> str:
    """Report progress twenty times a second, and check for cancellation each time."""
    for step in range(int(seconds * 20)):
        ctx.check_cancelled()
        ctx.progress(step / 20, total, "reporting")
        time.sleep(0.05)
    return "done"


@task
def odd_words(ctx: TaskContext, how: Literal["message", "result", "text"]) -> Any:
    """Raise an error whose text is not UTF-8, or whose text cannot be made."""
    if how == "message":
        raise OSError("file \udcff is missing")
    if how == "result":
        return "\udcff"

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    raise Mute


@task
def types_of(
    ctx: TaskContext, x: np.ndarray, t: tuple[int, int], c: complex, f: float, either: list | np.ndarray
) -> list:
    """Return a description of the arguments."""
    return [type(value).__name__ for value in (x, t, c, f, either)]


class Odd(Exception):
    """Cannot be made again from what it pickles."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


@task
def compute_in_child(
    ctx: TaskContext, A: DistMatrix, how: Literal["return", "raise", "raise odd", "unpicklable", "crash", "exit"]
) -> Any:
    """Have each rank double its block in a child process, in shared memory; or fail there on rank 1."""
    B = ctx.empty(A.shape, A.dtype, A.layout)

    def work() -> Any:
        np.multiply(A.local, 2, out=B.local)
        if how == "return" or ctx.comm.rank != 1:
            return np.full((100, 1000), float(ctx.comm.rank))[::2].T
        if how == "raise":
            raise ValueError("refused in the child")
        if how == "raise odd":
            raise Odd(1, 2)
        if how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "exit":
            os._exit(3)
        return lambda: None

    found = ctx.run_in_child(work)
    return B, ctx.comm.allgather(float(found[7, 7]))
