"""Load libraries and run their tasks on one rank: the commands of the control connection."""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import (
    AlchemistError,
    InvalidArrayError,
    LibraryNotFoundError,
    LocalProtocolError,
    RemoteTaskError,
    TaskNotFoundError,
)
from alchemist_ray.layouts.spec import MatrixSpec, SparseSpec
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.library import Task, TaskLibrary, load
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.matrices.replicas import replicate
from alchemist_ray.mpi_backend.matrices.sparse import SparseDistMatrix
from alchemist_ray.mpi_backend.registry import Registry
from alchemist_ray.mpi_backend.worker.store import Store, StoredMatrix
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.values import MatrixReference, encode
from alchemist_ray.transport.channel import Channel

C = TypeVar("C", m.RunTask, m.StepSimulation, m.AdvanceBatch, m.LoadLibrary)

PROGRESS_SECONDS = 0.1
"""Progress is reported at most this often."""

log = logging.getLogger("alchemist")


class TaskRunner:
    """Runs the session's commands on one rank. Only the thread that calls MPI may call :meth:`serve`.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks of the group.
    store : Store
        This rank's matrices.
    host : str
        Host name, for errors.
    registry : callable
        Makes the registry of libraries when the first library is loaded. The registry decides here, where libraries
        are imported, what a client may load: a check in the client or in the driver would not stop a malicious client.
    directories : tuple of Path
        Directories under which tasks may read and write files.
    scratch : Path
        This rank's scratch directory.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        store: Store,
        host: str,
        registry: Callable[[], Registry],
        directories: tuple[Path, ...] = (),
        scratch: Path = Path(),
    ) -> None:
        self._comm = comm.Dup()
        self._rank = comm.rank
        self._agreement = comm.Dup()  # a communicator of its own, so that no message of a library interferes
        self._store = store
        self._host = host
        self._libraries: dict[str, TaskLibrary] = {}
        self._loaded: dict[str, tuple[str, float]] = {}  # name -> source and modification time of its file
        self._make_registry = registry
        self._directories = directories
        self._scratch = scratch
        self._cancelled = 0  # the last command whose caller has cancelled it, written by a matrix thread
        self._registry: Registry | None = None
        self.running = ""
        self._started = 0.0

    def cancel(self, command: int) -> None:
        """Ask the task that was started as this command, or an earlier one, to stop. Any thread may call this."""
        self._cancelled = max(self._cancelled, command)

    @property
    def running_seconds(self) -> float:
        """Seconds since the running task started."""
        return time.monotonic() - self._started if self.running else 0.0

    def serve(self, channel: Channel, command: m.Message) -> None:
        """Carry out one command and answer it."""
        match command:
            case m.RunTask():
                self._answer(channel, command, f"{command.library}.{command.task}", self._run)
            case m.StepSimulation():
                self._answer(channel, command, f"{command.library}.step", self._advance)
            case m.AdvanceBatch():
                self._answer(channel, command, f"{command.library}.advance_batch", self._advance_batch)
            case m.LoadLibrary():
                self._answer(channel, command, f"loading library {command.name}", self._load)

    def _answer(
        self, channel: Channel, command: C, what: str, carry_out: Callable[[Channel, C, str], m.Message]
    ) -> None:
        """Answer `command` with the message that `carry_out` returns, or with the failure that it raises."""
        self.running, self._started = what, time.monotonic()
        request = command.request
        try:
            reply = carry_out(channel, command, what)
        except AlchemistError as error:
            reply = m.Failure.of(request, error, self._rank, self._host, _remote_traceback(error))
        except BaseException as error:  # noqa: BLE001 - the library's own code, which may also call exit()
            wrapped = RemoteTaskError(what, type(error).__name__, _text_of(error))
            reply = m.Failure.of(request, wrapped, self._rank, self._host, traceback.format_exc())
        finally:
            self.running = ""
        try:
            channel.send(reply)
        except LocalProtocolError as unspeakable:
            wrapped = RemoteTaskError(f"the result of {what}", "TypeError", unspeakable.reason)
            channel.send(m.Failure.of(request, wrapped, self._rank, self._host))
        _flush()

    def _load(self, channel: Channel, command: m.LoadLibrary, what: str) -> m.Message:
        with Agreement(self._agreement):
            if self._registry is None:
                self._registry = self._make_registry()
            source = self._registry.resolve(command.name, command.path)
            identity = source, _changed(source)
            library = self._libraries.get(command.name)
            if library is None or self._loaded[command.name] != identity:
                library = load(command.name, source)
                log.info("Library %s loaded from %s", command.name, source)
        self._libraries[command.name], self._loaded[command.name] = library, identity
        return m.Done(command.request, library.description.to_wire() if self._rank == 0 else None)

    def _run(self, channel: Channel, command: m.RunTask, what: str) -> m.Message:
        task = self._find(command.library, command.task)
        task.description.check_bound(what, command.arguments)
        arguments = self._resolve(command.arguments)
        context = self._context(channel, command, what)
        started = time.perf_counter()
        result = task(context, arguments)
        seconds = time.perf_counter() - started
        del arguments
        kept: list[Any] = []
        try:
            result = self._keep(result, command.first_id, kept)
        except BaseException:
            self._store.free([matrix_id for matrix_id, _ in kept])
            raise
        return m.TaskDone(command.request, result if self._rank == 0 else None, kept, seconds, _digest(result))

    def _advance(self, channel: Channel, command: m.StepSimulation, what: str) -> m.Message:
        library = self._libraries.get(command.library)
        if library is None or library.simulations is None:
            raise LibraryNotFoundError(command.library, sorted(self._libraries))
        context = self._context(channel, command, what)
        found = library.simulations.step_flat(context, command.simulation, np.frombuffer(bytearray(command.action)))
        if found is None or self._rank != 0:
            return m.Done(command.request)
        state, score, finished, info = found
        octets, dtype, shape = state.tobytes(), state.dtype.str, list(state.shape)
        return m.SimulationStepped(command.request, octets, dtype, shape, score, finished, info)

    def _advance_batch(self, channel: Channel, command: m.AdvanceBatch, what: str) -> m.Message:
        library = self._libraries.get(command.library)
        if library is None or library.batches is None:
            raise LibraryNotFoundError(command.library, sorted(self._libraries))
        context = self._context(channel, command, what)
        found = library.batches.advance_flat(context, command.batch, command.orders, command.actions, command.seeds)
        if found is None:
            return m.Done(command.request)
        states, numbers, names, notes = found
        octets, dtype, shape = b"", "", []
        if states is not None:
            octets, dtype, shape = states.tobytes(), states.dtype.str, list(states.shape)
        return m.BatchAdvanced(command.request, octets, dtype, shape, numbers.tobytes(), len(numbers), names, notes)

    def _context(
        self, channel: Channel, command: m.RunTask | m.StepSimulation | m.AdvanceBatch, what: str
    ) -> TaskContext:
        request = command.request
        return TaskContext(
            comm=self._comm,
            task=what,
            allocate=self._store.arena.allocate,
            report=_Reporter(channel, request),
            directories=self._directories,
            cancelled=lambda: self._cancelled >= request,
            make_scratch=lambda: self._scratch,
            log=_logger(command.library),
        )

    def _find(self, library_name: str, task_name: str) -> Task:
        library = self._libraries.get(library_name)
        if library is None:
            raise LibraryNotFoundError(library_name, sorted(self._libraries))
        task = library.tasks.get(task_name)
        if task is None:
            raise TaskNotFoundError(library_name, task_name, sorted(library.tasks))
        return task

    # --- matrices in and out ------------------------------------------------------------------------------------------

    def _resolve(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Replace references to matrices by the matrices. Collective if the arguments contain references."""
        if not any(isinstance(value, MatrixReference) for value in arguments.values()):
            return arguments
        with Agreement(self._agreement):
            found = {
                name: self._store.get_complete(value.matrix_id)
                for name, value in arguments.items()
                if isinstance(value, MatrixReference)
            }
        return {**arguments, **{name: self._as_argument(stored) for name, stored in found.items()}}

    def _as_argument(self, stored: StoredMatrix) -> DistMatrix | SparseDistMatrix:
        """Return a matrix as tasks see it; copies on several ranks are filled first. Collective."""
        spec, allocate = stored.spec, self._store.arena.allocate
        if isinstance(spec, SparseSpec):
            return SparseDistMatrix(self._comm, spec.shape, spec.dtype, spec.counts, stored.local, allocate)
        matrix = DistMatrix(self._comm, spec.shape, spec.layout, stored.local, allocate)
        if not stored.replicated:
            replicate(matrix)
            stored.replicated = True
        return matrix

    def _keep(self, value: Any, first_id: int, kept: list[Any]) -> Any:
        """Store the matrices of a result and replace them by references; append their ids and specs to `kept`."""
        if isinstance(value, (DistMatrix, SparseDistMatrix)):
            matrix_id = first_id + len(kept)
            if isinstance(value, SparseDistMatrix):
                spec: MatrixSpec | SparseSpec = SparseSpec(value.shape, value.dtype, value.counts)
                self._store.adopt(matrix_id, spec, value.buffer)
            else:
                spec = MatrixSpec(value.shape, value.dtype, value.layout)
                self._store.adopt(matrix_id, spec, value.local)
            kept.append([matrix_id, spec.to_wire()])
            return MatrixReference(matrix_id)
        if isinstance(value, (list, tuple)):
            return [self._keep(member, first_id, kept) for member in value]
        if isinstance(value, dict):
            return {name: self._keep(member, first_id, kept) for name, member in value.items()}
        return value


@functools.cache
def _logger(library: str) -> logging.Logger:
    return logging.getLogger(f"alchemist.{library}")


def _changed(source: str) -> float:
    """Return the modification time of a library's file; 0 for an importable module, which is never reloaded."""
    path = Path(source)
    return path.stat().st_mtime if path.is_file() else 0.0


def _digest(result: Any) -> bytes:
    """Return a hash by which results are compared; empty for None."""
    if result is None:
        return b""
    try:
        return hashlib.blake2b(encode(result), digest_size=16).digest()
    except (TypeError, ValueError, OverflowError, InvalidArrayError):
        return b"unspeakable"  # rank 0 reports the error


class _Reporter:
    """Sends a task's progress to the session's owner at a limited rate."""

    def __init__(self, channel: Channel, request: int) -> None:
        self._channel = channel
        self._request = request
        self._last = 0.0

    def __call__(self, done: float, total: float, text: str) -> None:
        now = time.monotonic()
        if not (math.isfinite(done) and math.isfinite(total)):
            return
        if now - self._last >= PROGRESS_SECONDS or done >= total:
            self._last = now
            self._channel.send(m.Progress(self._request, float(done), float(total), text))


def _text_of(error: BaseException) -> str:
    """Return the text of an exception of a library, even if its ``__str__`` fails."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the library's own code
        return f"(its text raises {type(failure).__name__})"


def _remote_traceback(error: AlchemistError) -> str:
    """Return the traceback of an error that has a cause. An error of ours without one was raised on purpose."""
    return "".join(traceback.format_exception(error)) if error.__cause__ is not None else ""


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
