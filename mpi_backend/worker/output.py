"""The output of a worker and its libraries goes through a pipe to a log file of bounded size.

Libraries print from Python, C and Fortran, and some print gigabytes. So stdout and stderr of a rank are one pipe, and a
small separate process copies it to the log. When the file is full it becomes ``NAME.log.1`` and a new one is started. A
thread cannot do this: C code may print while it holds the interpreter lock, and would deadlock with a thread that needs
the lock. The process is forked before MPI starts and shares only the pipe with the rank. It ends after the last writer,
so the last output of a rank that crashes is in the log.
"""

from __future__ import annotations

import os
from pathlib import Path

LIMIT = 16 * 2**20
"""Bytes of a log file. The last 16 to 32 MiB of a worker's output are kept."""

_CHUNK = 64 * 1024


class Output:
    """The captured output of this process. Made by :func:`capture`."""

    def __init__(self, naming: int) -> None:
        self._naming = naming

    def name(self, path: Path) -> None:
        """Set the log file. Until then the output waits in the pipe."""
        os.write(self._naming, os.fsencode(path))
        os.close(self._naming)


def capture() -> Output:
    """Send stdout and stderr of this process through a pipe from now on. Call this once, before MPI starts."""
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
    """Run the process that drains the pipe. Does not return."""
    status = 1
    try:
        os.setsid()  # a kill of the job must not kill this process before it has logged the rank's last output
        _close_all_but(source, named)
        path = os.read(named, 4096)
        drain(source, Path(os.fsdecode(path)) if path else None)
        status = 0
    finally:
        os._exit(status)


def _close_all_but(source: int, named: int) -> None:
    """Close all inherited descriptors, mainly those of MPI's process manager. A rank that cannot start needs stderr."""
    keep = sorted({2, source, named})
    for below, above in zip([-1, *keep], [*keep, os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(below + 1, above)


def drain(source: int, path: Path | None, limit: int = LIMIT) -> None:
    """Copy the pipe `source` to the file `path`, or to stderr if `path` is None, until the pipe ends."""
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
    """Write to the log. On a full disk output is lost, but the library that prints must not stop."""
    try:
        return os.write(log, octets)
    except OSError:
        return 0
