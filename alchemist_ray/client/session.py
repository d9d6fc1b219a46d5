"""A session: one client application's connection to a server, its workers, libraries and matrices.

No Ray and no MPI here. The names are those of the 2019 interface (ACIPython).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.address import Endpoint, GroupAddress
from alchemist_ray.client.libraries import Library, check_timeout, whole_number
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.hdf5_source import open_dataset
from alchemist_ray.client.matrices.server_files import Path, local_library, read_file, resolve_paths
from alchemist_ray.client.matrices.sparse import is_sparse
from alchemist_ray.client.matrices.store import MatrixStore
from alchemist_ray.client.matrices.writer import MatrixWriter
from alchemist_ray.client.progress import ProgressBar, ProgressDisplay
from alchemist_ray.client.simulations import BatchStep, SimulationSteps, Step
from alchemist_ray.client.worker_request import WorkerRequest
from alchemist_ray.client.workers import ON_STOPPED, SessionWorkers
from alchemist_ray.errors import InvalidArrayError
from alchemist_ray.layouts.choice import LayoutChoice, LayoutLike, LayoutOptions
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.descriptions import TaskDescription

Array = npt.NDArray[Any]


class AlchemistSession:
    """One client application's connection to an Alchemist server.

    ::

        with AlchemistSession() as als:                       # a server of this process
            als.request_workers(2)
            linalg = als.load_library("linalg")
            A = als.send_matrix(np.random.rand(1000, 100))
            U, S, Vt = linalg.truncated_svd(A, k=10)
            print(S, np.asarray(U).shape)

    Parameters
    ----------
    verbose : bool, optional
        Whether to print each action of the session to stdout; by default in an interactive interpreter.
    transport : {"auto", "tcp"}
        How matrices move: over shared memory where possible, or always over TCP.
    task_timeout : float, optional
        Time limit of each task in seconds, unless :meth:`Library.options` sets another; unlimited by default.
    on_stopped : {"wait", "end"}
        What to do when a rank is stopped (by SIGSTOP or a debugger) while a task runs: wait, with a warning; or end the
        worker group.

    Attributes
    ----------
    make_progress : callable
        ``make_progress(task)`` returns the display of a task's progress.
    is_cancelled : callable or None
        Called every few tenths of a second while a task runs. The task is cancelled when it returns True.

    Notes
    -----
    Several threads may use a session; its commands run one after the other, in the order in which they came. A forked
    child cannot use the session of its parent (:class:`~alchemist_ray.errors.ForkedSessionError`), but it can read
    matrices through their handles.
    """

    def __init__(
        self,
        *,
        verbose: bool | None = None,
        transport: str = "auto",
        task_timeout: float | None = None,
        on_stopped: str = "wait",
    ) -> None:
        if transport not in ("auto", "tcp"):
            raise ValueError(f"transport must be 'auto' or 'tcp', not {transport!r}")
        if on_stopped not in ON_STOPPED:
            raise ValueError(f"on_stopped must be 'wait' or 'end', not {on_stopped!r}")
        self._verbose = hasattr(sys, "ps1") if verbose is None else verbose
        self.task_timeout = task_timeout
        self.make_progress: Callable[[str], ProgressDisplay] = ProgressBar
        self.is_cancelled: Callable[[], bool] | None = None
        self._workers = SessionWorkers(self, transport, on_stopped)
        self._store = MatrixStore(self._workers)
        self._simulations = SimulationSteps(self._workers, self)
        self._say("Starting Alchemist session ... ready")

    # --- the server ---------------------------------------------------------------------------------------------------

    def connect(self, hostname: str | None = None, port: int | None = None, token: str | None = None) -> Self:
        """Connect to a server.

        Parameters
        ----------
        hostname, port : str, int, optional
            Where it listens. Without both, it is the server that the environment variable ``ALCHEMIST_SERVER`` names,
            as ``HOST:PORT``. Without the variable, too, the session starts a server of this process (once), which stops
            with the process. With a host name alone, the port is 24960.
        token : str, optional
            The server's token; by default from ``ALCHEMIST_TOKEN``, ``ALCHEMIST_TOKEN_FILE`` or the file that a server
            of the same user has written on this machine.

        Returns
        -------
        AlchemistSession
            The session itself.

        Raises
        ------
        ServerUnreachableError
            If no server answers there.
        AuthenticationError
            If the token is wrong or missing.
        ProtocolVersionError
            If the server is of another release.
        ArgumentValueError
            If ``ALCHEMIST_SERVER`` is not a valid address.
        """
        self._workers.check_process()
        with self._workers.lock:
            if self._workers.is_connected:
                self.stop()
            hostname, port, token = self._workers.locate(hostname, port, token)
            self._say(f"Connecting to Alchemist at {hostname}:{port} ...", end="")
            self._workers.connect(hostname, port, token)
            self._say("Connected to Alchemist!")
            return self

    connect_to_alchemist = connect

    @property
    def session_id(self) -> int:
        """Number of the session on its server."""
        return self._workers.session_id

    @property
    def connected(self) -> bool:
        """Whether the session is connected to a server."""
        return self._workers.is_connected

    @property
    def name(self) -> str:
        """The session's name in messages."""
        driver = self._workers.driver()
        return f"{self.session_id}@{driver.hostname}:{driver.port}"

    @property
    def shares_directory(self) -> bool:
        """Whether the server is one of this process, so that relative paths mean the same to both."""
        return self._workers.is_own_server

    def stop(self) -> None:
        """End the session: free its matrices, give its workers back, disconnect. Stopping twice has no effect."""
        self._workers.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- workers ------------------------------------------------------------------------------------------------------

    def request_workers(
        self,
        num_workers: int,
        wait: float = 0.0,
        *,
        placement: str = "pack",
        labels: Mapping[str, str] | None = None,
    ) -> list[Endpoint]:
        """Get a group of workers: an MPI job of `num_workers` ranks for this session alone.

        Parameters
        ----------
        num_workers : int
            How many.
        wait : float
            Seconds to wait for workers that other sessions hold, or for nodes to join. Sessions that wait are served in
            the order in which they came.
        placement : {"pack", "spread", "strict_spread"}
            On as few nodes as possible; on as many as possible; each worker on a node of its own.
        labels : mapping, optional
            Only nodes that have all these labels are used (``alchemist node --label KEY=VALUE``).

        Returns
        -------
        list of Endpoint
            The workers, by rank; ranks of one node are consecutive.

        Raises
        ------
        NotEnoughWorkersError
            If too few are free, also after `wait` seconds; the error says who holds the others.
        ArgumentError, ArgumentValueError
            If an argument is of the wrong type or out of range, or the session has workers already.
        GroupStartError
            If the MPI job does not start (the error has the end of its log), or this process cannot reach it.
        """
        request = WorkerRequest.of(num_workers, wait, placement, labels)
        self._workers.check_process()
        with self._workers.lock:
            self._say(f"Requesting {num_workers} workers from Alchemist")
            address = self._workers.request(request, self.name)
            self._say(f"Total allocated {address.size} workers:")
            for endpoint in address.endpoints:
                self._say(str(endpoint))
            return list(address.endpoints)

    def yield_workers(self) -> None:
        """Give the session's workers back; their matrices are freed.

        Raises
        ------
        NoWorkersError
            If the session has none.
        """
        self._workers.check_process()
        with self._workers.lock:
            self._workers.give_back()

    def list_all_workers(self) -> list[dict[str, Any]]:
        """Return all workers of the server: ``id, name, host, address, port, pid, session, state``."""
        rows: list[dict[str, Any]] = self._workers.ask_beside(m.ListWorkers)
        return rows

    def list_available_workers(self) -> list[dict[str, Any]]:
        """Return the workers that are free."""
        return [row for row in self.list_all_workers() if row["session"] is None]

    def list_assigned_workers(self) -> list[dict[str, Any]]:
        """Return the workers of this session."""
        return [row for row in self.list_all_workers() if row["session"] == self.session_id]

    def server_status(self) -> dict[str, Any]:
        """Return the facts that ``alchemist status`` shows: workers, sessions, matrices and running tasks."""
        status: dict[str, Any] = self._workers.ask_beside(m.AskStatus)
        return status

    @property
    def address(self) -> GroupAddress:
        """Where the session's workers are; with it, any process can read and write their matrices."""
        return self._workers.group().address

    @property
    def num_workers(self) -> int:
        """Number of the session's workers."""
        group = self._workers.current
        return group.address.size if group is not None else 0

    def has_workers(self) -> bool:
        """Whether the session has workers, as far as the server has told."""
        self._workers.check_process()
        with self._workers.lock:
            if self._workers.is_connected and self._workers.current is not None:
                self._workers.take_notices()
            return self._workers.current is not None

    def check_workers(self) -> None:
        """Ask every worker for a sign of life; raise :class:`GroupDiedError` if one gives none."""
        with self._workers.lock:
            group = self._workers.group()
            with self._workers.watching():
                group.check()

    def worker_logs(self, lines: int = 100) -> dict[str, str]:
        """Return the last lines that the session's workers, and the libraries in them, have printed and logged.

        Parameters
        ----------
        lines : int
            How many lines of each worker, at most 10,000.

        Returns
        -------
        dict
            Name of the worker -> text, also of workers that have ended.
        """
        count = whole_number("worker_logs", "lines", lines)
        logs: dict[str, str] = self._workers.ask_beside(lambda n: m.AskLogs(n, count))
        return logs

    # --- libraries ----------------------------------------------------------------------------------------------------

    def list_available_libraries(self) -> list[dict[str, Any]]:
        """Return the libraries that the server offers: ``name, version, source, provider``.

        Nothing is imported for it. The version is read from the source, or is that of the package that registers the
        library; it is empty for a shared object.
        """
        rows: list[dict[str, Any]] = self._workers.ask(m.ListLibraries)
        return rows

    def load_library(self, name: str, path: str | None = None) -> Library:
        """Load a library on the session's workers.

        Parameters
        ----------
        name : str
            Its registered name.
        path : str, optional
            Module or path of a library that is not registered, if the server allows that.

        Returns
        -------
        Library
            Its tasks are methods, with signatures and docstrings.

        Raises
        ------
        LibraryNotFoundError, LibraryRefusedError
            If it is not registered.
        LibraryLoadError
            If its import fails, or its description is wrong.
        """
        with self._workers.lock:
            group = self._workers.group()
            limit = check_timeout(f"loading {name}", self.task_timeout)
            source = None if path is None else local_library(self, path)
            with self._workers.watching():
                library = Library(group.load(name, source, limit, self.is_cancelled), self._run)
            group.libraries[name] = library
            self._say(f"Library '{name}' successfully loaded.")
            return library

    def run_task(self, library: str | Library, task: str, /, **arguments: Any) -> Any:
        """Run a task of a library; the library is loaded first if it is not loaded yet.

        Parameters
        ----------
        library : str or Library
            The library, or its name.
        task : str
            Name of the task.
        **arguments
            Its arguments; matrices as handles.

        Returns
        -------
        Any
            The task's result; matrices as handles.

        Raises
        ------
        TaskNotFoundError, ArgumentError
            If the task does not exist, or an argument is missing, unknown or of the wrong type.
        ForeignMatrixError, FreedMatrixError
            If a handle is of another session, or freed.
        TaskError
            If the task fails; TaskTimeoutError and TaskCancelledError are of this kind.
        GroupDiedError
            If the workers die.
        """
        name = library.name if isinstance(library, Library) else library
        loaded = self._workers.group().libraries.get(name) or self.load_library(name)
        return self._run(name, loaded.task(task), (), arguments)

    def _run(
        self,
        library: str,
        task: TaskDescription,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None = None,
    ) -> Any:
        """Run a task; every function of a library comes here."""
        limit = check_timeout(f"{library}.{task.name}", self.task_timeout if timeout is None else timeout)
        self._workers.check_process()
        with self._workers.lock:
            group = self._workers.group()
            label = f"{library}.{task.name}"
            arguments = resolve_paths(self, task, group.bind(label, task, args, kwargs))
            started = time.perf_counter()
            with self._workers.watching(label):
                result = group.run(library, task, arguments, self.make_progress, limit, self.is_cancelled)
            self._say(f"Alchemist started task '{task.name}' ... done ({time.perf_counter() - started:.4e}s)")
            return result

    def cancel(self) -> None:
        """Ask the running task to stop: its caller, in another thread, gets TaskCancelledError.

        A task stops where it calls ``ctx.check_cancelled()`` or computes in a child process, as the linear algebra
        does. A task that does neither runs to its end. If it also has a timeout, the worker group is ended 10 seconds
        after it, and all matrices are lost.
        Ctrl-C in the calling thread, and ``ray.cancel`` of a task that was called through Ray, do the same.
        """
        self._workers.check_process()
        group = self._workers.current
        if group is not None:
            group.cancel()

    # --- simulations --------------------------------------------------------------------------------------------------

    @property
    def simulations(self) -> SimulationSteps:
        """Steps simulations without the overhead of a task; environments hold it."""
        return self._simulations

    def step_simulation(
        self, library: str, simulation: int, action: npt.NDArray[Any], timeout: float | None = None
    ) -> Step:
        """Run the task ``step`` of a simulation library by a shorter message, for loops of a million steps.

        Parameters
        ----------
        library : str
            Name of the library, which has been loaded.
        simulation : int
            Number of the simulation, from ``create``.
        action : ndarray
            Real; the components of its action space, in any shape.
        timeout : float, optional
            Time limit in seconds; unlimited by default.

        Returns
        -------
        state : ndarray
        score : float
        finished : bool
        info : dict

        Raises
        ------
        ArgumentValueError
            If the simulation does not exist, it has not been reset, or the action is not in its space.
        TaskError, GroupDiedError
            As for any task.
        """
        return self._simulations.step(library, simulation, action, timeout)

    def advance_batch(
        self,
        library: str,
        batch: int,
        orders: bytes,
        actions: npt.NDArray[Any] | None = None,
        seeds: Sequence[int | None] = (),
        timeout: float | None = None,
    ) -> BatchStep:
        """Run the task ``advance_batch`` of a simulation library by a shorter message; see the task for details.

        Parameters
        ----------
        library : str
            Name of the library, which has been loaded.
        batch : int
            Number of the batch, from ``create_batch``.
        orders : bytes
            One order for each simulation.
        actions : ndarray, optional
            Real; for each simulation the components of its action space, in any shape.
        seeds : sequence of int or None
            One for each simulation, in case it is reset.
        timeout : float, optional
            Time limit in seconds; unlimited by default.

        Returns
        -------
        states : ndarray or None
        numbers : ndarray
        names : list of str
        notes : list of list
        """
        return self._simulations.advance_batch(library, batch, orders, actions, seeds, timeout)

    # --- matrices -----------------------------------------------------------------------------------------------------

    @property
    def show_progress(self) -> bool | None:
        """Whether long transfers show a progress bar; None: if stderr is a terminal."""
        return self._store.show_progress

    @show_progress.setter
    def show_progress(self, show: bool | None) -> None:
        self._store.show_progress = show

    def send_matrix(
        self,
        matrix: npt.ArrayLike | Iterator[npt.ArrayLike],
        layout: LayoutLike = "MC_MR",
        print_times: bool = False,
        *,
        shape: tuple[int, int] | None = None,
        dtype: npt.DTypeLike | None = None,
        **options: Unpack[LayoutOptions],
    ) -> MatrixHandle:
        """Send a matrix to the session's workers.

        Parameters
        ----------
        matrix : array_like, shape (m, n) or (m,), or iterator of array_like
            Of one of the types float64, float32, complex128, complex64, int64, int32, bool; any strides. A vector
            becomes a matrix of one column. Or blocks of its rows, one after the other, for a matrix that is larger than
            this process's memory. Or a sparse matrix of SciPy's.
        layout : str, Layout or LayoutChoice
            How to distribute it: the name of a distribution pair, e.g. ``"VC_STAR"``, or a whole layout. A sparse
            matrix is always distributed by rows.
        print_times : bool
            Whether to print how long each worker's part took.
        shape : (int, int), optional
            Shape of the whole matrix; needed for an iterator.
        dtype : dtype, optional
            Element type of the whole matrix, for an iterator: its blocks are converted to it. By default the type of
            the first block.
        **options
            ``block_size``, ``grid``, ``align`` of the layout: see :class:`.LayoutOptions`.

        Returns
        -------
        MatrixHandle
            A :class:`~.SparseMatrixHandle` for a sparse matrix.

        Raises
        ------
        InvalidArrayError
            If it has more than two dimensions, another type, or masked elements; or if blocks do not add up to
            `shape`.
        LayoutError
            If the layout does not exist, or does not fit the workers.
        MatrixMemoryError
            If the workers have no room for it; then nothing has been sent.
        """
        choice = LayoutChoice.of(layout, **options)
        if isinstance(matrix, MatrixHandle):
            raise InvalidArrayError("a handle was given where an array is wanted: that matrix is with the workers")
        if isinstance(matrix, Iterator):
            return self._store.send_blocks(matrix, shape, dtype, choice)
        if shape is not None or dtype is not None:
            raise InvalidArrayError("an array has its own shape and dtype: give these for an iterator of blocks only")
        if is_sparse(matrix):
            return self._store.send_sparse(matrix, choice, print_times)
        return self._store.send(matrix, choice, print_times)

    def fetch_matrix(self, handle: MatrixHandle, out: Array | None = None, print_times: bool = False) -> Array:
        """Fetch a matrix from the session's workers.

        Parameters
        ----------
        handle : MatrixHandle
            The matrix. A part of it is ``handle[1000:2000, :]``; ``handle.rows()`` gives one block after the other.
        out : ndarray, optional
            Array of its shape and dtype to fill; a new one by default. To fill an array that was used before is several
            times faster, since the first touch of a page costs more than the copy.
        print_times : bool
            Whether to print how long each worker's part took.

        Returns
        -------
        ndarray, shape (m, n)
            Of a sparse matrix, a ``scipy.sparse.csr_array``.

        Raises
        ------
        ForeignMatrixError, FreedMatrixError
            If the handle is of another session, or freed.
        InvalidArrayError
            If `out` does not fit.
        """
        fetched: Array = self._store.fetch(handle, out, print_times)
        return fetched

    def matrix_writer(
        self,
        shape: tuple[int, int],
        dtype: npt.DTypeLike = np.float64,
        layout: LayoutLike = "MC_MR",
        **options: Unpack[LayoutOptions],
    ) -> MatrixWriter:
        """Make room for a matrix, to be written part by part from any number of processes.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns.
        dtype : dtype
            Element type.
        layout, **options
            How to distribute it; see :meth:`send_matrix`.

        Returns
        -------
        MatrixWriter
            Pickles to other processes; its `close` gives the handle.

        Raises
        ------
        InvalidArrayError, LayoutError
            If such a matrix or layout does not exist.
        MatrixMemoryError
            If the workers have no room for it.
        """
        return self._store.writer(shape, dtype, LayoutChoice.of(layout, **options))

    def send_hdf5(
        self,
        path: str | PathLike[str],
        dataset: str,
        layout: LayoutLike = "MC_MR",
        *,
        selection: Any = ...,
        dtype: npt.DTypeLike | None = None,
        **options: Unpack[LayoutOptions],
    ) -> MatrixHandle:
        """Send a dataset of an HDF5 file on this machine, a block of rows at a time.

        Parameters
        ----------
        path : str
            The file, on this machine; :meth:`read_hdf5` has the workers read one on theirs.
        dataset : str
            Name of the dataset: a matrix, or a vector, which becomes one column.
        layout, **options
            How to distribute it; see :meth:`send_matrix`.
        selection : optional
            A part of the dataset, as one indexes it: ``np.s_[:10_000, :]``, or ``np.s_[:, :, 20]`` for a matrix of a
            dataset that has three dimensions.
        dtype : dtype, optional
            Element type of the matrix; by default the file's, which must be a type of matrices.

        Raises
        ------
        FileMissingError, DatasetMissingError, FileContentError
            If the file or the dataset does not exist, or the dataset is not a matrix.
        InvalidArrayError
            If matrices do not have its type, and `dtype` does not say which type to convert to.
        IndexError
            If `selection` does not name a part of the dataset.
        """
        choice = LayoutChoice.of(layout, **options)
        with open_dataset(path, dataset, dtype, selection) as source:
            return self._store.send_blocks(source.blocks(), source.shape, source.dtype, choice)

    # --- files on the server's host -----------------------------------------------------------------------------------

    def read_hdf5(
        self,
        path: Path,
        dataset: str,
        layout: LayoutLike = "MC_MR",
        *,
        dtype: npt.DTypeLike | None = None,
        **options: Unpack[LayoutOptions],
    ) -> MatrixHandle:
        """Have the workers read a dataset of an HDF5 file; a vector becomes one column.

        Parameters
        ----------
        path : str
            The file, on the server's host, in one of the directories that the server's owner has named. A relative path
            begins at the first of these; on a server of this process, in the current directory.
        dataset : str
            Name of the dataset, e.g. ``"group/name"``.
        layout, **options
            How to distribute the matrix; see :meth:`send_matrix`.
        dtype : dtype, optional
            Element type of the matrix; by default the file's, which must be a type of matrices.

        Raises
        ------
        FileRefusedError
            If the file lies outside the server's directories, or the server may not read it.
        FileMissingError, DatasetMissingError
            If the file or the dataset does not exist.
        FileContentError
            If it is not such a file, ends early, or contains something that a matrix cannot hold.
        MatrixMemoryError
            If the workers have no room for it.
        """
        return read_file(self, "read_hdf5", path, LayoutChoice.of(layout, **options), dtype, dataset=dataset)

    def read_npy(
        self,
        path: Path,
        layout: LayoutLike = "MC_MR",
        *,
        dtype: npt.DTypeLike | None = None,
        **options: Unpack[LayoutOptions],
    ) -> MatrixHandle:
        """Have the workers read a ``.npy`` file; parameters and errors are those of :meth:`read_hdf5`."""
        return read_file(self, "read_npy", path, LayoutChoice.of(layout, **options), dtype)

    def read_zarr(
        self,
        path: Path,
        array: str = "",
        layout: LayoutLike = "MC_MR",
        *,
        dtype: npt.DTypeLike | None = None,
        **options: Unpack[LayoutOptions],
    ) -> MatrixHandle:
        """Have the workers read an array of a Zarr store, a directory; see :meth:`read_hdf5`.

        Parameters
        ----------
        path : str
            The store, on the server's host.
        array : str
            Name of the array in the store; empty if the store is one array.
        layout, dtype, **options
            As for :meth:`read_hdf5`.
        """
        return read_file(self, "read_zarr", path, LayoutChoice.of(layout, **options), dtype, array=array)

    def read_parquet(
        self,
        path: Path,
        columns: Sequence[str] | None = None,
        layout: LayoutLike = "MC_MR",
        *,
        dtype: npt.DTypeLike | None = None,
        **options: Unpack[LayoutOptions],
    ) -> MatrixHandle:
        """Have the workers read numeric columns of a Parquet file, or of a directory of such files.

        Parameters
        ----------
        path : str
            The file or directory, on the server's host.
        columns : sequence of str, optional
            Names of the columns, in the order wanted; by default all columns, except those that pandas has stored as
            the index of a data frame.
        layout, dtype, **options
            As for :meth:`read_hdf5`.
        """
        names = None if columns is None else list(columns)
        return read_file(self, "read_parquet", path, LayoutChoice.of(layout, **options), dtype, columns=names)

    def describe_file(self, path: Path) -> dict[str, Any]:
        """Return the contents of a file on the server's host: its format, and shape and dtype of each matrix in it."""
        described: dict[str, Any] = self.run_task("files", "describe", path=path)
        return described

    # --- words --------------------------------------------------------------------------------------------------------

    def _say(self, text: str, end: str = "\n") -> None:
        if self._verbose:
            print(text, end=end, flush=True)  # noqa: T201 - the interactive session of the paper's Figure 3

    def __repr__(self) -> str:
        if not self._workers.is_connected:
            return "<AlchemistSession, not connected>"
        return f"<AlchemistSession {self.name}, {self.num_workers} workers>"
