"""A worker: one MPI rank of a session's worker group.

A worker has three kinds of threads. Each blocks in a socket when it has nothing to do, so an idle worker costs nothing:

* The **task thread** (main) reads the session's commands from the control connection and runs them. Only this thread
  calls MPI. On one rank of each host it polls between commands that follow one another closely (:mod:`.polling`).
* The **link thread** talks to the node agent: status, shutdown. When the link breaks, it ends the worker, even in a
  task.
* Each sender or reader has one **matrix thread** (:mod:`alchemist_ray.mpi_backend.worker.matrix_service`).

Every rank gets every command directly from the session's owner, over its own socket and in the same order, so no rank
waits for a command inside MPI. Before a task uses its matrices, the ranks agree that every rank has all of them.
Otherwise a rank that lacks one would leave the others waiting in the task.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import re
import resource
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mpi4py

# A rank starts MPI itself, after it was forked from a process that has only loaded it.
mpi4py.rc.initialize = False

from mpi4py import MPI  # noqa: E402 - after mpi4py is told not to start it

from alchemist_ray.errors import AlchemistError, AuthenticationError, ProtocolError  # noqa: E402
from alchemist_ray.mpi_backend.logs import configure_logging  # noqa: E402
from alchemist_ray.mpi_backend.memory.arena import Arena  # noqa: E402
from alchemist_ray.mpi_backend.registry import Registry  # noqa: E402
from alchemist_ray.mpi_backend.worker.commands import TaskRunner  # noqa: E402
from alchemist_ray.mpi_backend.worker.matrix_service import MatrixService  # noqa: E402
from alchemist_ray.mpi_backend.worker.polling import PollingReceiver  # noqa: E402
from alchemist_ray.mpi_backend.worker.store import Store  # noqa: E402
from alchemist_ray.protocol import Key  # noqa: E402
from alchemist_ray.protocol import messages as m  # noqa: E402
from alchemist_ray.protocol.connection import Connection, Purpose, Side  # noqa: E402
from alchemist_ray.protocol.worker_config import WorkerConfig  # noqa: E402
from alchemist_ray.transport.channel import Channel  # noqa: E402
from alchemist_ray.transport.listeners import listen_on_tcp, listen_on_this_host  # noqa: E402

SHUTDOWN_SECONDS = 1.0
"""Time for a running task to end after the worker was told to end."""

MAX_UNPROVEN = 64
"""At most this many connections may be in the handshake at a time."""
ACCEPT_PAUSE_SECONDS = 0.1
"""Pause after a connection could not be accepted."""

log = logging.getLogger("alchemist")


class Worker:
    """One rank: its listeners, its threads, its matrices.

    Parameters
    ----------
    config : WorkerConfig
        The configuration from the node agent.
    comm : MPI.Comm
        The ranks of the group.
    link : Channel
        The connection to the node agent.
    """

    def __init__(self, config: WorkerConfig, comm: MPI.Comm, link: Channel) -> None:
        self._config = config
        self._link = link
        self._rank = comm.rank
        self._is_first_of_host = _is_first_of_host(comm)
        self._key = Key.of(config.ticket)
        self._host = socket.gethostname()
        self._store = Store(Arena(config.memory), comm.size, comm.rank)
        self._runner = TaskRunner(
            comm,
            self._store,
            self._host,
            lambda: Registry(config.options.libraries, config.options.allow_library_paths),
            tuple(map(Path, config.options.data_directories)),
            Path(config.directory_of(comm.rank)),
        )
        self._unproven = threading.BoundedSemaphore(MAX_UNPROVEN)
        self._control: queue.Queue[Channel | None] = queue.Queue()
        self._current_control: Channel | None = None
        self._stopping = threading.Event()

    def run(self) -> None:
        """Serve until the agent tells the worker to end, or is gone."""
        config = self._config
        tcp = listen_on_tcp(config.bind, config.options.worker_ports, config.port_of(self._rank))
        unix, socket_name = listen_on_this_host()
        self._link.send(
            m.WorkerReady(
                rank=self._rank,
                pid=os.getpid(),
                host=self._host,
                address=config.advertise,
                port=tcp.getsockname()[1],
                socket_name=socket_name,
                memory=self._store.arena.capacity,
            )
        )
        log.info("Running on %s %s:%d", self._host, config.advertise, tcp.getsockname()[1])
        log.info("Worker ready")
        self._start(self._serve_link, self._link)
        self._start(self._accept_all, tcp)
        self._start(self._accept_all, unix)
        self._serve_control()

    def _start(self, target: Any, *args: Any) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    # --- connections --------------------------------------------------------------------------------------------------

    def _accept_all(self, listener: socket.socket) -> None:
        while True:
            self._unproven.acquire()  # clients without a proof must not use up all threads and descriptors
            try:
                sock, _ = listener.accept()
                self._start(self._serve_client, sock)
            except (OSError, RuntimeError) as failure:  # out of descriptors or threads, perhaps only for a while
                self._unproven.release()
                log.error("Could not accept a connection: %s", failure)
                time.sleep(ACCEPT_PAUSE_SECONDS)

    def _find_key(self, hello: m.Hello) -> Key | None:
        right = hello.group_id == self._config.group_id
        return self._key if right and hello.purpose in (Purpose.CONTROL, Purpose.MATRICES) else None

    def _serve_client(self, sock: socket.socket) -> None:
        facts = {"rank": self._rank, "host": self._host, "pid": os.getpid()}
        try:
            channel = Channel.accept(sock, self._find_key, facts)
        except (AuthenticationError, ProtocolError, OSError) as refused:
            log.warning("Refused a connection: %s", refused)
            return
        finally:
            self._unproven.release()
        if channel.connection.purpose is Purpose.CONTROL:
            if self._current_control is not None:
                log.warning("Refused a second control connection")
                channel.close()
                return
            self._control.put(channel)
        else:
            MatrixService(channel, self._store, self._rank, self._host, self._runner.cancel).run()

    def _serve_link(self, link: Channel) -> None:
        """Answer the agent; end the process when the agent asks for it or is gone."""
        try:
            while not isinstance(message := link.receive(), m.Shutdown):
                if isinstance(message, m.AskStatus):
                    link.send(m.Done(message.request, self._status()))
        except (OSError, ProtocolError) as lost:
            log.error("Lost the node agent: %s", lost)
            unname_shared_memory()  # mpiexec may kill this process at once, and then not clean up
        else:
            log.info("Shutting down")
        self._stopping.set()
        self._control.put(None)
        if self._current_control is not None:
            self._current_control.shut_down()
        time.sleep(SHUTDOWN_SECONDS)
        os._exit(0)  # the running task does not end, so the process ends without it

    def _status(self) -> dict[str, Any]:
        arena = self._store.arena
        return {
            "rank": self._rank,
            "memory_in_use": arena.in_use,
            "memory": arena.capacity,
            "matrices": self._store.describe(),
            "task": self._runner.running,
            "task_seconds": self._runner.running_seconds,
        }

    # --- the task thread ----------------------------------------------------------------------------------------------

    def _serve_control(self) -> None:
        while not self._stopping.is_set():
            channel = self._control.get()
            if channel is None:
                return
            self._current_control = channel
            receiver = PollingReceiver(channel, self._is_first_of_host)
            try:
                while True:
                    self._runner.serve(channel, receiver.receive())
            except (OSError, ProtocolError) as ended:
                log.info("The session's control connection ended: %s", ended)
            finally:
                self._current_control = None
                channel.close()


def _is_first_of_host(comm: MPI.Comm) -> bool:
    """Return whether this is the lowest rank of its host. Collective over comm."""
    host = comm.Split_type(MPI.COMM_TYPE_SHARED)
    rank = host.rank
    host.Free()
    return bool(rank == 0)


def _unname_when_all_have_mapped(comm: MPI.Comm) -> None:
    """Remove the names of the shared-memory segments that MPI mapped at its start. Collective over comm.

    MPI libraries remove them in finalize, but a killed rank never gets there. By now every rank of this host has mapped
    the segments, and mappings work without a name. The kernel frees a segment without a name after its last process.
    """
    comm.Barrier()
    if "MPICH" not in MPI.Get_library_version():
        return  # another library may map its segments only when it first needs them, and by name
    unname_shared_memory()


def unname_shared_memory() -> None:
    """Remove the names of all shared-memory segments that this process has mapped. Local."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, separator, name = line.partition("/dev/shm/")  # noqa: S108 - POSIX shared memory
        if separator and not name.endswith("(deleted)"):
            Path("/dev/shm", name).unlink(missing_ok=True)  # noqa: S108


def _loaded_blas() -> list[Any]:
    """Return the BLAS libraries that are loaded. They read how many threads to use when they were loaded."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:  # then BLAS keeps the number of threads with which it was loaded
        return []
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


_blas = _loaded_blas()
"""Found once, before the forks."""


def run_forked_rank(config: WorkerConfig, rank: int, link: socket.socket) -> int:
    """Run a rank of a worker group in a process of its own, a fork; return its exit status.

    Parameters
    ----------
    config : WorkerConfig
        The configuration of the ranks on this host.
    rank : int
        The rank.
    link : socket.socket
        A connected socket to the node agent.
    """
    configure_logging(config.name_of(rank))
    os.environ.update(config.environment)
    for blas in _blas:
        blas.set_num_threads(config.threads)
    comm = start_mpi()
    if comm.size != config.size:
        log.error(
            "the MPI library (%s) made a world of %d ranks, since it does not speak PMI-1: start the node with "
            "--mpi site",
            library_version(),
            comm.size,
        )
        unname_shared_memory()  # no process manager cleans up
        end_mpi()
        return 1
    return run_rank(config, comm, Channel(link, Connection.opened(Side.INITIATOR, Purpose.LINK)))


def start_mpi() -> MPI.Intracomm:
    """Start MPI; return the communicator of all ranks."""
    faulthandler.enable(all_threads=False)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # One thread calls MPI. But only at this level does MPICH yield the core while it waits: see docs/architecture.md.
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    return MPI.COMM_WORLD


def end_mpi() -> None:
    """Write what has been printed, and end MPI, which removes its files and its shared memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    MPI.Finalize()


def library_version() -> str:
    """Return the name and the version of the MPI library."""
    return " ".join(re.split(r"[\n,\0]", MPI.Get_library_version())[0].split())


def run_rank(config: WorkerConfig, comm: MPI.Intracomm, link: Channel) -> int:
    """Serve as a rank whose MPI has been started, until the agent tells it to end; return the exit status."""
    os.makedirs(config.directory_of(comm.rank), 0o700)
    os.chdir(config.directory_of(comm.rank))
    _unname_when_all_have_mapped(comm)
    try:
        Worker(config, comm, link).run()
    except (AlchemistError, OSError) as failure:
        log.error("The worker could not start: %s", failure)
        comm.Abort(1)
    end_mpi()
    return 0
