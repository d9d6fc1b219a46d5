"""The options of a server, each written once: for its command line, its Python function, its driver and its workers.

A client process sends them to the driver that it starts, and the driver sends :class:`WorkerOptions` to its workers,
both as JSON. To add an option, add a field here; the command line offers every field that has a ``flag``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict

from alchemist_ray.errors import ServerStartError

LIBRARY_FILES = (".py", ".so", ".dylib", ".c")
"""Endings of libraries that are files; anything else is the name of a module."""

MIN_TOKEN = 8
"""Characters of the shortest token that a server accepts; the tokens that it makes have 43."""

FORK, SITE = "fork", "site"
"""How a node starts ranks: it forks them from a warm process, or the site's own MPI starts them."""
MPI_LABEL = "mpi"
"""A node whose ranks the site's own MPI starts has this label, with the value :data:`SITE`, so that clients find it."""


class ServerArguments(TypedDict, total=False):
    """The keyword arguments of :func:`alchemist_ray.start_server`; :class:`ServerOptions` documents them."""

    hostname: str
    port: int
    token: str | None
    advertise: str
    worker_ports: tuple[int, int] | None
    memory_per_worker: int | None
    libraries: Mapping[str, str]
    allow_library_paths: bool
    data_directories: Sequence[Any]
    log_dir: str | None
    mpi: Literal["fork", "site"]
    mpiexec: str
    python: str


def _option(flag: str, text: str, default: Any, **shown: Any) -> Any:
    """Return a field with its flag on the command line, the help text, and how the flag shows its value."""
    metadata = {"flag": flag, "help": text, **shown}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def unused_mpiexec(mpi: str, mpiexec: str) -> str:
    """Return in words that nothing would use `mpiexec`, if this is so."""
    if mpi == SITE or not mpiexec:
        return ""
    return (
        f"mpiexec is {mpiexec!r}, but ranks are forked here and nothing would use it. Let the site's own MPI start "
        f"them with --mpi {SITE} (mpi={SITE!r} in Python), or omit mpiexec"
    )


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The options of a server that its workers need.

    Attributes
    ----------
    worker_ports : (int, int) or None
        Range of the workers' ports; None: any.
    memory_per_worker : int or None
        Bytes that each worker has for matrices; None: an equal share of 80 % of the machine's memory.
    libraries : mapping
        Name -> Python module or path of libraries beside the installed ones.
    allow_library_paths : bool
        Whether sessions may load libraries from any path.
    data_directories : sequence of str
        Directories in which the workers read and write files that sessions name. Relative paths begin at the first.
    """

    worker_ports: tuple[int, int] | None = _option(
        "--worker-ports", "ports of the workers (default: any)", None, metavar="A-B"
    )
    memory_per_worker: int | None = _option("--memory-per-worker", "for matrices, e.g. 4GiB", None, metavar="SIZE")
    libraries: Mapping[str, str] = _option(
        "--library", "a library to offer beside the installed ones", {}, metavar="NAME=MODULE_OR_PATH"
    )
    allow_library_paths: bool = _option("--allow-library-paths", "let clients load libraries from any path", False)
    data_directories: Sequence[str] = _option("--data-dir", "let workers read and write files in D", (), metavar="D")

    def to_json(self) -> str:
        """Return the options as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the options that :meth:`to_json` wrote."""
        return cls.of(json.loads(text))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the options that JSON has decoded."""
        ports = options.get("worker_ports")
        return cls(**{**options, "worker_ports": tuple(ports) if ports else None})


@dataclass(frozen=True, kw_only=True)
class ServerOptions(WorkerOptions):
    """All options of a server.

    Attributes
    ----------
    num_workers : int
        Number of workers (MPI ranks) that the server offers on its own host. With 0 it waits for node agents.
    token : str
        The secret that clients must know to connect.
    hostname, port : str, int
        Interface and port to listen on; port 0 takes a free one.
    advertise : str
        Address at which clients reach the workers; empty: `hostname`.
    log_dir : str or None
        Directory of the logs; None: a temporary directory, which is removed when the server stops.
    mpi : {"fork", "site"}
        Whether the ranks on its own host are forked from a warm process, or the site's own MPI starts them.
    mpiexec : str
        The command that starts MPI jobs at this site, with its options, such as ``"srun --mpi=pmix"``; empty: the
        ``mpiexec`` beside `python`, or the first on PATH.
    python : str
        The Python that runs these ranks, with its own MPI, mpi4py and NumPy; empty: the server's own.

    Raises
    ------
    ServerStartError
        If the token is too short, `mpi` has another value, or `mpiexec` is given and nothing would use it.
    """

    num_workers: int = _option(
        "--workers",
        "MPI ranks to offer here; 0: wait for nodes (default: the number of cores)",
        1,
        metavar="N",
    )
    token: str = dataclasses.field(repr=False)
    hostname: str = _option("--hostname", "interface to listen on (default: %(default)s)", "127.0.0.1")
    port: int = _option("--port", "port to listen on (default: %(default)s)", 0)
    advertise: str = _option("--advertise", "address at which clients reach the workers", "", metavar="ADDRESS")
    log_dir: str | None = _option("--log-dir", "where to keep logs (default: nowhere)", None, metavar="D")
    mpi: str = _option("--mpi", "what starts the ranks here (default: %(default)s)", FORK, choices=(FORK, SITE))
    mpiexec: str = _option("--mpiexec", "the site's own mpiexec or srun, for --mpi site", "", metavar="COMMAND")
    python: str = _option("--python", "the Python that runs the ranks here (default: this one)", "", metavar="PATH")

    def __post_init__(self) -> None:
        if self.mpi not in (FORK, SITE):
            raise ServerStartError(f"mpi is {self.mpi!r}; it must be {FORK!r} or {SITE!r}")
        if complaint := unused_mpiexec(self.mpi, self.mpiexec):
            raise ServerStartError(complaint)
        if len(self.token) < MIN_TOKEN:
            raise ServerStartError(f"the token has {len(self.token)} characters, but it needs at least {MIN_TOKEN}")

    def for_workers(self) -> WorkerOptions:
        """Return the options that the workers need, without the token."""
        return WorkerOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(WorkerOptions)})
