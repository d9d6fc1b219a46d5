"""Compiled code that can be stopped: a computation in a child process, whose result comes back in shared memory.

A thread cannot be stopped while it is in LAPACK, and a rank cannot be killed without its group and all matrices. So a
long computation that calls no MPI runs in a fork of its rank (:func:`run`). The child has all that the rank has in
memory, so nothing is handed over to it; matrices of the rank lie in a shared mapping, which a fork does not copy. What
it returns is written to an anonymous file, which the rank maps. When the task is cancelled the child is killed.

Measured on two busy cores: 20 to 40 ms for a call that does nothing, with 4 GB of matrices or none. A new interpreter
that imports SciPy took 1.2 to 2.6 s there; to be quick the second time it would have to stay in memory. Results are
bitwise those of the rank. A fork of a process with threads is safe here because of what the child does: only the
thread that computes forks, Python, the C library and OpenBLAS renew their own locks and threads in the child, and it
never calls MPI. OpenMP of GCC does not: code that uses it may hang in the child if it has used it in the rank before.

The child gives up the sockets and pipes of its rank, so that their other ends see at once when the rank is gone. The
kernel kills it when its rank dies, and, where memory runs out, takes the child and not the rank.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import mmap
import os
import pickle
import select
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from alchemist_ray.errors import AlchemistError, RemoteTaskError, TaskKilledError

T = TypeVar("T")

log = logging.getLogger("alchemist.library")

LOOK_SECONDS = 0.02
"""How often the rank looks whether its task was cancelled, while it waits for the child."""

_IN_BAND = 1 << 16
"""Bytes up to which an array is pickled with the rest of the result."""
_ALIGNMENT = 64
_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500
"""By how many thousandths of the machine's memory the child looks larger to the kernel than it is."""
_LIBC = ctypes.CDLL(None)
_INDEX = struct.Struct("=QQ")


class StoppedError(Exception):
    """The child was killed, as its rank wanted."""


def run(work: Callable[[], T], task: str, cancelled: Callable[[], bool]) -> T:
    """Return what `work` returns, which a child process computes. Local.

    If no process can be started, this process computes it and logs a warning.

    Parameters
    ----------
    work : callable
        Is called in the child. It must not use MPI, nor the sockets and pipes of this process. What it returns is
        pickled; arrays that are contiguous come back in memory that the child has written, without a further copy.
    task : str
        For messages.
    cancelled : callable
        Whether to kill the child; looked at every :data:`LOOK_SECONDS`.

    Raises
    ------
    StoppedError
        If the child was killed for that.
    TaskKilledError
        If it died of anything else: the kernel kills where memory runs out, compiled code crashes.
    BaseException
        What `work` raises, with the traceback in the child as a note.
    """
    sys.stdout.flush()
    sys.stderr.flush()  # what waits in their buffers would be written by both
    memory = os.memfd_create("alchemist-result", os.MFD_CLOEXEC)
    source, sink = os.pipe()
    try:
        pid = _fork(work, task, memory, sink)
        os.close(sink)
        sink = -1
        if pid is not None:
            return cast(T, _read(memory, *_wait(pid, source, task, cancelled)))
    finally:
        for descriptor in (memory, source, sink):
            if descriptor >= 0:
                os.close(descriptor)
    return work()


def _fork(work: Callable[[], Any], task: str, memory: int, sink: int) -> int | None:
    """Start the child; return its process id, or None if there can be none."""
    rank = os.getpid()
    try:
        pid = os.fork()
    except OSError as failure:
        log.warning("%s cannot be cancelled while it computes: no child process (%s)", task, failure)
        return None
    if pid == 0:
        _be_child(work, task, rank, memory, sink)
    return pid


# --- the rank ---------------------------------------------------------------------------------------------------------


def _wait(pid: int, source: int, task: str, cancelled: Callable[[], bool]) -> tuple[int, int]:
    """Wait for the child, or kill it; return where its outcome lies in the file."""
    poller = select.poll()
    poller.register(source, select.POLLIN)
    killed = True
    try:
        while not poller.poll(1000 * LOOK_SECONDS):
            if cancelled():
                raise StoppedError
        octets = os.read(source, _INDEX.size)
        killed = False
    finally:
        if killed:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if len(octets) < _INDEX.size:
        raise TaskKilledError(task, _cause(os.waitstatus_to_exitcode(status)))
    offset, length = _INDEX.unpack(octets)
    return offset, length


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _read(memory: int, offset: int, length: int) -> Any:
    """Return the result that the child has written, its arrays in the memory of the file; or raise what it raised."""
    view = memoryview(mmap.mmap(memory, 0))
    head, spans = pickle.loads(view[offset : offset + length])  # noqa: S301 - of our own child
    failed, outcome = pickle.loads(head, buffers=[view[first:last] for first, last in spans])  # noqa: S301
    if failed:
        raise outcome
    return outcome


# --- the child --------------------------------------------------------------------------------------------------------


def _be_child(work: Callable[[], Any], task: str, rank: int, memory: int, sink: int) -> NoReturn:
    """Be the child: compute, write, end. Nothing that the rank has to do at its end is done here."""
    status = 1
    try:
        gc.disable()  # what it would collect is the rank's
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == rank:  # else it is gone already
            _give_up_connections(sink)
            _offer_to_the_kernel()
            index = _write(memory, *_outcome(work, task))
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(sink, index)
            status = 0
    except BaseException:  # noqa: BLE001 - such as memory that runs out while results are written
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _give_up_connections(sink: int) -> None:
    """Close the sockets and pipes of the rank, except its output and `sink`."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor in (1, 2, sink):
            continue
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith(("socket:", "pipe:")):
                os.close(descriptor)
        except OSError:  # the one that listed them
            continue


def _offer_to_the_kernel() -> None:
    """Have the kernel kill this process before its rank, should memory run out."""
    path = Path("/proc/self/oom_score_adj")
    try:
        path.write_text(str(min(1000, int(path.read_text()) + _OOM_SCORE)))
    except OSError:  # a container may not allow it
        return


def _outcome(work: Callable[[], Any], task: str) -> tuple[bytes, list[memoryview]]:
    """Return whether `work` has failed, with its result or error, pickled, and the memory of large arrays of it."""
    large: list[memoryview] = []

    def put_beside(buffer: pickle.PickleBuffer) -> bool:
        """Note a large buffer; say of a small one that it is to be pickled with the rest."""
        octets = buffer.raw()
        if octets.nbytes > _IN_BAND:
            large.append(octets)
        return octets.nbytes <= _IN_BAND

    try:
        return pickle.dumps((False, work()), protocol=5, buffer_callback=put_beside), large
    except BaseException as failure:  # noqa: BLE001 - of the library's own code, for the rank to raise
        return _pickled(failure, task), []


def _pickled(failure: BaseException, task: str) -> bytes:
    """Return an error for the rank to raise, pickled; another one with its text if it cannot be."""
    if not isinstance(failure, AlchemistError):
        failure.add_note(f"\nTraceback in the child process:\n{traceback.format_exc().rstrip()}")
    try:
        octets = pickle.dumps((True, failure))
        pickle.loads(octets)  # noqa: S301 - not every class can be made again from what it pickles
    except Exception:  # noqa: BLE001 - the library's own class
        return pickle.dumps((True, RemoteTaskError(task, type(failure).__name__, str(failure))))
    return octets


def _write(memory: int, head: bytes, large: list[memoryview]) -> bytes:
    """Write an outcome to the file; return where the index of it begins and how long it is."""
    spans, offset = [], 0
    for octets in large:
        spans.append((offset, offset + octets.nbytes))
        _write_at(memory, octets, offset)
        offset += -(-octets.nbytes // _ALIGNMENT) * _ALIGNMENT
    index = pickle.dumps((head, spans))
    _write_at(memory, memoryview(index), offset)
    return _INDEX.pack(offset, len(index))


def _write_at(memory: int, octets: memoryview, offset: int) -> None:
    while octets.nbytes:
        written = os.pwrite(memory, octets, offset)  # at most 2 GiB at a time
        octets, offset = octets[written:], offset + written
