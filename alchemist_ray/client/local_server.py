"""A server that this process starts as a child; it stops with its owner."""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import shutil
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from alchemist_ray.errors import ServerStartError
from alchemist_ray.host.child_program import ChildProgram
from alchemist_ray.host.cores import allowed_cores
from alchemist_ray.host.memory import physical_memory
from alchemist_ray.host.temporary_directories import make_log_dir
from alchemist_ray.protocol.handshake import new_token
from alchemist_ray.protocol.server_options import LIBRARY_FILES, ServerArguments, ServerOptions
from alchemist_ray.transport.forks import abandon_in_children

START_SECONDS = 30.0
STOP_SECONDS = 5.0


class Server:
    """A running server that belongs to this process; made by :func:`start_server`.

    It ends with :meth:`stop`, at the end of a ``with`` block, or with this process, even if that is killed.

    Attributes
    ----------
    hostname, port : str, int
        Where it listens.
    token : str
        The secret that clients need to connect.
    num_workers : int
        Number of its workers.
    log_dir : str
        Where its logs are.
    """

    def __init__(self, program: ChildProgram, options: ServerOptions, port: int, temporary_logs: bool) -> None:
        self.hostname = options.hostname
        self.port = port
        self.token = options.token
        self.num_workers = options.num_workers
        self.log_dir = options.log_dir or ""
        self._program = program
        self._finalizer = weakref.finalize(self, _end, program, os.getpid(), self.log_dir if temporary_logs else None)
        self._is_parents = False
        abandon_in_children(self)

    def abandon(self) -> None:
        """In a forked child: close the pipes to the driver, which ends when its owner's end of them is closed."""
        self._is_parents = True
        self._finalizer.detach()
        self._program.let_go()

    @property
    def pid(self) -> int:
        """Process id of the driver."""
        return self._program.process.pid

    @property
    def running(self) -> bool:
        """Whether the server process is alive; in a forked child, whether it is there."""
        return Path(f"/proc/{self.pid}").exists() if self._is_parents else self._program.process.poll() is None

    def stop(self) -> None:
        """End the server, its worker groups and their matrices. A forked child leaves its parent's server alone."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"{self.num_workers} workers" if self.running else "stopped"
        return f"<Alchemist server at {self.hostname}:{self.port}, {state}>"


def _end(program: ChildProgram, owner: int, directory: str | None) -> None:
    if os.getpid() != owner:
        return  # a forked child of the owner
    program.stop(STOP_SECONDS)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def start_server(num_workers: int | None = None, **options: Unpack[ServerArguments]) -> Server:
    """Start a server as a child of this process.

    Parameters
    ----------
    num_workers : int, optional
        Number of workers (MPI ranks) that it offers on this host; the number of cores by default. With 0 it has no
        workers until node agents join it.
    **options
        The other fields of :class:`~alchemist_ray.protocol.server_options.ServerOptions`: ``hostname``
        ("127.0.0.1"), ``port`` (a free one), ``token`` (a random one), ``advertise``, ``worker_ports``,
        ``memory_per_worker``, ``libraries``, ``allow_library_paths``, ``data_directories``, ``log_dir``, ``mpi``
        ("fork"), ``mpiexec``, ``python``. Relative paths begin in the current directory.

    Returns
    -------
    Server
        A context manager that stops the server.

    Raises
    ------
    ServerStartError
        If the server part of Alchemist is not installed, or it cannot listen there.
    TypeError
        If an option is unknown.
    """
    log_dir = options.get("log_dir")
    settings = ServerOptions.of(
        {
            **options,
            "num_workers": allowed_cores() if num_workers is None else num_workers,
            "token": options.get("token") or new_token(),
            "libraries": {name: absolute_source(source) for name, source in (options.get("libraries") or {}).items()},
            "data_directories": [os.path.abspath(directory) for directory in options.get("data_directories", ())],
            "log_dir": os.path.abspath(log_dir) if log_dir else None,
            "python": absolute_source(os.fspath(options.get("python", ""))),
        }
    )
    settings = settings if settings.log_dir else dataclasses.replace(settings, log_dir=make_log_dir())
    assert settings.log_dir is not None  # it has just been set
    Path(settings.log_dir).mkdir(parents=True, exist_ok=True)
    with (Path(settings.log_dir) / "driver.err").open("wb") as errors:
        program = ChildProgram("alchemist_ray.mpi_backend.driver.program", stderr=errors)
    try:
        port = _ask_ready(program, settings, temporary_logs=not log_dir)
    except BaseException:
        _end(program, os.getpid(), None if log_dir else settings.log_dir)
        raise
    return Server(program, settings, port, temporary_logs=not log_dir)


def absolute_source(source: str) -> str:
    """Return the source of a library: a module's name as it is, a file by its absolute path."""
    return os.path.abspath(source) if source.endswith(LIBRARY_FILES) or os.sep in source else source


def _ask_ready(program: ChildProgram, settings: ServerOptions, temporary_logs: bool) -> int:
    """Hand the options to the driver; return its port when it is ready."""
    facts = program.tell(json.dumps({**dataclasses.asdict(settings), "temporary_logs": temporary_logs}), START_SECONDS)
    if facts is None:
        errors = (Path(settings.log_dir or "") / "driver.err").read_text(errors="replace").strip()
        raise ServerStartError(errors.splitlines()[-1] if errors else f"not ready within {START_SECONDS:g} s")
    if "error" in facts:
        raise ServerStartError(facts["error"])
    return int(facts["port"])


_default: Server | None = None
_lock = threading.Lock()


def _start_afresh() -> None:
    """Forget the parent's server, in a forked child, which starts one of its own when it needs one."""
    global _default, _lock
    _default, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_start_afresh)

MIN_DEFAULT_WORKERS = 8


def owners_rights(*first: str) -> ServerArguments:
    """Return the rights on a server that belongs to one user: all files of the user, and libraries from any path.

    Parameters
    ----------
    *first : str
        Directories in which relative paths are looked for; by default they begin at ``/``.
    """
    return {"data_directories": (*first, "/"), "allow_library_paths": True}


def default_server() -> Server:
    """Return the server of this process, starting it on first use; it stops with the process.

    It offers more workers than the machine has cores, since ranks may share a core. A worker may use the memory that it
    would have with one worker for each core, read and write the files of its user, and load any library, since the
    server belongs to one user. The environment variable ``ALCHEMIST_NUM_WORKERS`` sets the number of workers.
    """
    global _default
    with _lock:
        if _default is None or not _default.running:
            count = int(os.environ.get("ALCHEMIST_NUM_WORKERS") or max(MIN_DEFAULT_WORKERS, allowed_cores()))
            share = physical_memory() * 8 // 10 // min(count, allowed_cores())
            options: ServerArguments = {**owners_rights(os.getcwd()), "memory_per_worker": share}
            _default = start_server(count, **options)
            atexit.register(_default.stop)
        return _default
