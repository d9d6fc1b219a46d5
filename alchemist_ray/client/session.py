"""A session: one client application's connection to a server, its workers, libraries and matrices.

No Ray and no MPI here. The names are those of the 2019 interface (ACIPython).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn, Self

from alchemist_ray.client.address import Endpoint, GroupAddress
from alchemist_ray.client.commands import RanksStuckError
from alchemist_ray.client.driver import REQUEST_SECONDS, DriverConnection
from alchemist_ray.client.group import GroupClient
from alchemist_ray.client.libraries import Library, check_timeout
from alchemist_ray.client.local_server import default_server
from alchemist_ray.client.matrices.store import SessionMatrices
from alchemist_ray.client.progress import ProgressBar, ProgressDisplay
from alchemist_ray.client.simulations import SessionSimulations
from alchemist_ray.errors import (
    AlchemistError,
    GroupDiedError,
    GroupStartError,
    NotConnectedError,
    NoWorkersError,
)
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.descriptions import TaskDescription

START_SECONDS = 90.0
"""How long it may take to start a worker group."""
STOP_SECONDS = 1.0
"""How long stopping waits for a task that another thread has started."""
NOTICE_SECONDS = 3.0
"""How long to wait for the driver's word on why a group is gone."""

DEFAULT_PORT = 24960

log = logging.getLogger("alchemist.session")


class AlchemistSession(SessionMatrices, SessionSimulations):
    """One client application's connection to an Alchemist server.

    ::

        with AlchemistSession() as als:                       # a server of this process's own
            als.request_workers(2)
            linalg = als.load_library("linalg")
            A = als.send_matrix(np.random.rand(1000, 100))
            U, S, Vt = linalg.truncated_svd(A, k=10)
            print(S, np.asarray(U).shape)

    Parameters
    ----------
    verbose : bool, optional
        Whether to say on stdout what the session does; by default in an interactive interpreter.
    transport : {"auto", "tcp"}
        How matrices move: over shared memory where possible, or always over TCP.
    task_timeout : float, optional
        Seconds that a task may take, unless :meth:`Library.options` says otherwise; by default any time.

    Notes
    -----
    A session may be used by several threads; its commands run one after the other, in the order in which they came.
    """

    def __init__(
        self, *, verbose: bool | None = None, transport: str = "auto", task_timeout: float | None = None
    ) -> None:
        if transport not in ("auto", "tcp"):
            raise ValueError(f"transport must be 'auto' or 'tcp', not {transport!r}")
        self._verbose = hasattr(sys, "ps1") if verbose is None else verbose
        self._transport = transport
        self.task_timeout = task_timeout
        self._driver: DriverConnection | None = None
        self._workers: GroupClient | None = None
        self._ended = False
        self._lock = threading.RLock()
        self.make_progress: Callable[[str], ProgressDisplay] = ProgressBar
        self.is_cancelled: Callable[[], bool] | None = None
        self._say("Starting Alchemist session ... ready")

    # --- the server ---------------------------------------------------------------------------------------------------

    def connect(self, hostname: str | None = None, port: int | None = None, token: str | None = None) -> Self:
        """Connect to a server.

        Parameters
        ----------
        hostname, port : str, int, optional
            Where it listens. With neither, a server of this process's own is started (once) and stops with the
            process; with a host name alone, the port is 24960.
        token : str, optional
            What the server wants clients to know; by default from ``ALCHEMIST_TOKEN``, ``ALCHEMIST_TOKEN_FILE`` or
            the file that a server of the same user has written on this machine.

        Returns
        -------
        AlchemistSession
            The session itself.

        Raises
        ------
        ServerUnreachableError
            If no server answers there.
        AuthenticationError
            If the token is wrong, or there is none.
        ProtocolVersionError
            If the server is of another release.
        """
        with self._lock:
            if self._driver is not None:
                self.stop()
            if hostname is None and port is None:
                server = default_server()
                hostname, port, token = server.hostname, server.port, server.token
            hostname, port = hostname or "127.0.0.1", DEFAULT_PORT if port is None else port
            self._say(f"Connecting to Alchemist at {hostname}:{port} ...", end="")
            self._driver = DriverConnection(hostname, port, token)
            self._ended = False
            self._say("Connected to Alchemist!")
            return self

    connect_to_alchemist = connect

    @property
    def session_id(self) -> int:
        """Number of the session on its server."""
        return int(self._connected().facts["session_id"])

    @property
    def connected(self) -> bool:
        """Whether the session is connected to a server."""
        return self._driver is not None

    @property
    def name(self) -> str:
        """The session's name in messages."""
        driver = self._connected()
        return f"{self.session_id}@{driver.hostname}:{driver.port}"

    def _connected(self) -> DriverConnection:
        if self._driver is None and not self._ended:
            self.connect()
        if self._driver is None:
            raise NotConnectedError
        return self._driver

    def _ask(self, make: Callable[[int], m.Message], seconds: float = REQUEST_SECONDS) -> Any:
        """Send the driver a request; return the result of its answer."""
        with self._lock:
            driver = self._connected()
            try:
                return driver.ask(make, seconds)
            except NotConnectedError:
                self._disconnect()
                raise

    def _ask_beside(self, make: Callable[[int], m.Message]) -> Any:
        """Send the driver a request that can be answered while a task of this session runs in another thread."""
        return self._connected().ask(make)

    def stop(self) -> None:
        """End the session: free its matrices, give its workers back, disconnect. Stopping twice is no error."""
        self._lock_or_end_task()
        try:
            self._ended = True
            if self._driver is not None:
                with contextlib.suppress(AlchemistError):
                    if self._workers is not None:
                        self._ask(m.YieldWorkers)
                self._disconnect()
        finally:
            self._lock.release()

    def _lock_or_end_task(self) -> None:
        """Acquire the session's lock; if a task that another thread waits for holds it, end that with its group."""
        if not self._lock.acquire(timeout=STOP_SECONDS):
            with contextlib.suppress(AlchemistError):
                self._ask_beside(lambda n: m.EndGroup(n, "the session was stopped while a task ran"))
            self._lock.acquire()

    def _disconnect(self) -> None:
        self._forget_group()
        if self._driver is not None:
            self._driver.close()
        self._driver = None
        self._ended = True  # a session that has lost its server must not go on with another one unasked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- workers ------------------------------------------------------------------------------------------------------

    def request_workers(self, num_workers: int) -> list[Endpoint]:
        """Get a group of workers: an MPI job of `num_workers` ranks of this session's own.

        Raises
        ------
        NotEnoughWorkersError
            If fewer are free; the error says who holds the others.
        ArgumentValueError
            If `num_workers` is less than 1, or the session has workers already.
        GroupStartError
            If the MPI job does not start (the error has the end of its log), or cannot be reached from here.
        """
        with self._lock:
            self._say(f"Requesting {num_workers} workers from Alchemist")
            try:
                granted = self._ask(lambda n: m.RequestWorkers(n, int(num_workers)), START_SECONDS)
                address = GroupAddress.from_wire(granted, self.name, self._connected().hostname, self._transport)
                workers = GroupClient(address, self)
            except BaseException as failure:
                self._give_up_workers()
                if isinstance(failure, GroupDiedError):
                    raise GroupStartError(
                        f"the workers have started, but cannot be reached from here: {failure.reason}. See the "
                        "server's options --advertise and --worker-ports"
                    ) from failure
                raise
            self._workers = workers
            self._say(f"Total allocated {address.size} workers:")
            for endpoint in address.endpoints:
                self._say(str(endpoint))
            return list(address.endpoints)

    def _give_up_workers(self) -> None:
        """Have the server end workers that it may have started for us, but that we could not take."""
        if self._workers is None and self._driver is not None:
            with contextlib.suppress(AlchemistError):
                self._ask(lambda n: m.EndGroup(n, "the session could not take them"), START_SECONDS)

    def yield_workers(self) -> None:
        """Give the session's workers back; its matrices are freed with them.

        Raises
        ------
        NoWorkersError
            If the session has none.
        """
        with self._lock:
            self._group()
            self._ask(m.YieldWorkers)
            self._forget_group()

    def list_all_workers(self) -> list[dict[str, Any]]:
        """Return all workers of the server: ``id, name, host, address, port, pid, session, state``."""
        rows: list[dict[str, Any]] = self._ask_beside(m.ListWorkers)
        return rows

    def list_available_workers(self) -> list[dict[str, Any]]:
        """Return the workers that are free."""
        return [row for row in self.list_all_workers() if row["session"] is None]

    def list_assigned_workers(self) -> list[dict[str, Any]]:
        """Return the workers of this session."""
        return [row for row in self.list_all_workers() if row["session"] == self.session_id]

    def server_status(self) -> dict[str, Any]:
        """Return what ``alchemist status`` shows: workers, sessions, matrices and running tasks."""
        status: dict[str, Any] = self._ask_beside(m.AskStatus)
        return status

    @property
    def address(self) -> GroupAddress:
        """Where the session's workers are; with it, any process can read and write their matrices."""
        return self._group().address

    @property
    def num_workers(self) -> int:
        """Number of the session's workers."""
        return self._workers.address.size if self._workers is not None else 0

    def has_workers(self) -> bool:
        """Whether the session has workers, as far as the server has told."""
        with self._lock:
            if self._driver is not None and self._workers is not None:
                self._take_notices()
            return self._workers is not None

    def check_workers(self) -> None:
        """Ask every worker for a sign of life; raise :class:`GroupDiedError` if one gives none."""
        with self._lock:
            group = self._group()
            with self._watching():
                group.check()

    def _take_notices(self, wait: float = 0.0) -> m.GroupDied | None:
        """Take in what the driver has said unasked; return its word that the session's group is gone, if it said so."""
        driver = self._connected()
        try:
            notices = driver.notices(wait)
        except NotConnectedError:
            self._disconnect()
            raise
        for notice in notices:
            if self._workers is not None and notice.group_id == self._workers.address.group_id:
                self._forget_group()
                return notice
        return None

    def _group(self) -> GroupClient:
        if self._workers is None:
            self._connected()
            raise NoWorkersError
        return self._workers

    def _forget_group(self) -> None:
        if self._workers is not None:
            self._workers.close()
        self._workers = None

    @contextlib.contextmanager
    def _watching(self, task: str = "") -> Iterator[None]:
        """Turn the loss of a worker into an error that says what happened, and end what is left of the group."""
        try:
            yield
        except (GroupDiedError, RanksStuckError) as failure:
            self._explain(failure, task)

    def _explain(self, failure: GroupDiedError | RanksStuckError, task: str) -> NoReturn:
        """Raise the error that says why the group is gone; end what is left of it."""
        if isinstance(failure, GroupDiedError):
            with self._lock:  # a writer of ours may have met it in another thread than the one that talks to the driver
                reason, log_tail = self._why_dead()
            while_running = f", while they ran {task}" if task else ""
            raise GroupDiedError(self.session_id, reason + while_running, log_tail) from failure
        ranks = ", ".join(map(str, failure.ranks))
        reason = f"rank {ranks} did not come back from a task that had failed on another rank, or had no more time"
        self._ask(lambda n: m.EndGroup(n, reason))
        self._forget_group()
        failure.failure.add_note(f"The worker group was ended: {reason}. Call request_workers(n) for a new one.")
        raise failure.failure from None

    def _why_dead(self) -> tuple[str, str]:
        """Return why the group is gone, as the driver has it, and the end of its log; end what is left of the group."""
        try:
            notice = self._take_notices(NOTICE_SECONDS)
            if notice is not None:
                return notice.reason, notice.log
            self._ask(lambda n: m.EndGroup(n, "a worker does not answer"))
            self._forget_group()
        except NotConnectedError:
            return "the server is gone", ""
        except AlchemistError:
            self._forget_group()
            return "the server has ended them", ""
        return "a worker does not answer", ""

    # --- libraries ----------------------------------------------------------------------------------------------------

    def list_available_libraries(self) -> list[dict[str, Any]]:
        """Return the libraries that the server offers: ``name, version, source, provider``.

        Nothing is imported for it: versions are read from the source, or are those of the packages that brought the
        libraries; of a shared object the version is empty.
        """
        rows: list[dict[str, Any]] = self._ask(m.ListLibraries)
        return rows

    def load_library(self, name: str, path: str | None = None) -> Library:
        """Load a library on the session's workers.

        Parameters
        ----------
        name : str
            Its registered name.
        path : str, optional
            Module or path of a library that is not registered, where the server allows that.

        Returns
        -------
        Library
            Its tasks are methods, with signatures and docstrings.

        Raises
        ------
        LibraryNotFoundError, LibraryRefusedError
            If it is not registered.
        LibraryLoadError
            If it does not import, or describes itself wrongly.
        """
        with self._lock:
            group = self._group()
            limit = check_timeout(f"loading {name}", self.task_timeout)
            with self._watching():
                library = Library(group.load(name, path, limit, self.is_cancelled), self._run)
            group.libraries[name] = library
            self._say(f"Library '{name}' successfully loaded.")
            return library

    def run_task(self, library: str | Library, task: str, /, **arguments: Any) -> Any:
        """Run a task of a library, loading the library first if need be.

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
            What the task returns; matrices as handles.

        Raises
        ------
        TaskNotFoundError, ArgumentError
            If there is no such task, or an argument is missing, unknown or of the wrong type.
        ForeignMatrixError, FreedMatrixError
            If a handle is of another session, or freed.
        TaskError
            If the task fails; TaskTimeoutError and TaskCancelledError are of this kind.
        GroupDiedError
            If the workers die.
        """
        name = library.name if isinstance(library, Library) else library
        loaded = self._group().libraries.get(name) or self.load_library(name)
        return self._run(name, loaded.task(task), (), arguments)

    def _run(
        self,
        library: str,
        task: TaskDescription,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None = None,
    ) -> Any:
        """Run a task; what every function of a library calls."""
        limit = check_timeout(f"{library}.{task.name}", self.task_timeout if timeout is None else timeout)
        with self._lock:
            group = self._group()
            label = f"{library}.{task.name}"
            arguments = group.bind(label, task, args, kwargs)
            started = time.perf_counter()
            with self._watching(label):
                result = group.run(library, task, arguments, self.make_progress, limit, self.is_cancelled)
            self._say(f"Alchemist started task '{task.name}' ... done ({time.perf_counter() - started:.4e}s)")
            return result

    def cancel(self) -> None:
        """Ask the task that runs to stop: its caller, in another thread, gets TaskCancelledError.

        A task stops where it looks whether it should (``ctx.check_cancelled()``); the linear algebra's iterations do.
        One that never looks runs to its end, unless it has a timeout. Ctrl-C in the calling thread, and ``ray.cancel``
        of a task that was called through Ray, come to the same.
        """
        workers = self._workers
        if workers is not None:
            workers.cancel()

    def worker_logs(self, lines: int = 100) -> dict[str, str]:
        """Return the end of what the session's workers, and the libraries in them, have printed and logged.

        Parameters
        ----------
        lines : int
            How many lines of each worker, at most 10,000.

        Returns
        -------
        dict
            Name of the worker -> text, also of workers that are gone.
        """
        logs: dict[str, str] = self._ask_beside(lambda n: m.AskLogs(n, int(lines)))
        return logs

    # --- words --------------------------------------------------------------------------------------------------------

    def _say(self, text: str, end: str = "\n") -> None:
        if self._verbose:
            print(text, end=end, flush=True)  # noqa: T201 - the interactive session of the paper's Figure 3

    def __repr__(self) -> str:
        if self._driver is None:
            return "<AlchemistSession, not connected>"
        return f"<AlchemistSession {self.name}, {self.num_workers} workers>"
