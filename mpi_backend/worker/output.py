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
        close_all_but(2, source, named)  # a rank that cannot start needs stderr
        path = os.read(named, 4096)
        drain(source, Path(os.fsdecode(path)) if path else None)
        status = 0
    finally:
        os._exit(status)


def close_all_but(*keep: int) -> None:
    """Close all inherited descriptors except these."""
    kept = sorted(keep)
    for below, above in zip([-1, *kept], [*kept, os.sysconf("SC_OPEN_MAX")], strict=True):
        if below + 1 < above:  # CPython's closerange(0, 0) closes all descriptors
            os.closerange(below + 1, above)


class RotatingLog:
    """A log file of bounded size: when it is full it becomes ``NAME.log.1`` and a new one is started.

    Parameters
    ----------
    path : Path
        The file; what it contains is kept.
    limit : int
        Bytes after which a new file is started.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._file

    def write(self, octets: bytes) -> None:
        """Write to the log. On a full disk output is lost, but the library that prints must not stop."""
        if self._size > self._limit:
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
            os.close(self._file)
            self._open()
        try:
            self._size += os.write(self._file, octets)
        except OSError:
            return

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def drain(source: int, path: Path | None, limit: int = LIMIT) -> None:
    """Copy the pipe `source` to the file `path`, or to stderr if `path` is None, until the pipe ends."""
    log = None if path is None else RotatingLog(path, limit)
    if log is not None:
        os.dup2(log.fileno(), 2)
    while octets := os.read(source, _CHUNK):
        if log is None:
            os.write(2, octets)
        else:
            log.write(octets)
