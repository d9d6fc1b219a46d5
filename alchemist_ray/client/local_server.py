"""A server of one's own: started as a child process, stopped with its owner."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alchemist_ray.errors import ServerStartError
from alchemist_ray.host.memory import physical_memory
from alchemist_ray.host.temporary_directories import make_log_dir
from alchemist_ray.protocol.handshake import new_token

START_SECONDS = 30.0
STOP_SECONDS = 5.0


class Server:
    """A running server that belongs to this process; made by :func:`start_server`.

    It ends with :meth:`stop`, at the end of a ``with`` block, and at the latest with this process, however that ends.

    Attributes
    ----------
    hostname, port : str, int
        Where it listens.
    token : str
        What clients must know to connect.
    num_workers : int
        Number of its workers.
    log_dir : str
        Where its logs are.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        hostname: str,
        port: int,
        token: str,
        num_workers: int,
        log_dir: str,
        temporary_logs: bool,
    ) -> None:
        self.hostname = hostname
        self.port = port
        self.token = token
        self.num_workers = num_workers
        self.log_dir = log_dir
        self._process = process
        self._finalizer = weakref.finalize(self, _end, process, os.getpid(), log_dir if temporary_logs else None)

    @property
    def pid(self) -> int:
        """Process id of the driver."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the server, its worker groups and their matrices."""
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


def _end(process: subprocess.Popen[bytes], owner: int, directory: str | None) -> None:
    if os.getpid() != owner:
        return  # a forked child of the owner
    _stop_process(process)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def _stop_process(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()  # the server ends when its stdin does
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def start_server(
    num_workers: int | None = None,
    *,
    hostname: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    worker_ports: tuple[int, int] | None = None,
    memory_per_worker: int | None = None,
    libraries: Mapping[str, str] | None = None,
    allow_library_paths: bool = False,
    data_directories: Sequence[str | os.PathLike[str]] = (),
    log_dir: str | None = None,
) -> Server:
    """Start a server as a child of this process.

    Parameters
    ----------
    num_workers : int, optional
        Number of workers (MPI ranks) that it can give to sessions; the number of cores by default.
    hostname, port : str, int
        Interface and port to listen on; port 0 takes a free one.
    token : str, optional
        What clients must know to connect; a random one by default.
    worker_ports : (int, int), optional
        Range of the workers' ports; by default any.
    memory_per_worker : int, optional
        Bytes that a worker has for matrices; by default an equal share of 80 % of the machine's memory.
    libraries : mapping, optional
        Name -> Python module or path of further libraries.
    allow_library_paths : bool
        Whether sessions may load libraries from any path.
    data_directories : sequence of str
        Directories under which the workers read and write files that sessions name; by default none. Relative paths
        begin at the first.
    log_dir : str, optional
        Where logs go; by default a temporary directory that is removed when the server stops.

    Returns
    -------
    Server
        A context manager that stops the server.

    Raises
    ------
    ServerStartError
        If the server part of Alchemist is not installed, or it cannot listen there.
    """
    settings: dict[str, Any] = {
        "num_workers": num_workers or os.cpu_count() or 1,
        "token": token or new_token(),
        "hostname": hostname,
        "port": port,
        "worker_ports": worker_ports,
        "memory_per_worker": memory_per_worker,
        "libraries": dict(libraries or {}),
        "allow_library_paths": allow_library_paths,
        "data_directories": [os.path.abspath(directory) for directory in data_directories],
        "log_dir": log_dir or make_log_dir(),
        "temporary_logs": log_dir is None,
    }
    Path(settings["log_dir"]).mkdir(parents=True, exist_ok=True)
    with (Path(settings["log_dir"]) / "driver.err").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "alchemist_ray.mpi_backend.driver.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # a Ctrl-C in our terminal is ours to handle
        )
    try:
        facts = _ask_ready(process, settings)
    except BaseException:
        _end(process, os.getpid(), None if log_dir else settings["log_dir"])
        raise
    return Server(
        process,
        hostname,
        facts["port"],
        settings["token"],
        settings["num_workers"],
        settings["log_dir"],
        temporary_logs=log_dir is None,
    )


def _ask_ready(process: subprocess.Popen[bytes], settings: dict[str, Any]) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise ServerStartError("its pipes are missing")
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    process.stdin.flush()
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if readable else b""
    if not line:
        errors = (Path(settings["log_dir"]) / "driver.err").read_text(errors="replace").strip()
        raise ServerStartError(errors.splitlines()[-1] if errors else f"not ready within {START_SECONDS:g} s")
    facts: dict[str, Any] = json.loads(line)
    if "error" in facts:
        raise ServerStartError(facts["error"])
    return facts


_default: Server | None = None
_lock = threading.Lock()


def _start_afresh() -> None:
    """Forget the parent's server, in a forked child, which starts one of its own when it needs one."""
    global _default, _lock
    _default, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_start_afresh)

MIN_DEFAULT_WORKERS = 8


def default_server() -> Server:
    """Return the server of this process, starting it on first use; it stops with the process.

    It offers more workers than there are cores, since ranks may share a core, and each may fill the memory that one
    worker a core would have, read and write what its user may, and load any library: it is one user's own. The
    environment variable ``ALCHEMIST_NUM_WORKERS`` sets how many.
    """
    global _default
    with _lock:
        if _default is None or not _default.running:
            count = int(os.environ.get("ALCHEMIST_NUM_WORKERS") or max(MIN_DEFAULT_WORKERS, os.cpu_count() or 1))
            share = physical_memory() * 8 // 10 // min(count, os.cpu_count() or 1)
            everywhere = (os.getcwd(), "/")
            _default = start_server(
                count, memory_per_worker=share, data_directories=everywhere, allow_library_paths=True
            )
            atexit.register(_default.stop)
        return _default
