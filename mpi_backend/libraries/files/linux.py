"""Two system calls of Linux that the :mod:`os` module lacks.

``os.posix_fallocate`` is no substitute: where a file system cannot allocate, the C library writes to every block of the
file instead, which takes as long as writing the file over a network.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_LACKING = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)

_libc = ctypes.CDLL(None, use_errno=True)


def allocate(fd: int, start: int, length: int) -> None:
    """Reserve room for bytes of an open file, and make it long enough for them; nothing where that is not offered.

    Raises
    ------
    OSError
        ENOSPC, EDQUOT or EFBIG, if there is no room.
    """
    if length == 0:
        return
    size = ctypes.c_longlong
    if _libc.fallocate(ctypes.c_int(fd), ctypes.c_int(0), size(start), size(length)):
        _raise_unless_lacking()


def rename_new(source: Path, target: Path) -> bool:
    """Rename `source`, unless there is a `target`; return whether this system can do so in one step.

    Raises
    ------
    FileExistsError
        If there is one.
    OSError
        If it cannot be renamed.
    """
    return _rename(source, target, _RENAME_NOREPLACE)


def exchange(source: Path, target: Path) -> bool:
    """Let two files or directories change places; return whether this system can do so in one step.

    Raises
    ------
    OSError
        If they cannot.
    """
    return _rename(source, target, _RENAME_EXCHANGE)


def _rename(source: Path, target: Path, flags: int) -> bool:
    try:
        call = _libc.renameat2
    except AttributeError:  # a C library older than the system call
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    _raise_unless_lacking(source)
    return False


def _raise_unless_lacking(path: Path | None = None) -> None:
    number = ctypes.get_errno()
    if number not in _LACKING:
        raise OSError(number, os.strerror(number), None if path is None else str(path))
