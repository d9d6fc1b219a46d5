"""Two system calls of Linux that the :mod:`os` module lacks.

``os.posix_fallocate`` does not replace the first: if a file system cannot allocate, the C library writes to every block
of the file, which over a network takes as long as writing the file.
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
    """Reserve space for bytes of an open file and extend the file to hold them; do nothing where this is not supported.

    Raises
    ------
    OSError
        ENOSPC, EDQUOT or EFBIG, if there is not enough space.
    """
    if length == 0:
        return
    size = ctypes.c_longlong
    if _libc.fallocate(ctypes.c_int(fd), ctypes.c_int(0), size(start), size(length)):
        _raise_unless_lacking()


def rename_new(source: Path, target: Path) -> bool:
    """Rename `source` unless `target` exists; return False if this system cannot do this in one step.

    Raises
    ------
    FileExistsError
        If `target` exists.
    OSError
        If `source` cannot be renamed.
    """
    return _rename(source, target, _RENAME_NOREPLACE)


def exchange(source: Path, target: Path) -> bool:
    """Exchange two files or directories; return False if this system cannot do this in one step.

    Raises
    ------
    OSError
        If they cannot be exchanged.
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
