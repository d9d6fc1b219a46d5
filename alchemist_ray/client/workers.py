"""The workers of a session: requested from the driver, watched while they run a task, given back.

Everything that a session does with its server goes through here, so that the loss of a worker, or of the server, is
explained in one place.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.commands import RanksStuckError
from alchemist_ray.client.driver import REQUEST_SECONDS, DriverConnection
from alchemist_ray.client.group import GroupClient
from alchemist_ray.client.local_server import default_server
from alchemist_ray.client.matrices.computing import Computes
from alchemist_ray.client.worker_request import WorkerRequest
from alchemist_ray.errors import (
    AlchemistError,
    ArgumentValueError,
    ForkedSessionError,
    GroupDiedError,
    GroupStartError,
    NotConnectedError,
    NoWorkersError,
    TaskTimeoutError,
)
from alchemist_ray.protocol import messages as m
from alchemist_ray.transport.forks import abandon_in_children

DEFAULT_PORT = 24960
"""Port of a server, where only its host is named."""
START_SECONDS = 90.0
"""How long a worker group may take to start."""
STOP_SECONDS = 1.0
"""How long stopping waits for a task that another thread has started, and for the end of its group."""
GIVE_BACK_SECONDS = 3.0
"""How long stopping waits until the server has taken the workers back; it ends them later in any case."""
ON_STOPPED = ("wait", "end")
"""What to do when a rank is stopped: wait until it goes on, or end the group."""
NOTICE_SECONDS = 3.0
"""How long to wait until the driver says why a group is gone."""

SERVER = "ALCHEMIST_SERVER"
"""Environment variable with the HOST:PORT of the server of sessions that name none."""

T = TypeVar("T")


def server_in_environment() -> tuple[str, int] | None:
    """Return the server that the environment variable ``ALCHEMIST_SERVER`` names; None if it is not set.

    Raises
    ------
    ArgumentValueError
        If its value is not a valid address.
    """
    text = os.environ.get(SERVER)
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ArgumentValueError(
            "connect", f"{SERVER} is {text!r}, which is not a valid address: set it to HOST:PORT, or unset it"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


class SessionWorkers:
    """The connection of one session to its driver, and the worker group that the driver has given it.

    A command is sent and answered under :attr:`lock`, so the commands of several threads run one after the other.

    Parameters
    ----------
    session : Computes
        The session; the operators of its matrix handles run their tasks there.
    transport : {"auto", "tcp"}
        How matrices move.
    on_stopped : {"wait", "end"}
        What to do when a rank is stopped while a command runs.
    """

    def __init__(self, session: Computes, transport: str, on_stopped: str = "wait") -> None:
        self._session = session
        self._transport = transport
        self._on_stopped = on_stopped
        self._lost = ""
        self._pid = os.getpid()
        self._driver: DriverConnection | None = None
        self._group: GroupClient | None = None
        self._ended = False
        self._forked = False
        self.is_own_server = False
        self.lock = threading.RLock()
        abandon_in_children(self)

    def abandon(self) -> None:
        """In a forked child: leave the connections to the parent. A session that was never connected stays usable."""
        self.lock = threading.RLock()
        self._forked = self._forked or self._driver is not None
        self._driver = self._group = None
        if not self._forked:
            self._pid = os.getpid()

    # --- the server ---------------------------------------------------------------------------------------------------

    def locate(self, hostname: str | None, port: int | None, token: str | None) -> tuple[str, int, str | None]:
        """Return where the named server is, and its token.

        Without a name, it is the server that the environment variable ``ALCHEMIST_SERVER`` names, or one of this
        process.

        Raises
        ------
        ArgumentValueError
            If the variable is not a valid address.
        """
        if hostname is None and port is None and (named := server_in_environment()) is not None:
            hostname, port = named
        self.is_own_server = hostname is None and port is None
        if self.is_own_server:
            server = default_server()
            return server.hostname, server.port, server.token
        return hostname or "127.0.0.1", DEFAULT_PORT if port is None else port, token

    def connect(self, hostname: str, port: int, token: str | None) -> None:
        """Connect to a server."""
        self._driver = DriverConnection(hostname, port, token)
        self._ended, self._lost = False, ""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to a server."""
        return self._driver is not None

    def check_process(self) -> None:
        """Raise :class:`ForkedSessionError` in a child that was forked while the session was connected."""
        if self._forked:
            raise ForkedSessionError(self._pid)

    def driver(self) -> DriverConnection:
        """Return the connection to the server; the first call connects to a server of this process.

        Raises
        ------
        NotConnectedError
            If the session was stopped, or has lost its server.
        ForkedSessionError
            If the session belongs to the parent of this process.
        """
        self.check_process()
        if self._driver is None and not self._ended:
            self._session.connect()
        if self._driver is None:
            raise NotConnectedError(reason=self._lost)
        return self._driver

    def ask(
        self, make: Callable[[int], m.Message], seconds: float = REQUEST_SECONDS, within: float | None = None
    ) -> Any:
        """Send the driver a request; return the result of its answer, as :meth:`.DriverConnection.ask`."""
        self.check_process()
        with self.lock:
            driver = self.driver()
            try:
                return driver.ask(make, seconds, within)
            except NotConnectedError as loss:
                self.disconnect()
                self._lost = loss.reason
                raise

    def ask_beside(self, make: Callable[[int], m.Message]) -> Any:
        """Send the driver a request that can be answered while another thread of the session runs a task."""
        return self.driver().ask(make)

    def stop(self) -> None:
        """Give the workers back and disconnect. In a forked child nothing happens: the session is the parent's."""
        if self._forked:
            return
        self._lock_or_end_task()
        try:
            self._ended, self._lost = True, ""
            if self._driver is not None:
                had_workers = self._group is not None
                self.forget(ended=True)
                with contextlib.suppress(AlchemistError):
                    if had_workers:
                        self.ask(m.YieldWorkers, within=GIVE_BACK_SECONDS)
                self.disconnect()
        finally:
            self.lock.release()

    def _lock_or_end_task(self) -> None:
        """Acquire the lock; if a task that another thread waits for holds it, end the task together with its group."""
        if self.lock.acquire(timeout=STOP_SECONDS):
            return
        driver, group = self._driver, self._group
        reason = "the session was stopped while a task ran"
        with contextlib.suppress(AlchemistError):
            self.driver().ask(lambda n: m.EndGroup(n, reason), within=STOP_SECONDS)
        if not self.lock.acquire(timeout=STOP_SECONDS):  # the network is gone, perhaps: let the other thread know
            if driver is not None:
                driver.shut_down()
            if group is not None:
                group.shut_down(reason)
            self.lock.acquire()

    def disconnect(self) -> None:
        """Close all connections. The session does not connect to another server by itself after that."""
        self.forget()
        if self._driver is not None:
            self._driver.close()
        self._driver = None
        self._ended = True

    # --- the group ----------------------------------------------------------------------------------------------------

    def request(self, request: WorkerRequest, name: str) -> GroupAddress:
        """Get a worker group for the session called `name`; return where it is."""
        try:
            granted = self.ask(request.message, within=START_SECONDS + request.wait)
            address = GroupAddress.from_wire(granted, name, self.driver().hostname, self._transport)
            group = GroupClient(address, self._session, _DriverWatch(self, self.driver(), address.group_id))
        except BaseException as failure:
            self._give_up()
            if isinstance(failure, GroupDiedError):
                raise GroupStartError(
                    f"the workers have started, but this process cannot reach them: {failure.reason}. Start the node "
                    "with an --address that clients reach, or see the server's options --advertise and --worker-ports"
                ) from failure
            raise
        self._group = group
        return address

    def _give_up(self) -> None:
        """Have the server end workers that it may have started for this session, but that the session did not get."""
        if self._group is None and self._driver is not None:
            with contextlib.suppress(AlchemistError):
                self.ask(lambda n: m.EndGroup(n, "the session could not take them"))

    def give_back(self) -> None:
        """Give the workers back to the server."""
        self.group()
        self.ask(m.YieldWorkers)
        self.forget(ended=True)

    @property
    def current(self) -> GroupClient | None:
        """The worker group, or None if the session has none."""
        return self._group

    def group(self) -> GroupClient:
        """Return the worker group.

        Raises
        ------
        NoWorkersError
            If the session has none.
        NotConnectedError, ForkedSessionError
            As :meth:`driver`.
        """
        if self._group is None:
            self.driver()
            raise NoWorkersError
        return self._group

    def forget(self, ended: bool = False) -> None:
        """Close the connections to the workers, which the session may have given back (`ended`)."""
        if self._group is not None:
            self._group.close(ended)
        self._group = None

    # --- the loss of workers ------------------------------------------------------------------------------------------

    def take_notices(self, wait: float = 0.0) -> m.GroupDied | None:
        """Read the driver's notices; return the one that says that the session's group is gone, if there is one."""
        driver = self.driver()
        try:
            deaths = driver.deaths(wait)
        except NotConnectedError as loss:
            self.disconnect()
            self._lost = loss.reason
            raise
        for notice in deaths:
            if self._group is not None and notice.group_id == self._group.address.group_id:
                self.forget()
                return notice
        return None

    def hear_of_stopped(self, notice: m.RanksStopped) -> str:
        """Return what a notice of stopped ranks means, in words; raise GroupDiedError if the group shall be ended."""
        ranks = ", ".join(map(str, notice.ranks))
        text = f"rank {ranks} is stopped (on {notice.host}, by SIGSTOP or a debugger)"
        if self._on_stopped == "end":
            raise GroupDiedError(self.session_id, text)
        return f"{text}: the task waits until it goes on"

    @contextlib.contextmanager
    def watching(self, task: str = "") -> Iterator[None]:
        """Turn the loss of a worker into an error that says why, and end the rest of the group."""
        try:
            yield
        except (GroupDiedError, RanksStuckError) as failure:
            self._explain(failure, task)

    def call(self, task: str, function: Callable[[GroupClient], T]) -> T:
        """Return ``function(group)``, called under the lock. Like :meth:`watching`, but cheaper."""
        self.check_process()
        with self.lock:
            group = self.group()
            try:
                return function(group)
            except (GroupDiedError, RanksStuckError) as failure:
                self._explain(failure, task)

    def _explain(self, failure: GroupDiedError | RanksStuckError, task: str) -> NoReturn:
        """Raise the error that says why the group is gone; end the rest of the group."""
        if isinstance(failure, GroupDiedError):
            with self.lock:  # a writer may have met the loss in another thread than the one that talks to the driver
                reason, log_tail = self._why_dead(failure.reason)
            while_running = f", while they ran {task}" if task else ""
            raise GroupDiedError(failure.session_id, reason + while_running, log_tail) from failure
        ranks = ", ".join(map(str, failure.ranks))
        late = isinstance(failure.failure, TaskTimeoutError)
        cause = "could not be stopped" if late else "did not come back from a task that had failed on another rank"
        self.ask(lambda n: m.EndGroup(n, f"rank {ranks} {cause}"))
        self.forget()
        failure.failure.cost = (
            f"The worker group was ended, since rank {ranks} {cause}: all matrices and simulations of the session are "
            "lost. request_workers(n) gets new workers; through Ray, the next call does"
        )
        raise failure.failure from None

    @property
    def session_id(self) -> int:
        """Number of the session on its server."""
        return int(self.driver().facts["session_id"])

    def _why_dead(self, seen: str) -> tuple[str, str]:
        """Return the reason for the end of the group, and the end of its log; end the rest of the group.

        The driver knows best; if it knows of nothing, the reason is what this process has `seen`.
        """
        try:
            notice = self.take_notices(NOTICE_SECONDS)
            if notice is not None:
                return notice.reason, notice.log
            self.ask(lambda n: m.EndGroup(n, seen))
            self.forget()
        except NotConnectedError as loss:
            return f"the server is gone ({loss.reason or 'not connected'})", ""
        except NoWorkersError:
            self.forget()
            return "the server has ended them", ""
        except AlchemistError as failure:
            self.forget()
            return f"{seen}; {failure}", ""
        return seen, ""


class _DriverWatch:
    """Listens to the driver while the session waits for its workers.

    Parameters
    ----------
    workers : SessionWorkers
        The workers of the session.
    driver : DriverConnection
        The driver.
    group_id : int
        Number of the worker group.
    """

    def __init__(self, workers: SessionWorkers, driver: DriverConnection, group_id: int) -> None:
        self._workers = workers
        self._driver = driver
        self._group_id = group_id

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._driver.fileno()

    def look(self, listen: bool = True) -> str:
        """Hear what the driver has said; return the ranks that are stopped now, in words.

        Parameters
        ----------
        listen : bool
            Whether to read what the driver has sent, and not only recall what was read before.

        Raises
        ------
        GroupDiedError
            If the group or the driver is gone, or the group shall be ended.
        """
        if listen:
            try:
                self._driver.listen()
            except NotConnectedError as loss:
                raise GroupDiedError(self._workers.session_id, f"the server is gone ({loss.reason})") from None
        if self._driver.has_died(self._group_id):
            raise GroupDiedError(self._workers.session_id, "the server has ended them")
        stopped = self._driver.stopped_ranks(self._group_id)
        return self._workers.hear_of_stopped(stopped) if stopped is not None else ""
