"""Where the output of a worker goes, its libraries' included: through a pipe to a log file of bounded size.

Libraries print from Python, C and Fortran, and some print gigabytes. So stdout and stderr of a rank are one pipe, which
a small process of its own drains into the log; when the file is full it becomes ``NAME.log.1`` and a new one is begun.
A thread would not do: C code may print while it holds the interpreter lock, and would wait for ever for a thread that
needs it. The process is forked before MPI starts and holds nothing of the rank's but the pipe, so it ends when the last
writer does, having written down what a rank that crashes has said.
"""

from __future__ import annotations

import os
from pathlib import Path

LIMIT = 16 * 2**20
"""Bytes of a log file; of what a worker prints, the last 16 to 32 MiB are kept."""

_CHUNK = 64 * 1024


class Output:
    """The captured output of this process. Made by :func:`capture`."""

    def __init__(self, naming: int) -> None:
        self._naming = naming

    def name(self, path: Path) -> None:
        """Say where the output goes; until then it waits in the pipe, or is lost with what is printed beyond that."""
        os.write(self._naming, os.fsencode(path))
        os.close(self._naming)


def capture() -> Output:
    """Send stdout and stderr of this process through a pipe from now on. To be called once, before MPI starts."""
    source, sink = os.pipe()
    named, naming = os.pipe()
    if os.fork() == 0:
        os.close(sink)
        os.close(naming)
        _run(source, named)
    os.close(source)
    os.close(named)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    return Output(naming)


def _run(source: int, named: int) -> None:
    """Be the process that drains the pipe."""
    status = 1
    try:
        os.setsid()  # whoever kills the job must not kill this before it has written down the rank's last words
        _close_all_but(source, named)
        path = os.read(named, 4096)
        drain(source, Path(os.fsdecode(path)) if path else None)
        status = 0
    finally:
        os._exit(status)


def _close_all_but(source: int, named: int) -> None:
    """Close what was inherited, from MPI's process manager above all, but stderr, for a rank that cannot start."""
    keep = sorted({2, source, named})
    for below, above in zip([-1, *keep], [*keep, os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(below + 1, above)


def drain(source: int, path: Path | None, limit: int = LIMIT) -> None:
    """Copy what comes out of the pipe `source` to the file `path`, or to stderr if there is none, until it ends."""
    log = 2 if path is None else _open(path)
    if path is not None:
        os.dup2(log, 2)
    written = os.fstat(log).st_size
    while octets := os.read(source, _CHUNK):
        if path is not None and written > limit:
            os.replace(path, path.with_name(path.name + ".1"))
            os.close(log)
            log, written = _open(path), 0
        written += _write(log, octets)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _write(log: int, octets: bytes) -> int:
    """Write what can be written: a full disk loses output, and must not stop the library that prints."""
    try:
        return os.write(log, octets)
    except OSError:
        return 0
