"""Restrict the paths of clients to the directories that the server's owner has named.

Links and ``..`` in a path are resolved first; the result must lie under one of the directories. A directory that is
read as a whole (a Zarr store, a folder of Parquet files) must not contain a link that leads out either.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from alchemist_ray.errors import FileContentError, FileMissingError, FileRefusedError

_ADVICE = "The server's owner names directories with: alchemist serve --data-dir DIR"


def resolve(path: str, directories: Sequence[Path]) -> Path:
    """Return the absolute path that `path` leads to, whether or not the file exists. Local.

    Parameters
    ----------
    path : str
        Absolute, or relative to the first of the directories.
    directories : sequence of Path
        The directories under which files may be.

    Raises
    ------
    FileRefusedError
        If there are no directories, or the path leads out of them.
    """
    if not directories:
        raise FileRefusedError(path, f"this server reads and writes no files. {_ADVICE}")
    if not path or "\0" in path:
        raise FileRefusedError(repr(path), "this is not a valid path")
    real = Path(os.path.realpath(directories[0] / path))
    if not is_inside(real, directories):
        allowed = ", ".join(map(str, directories))
        raise FileRefusedError(path, f"it lies outside the directories for files ({allowed}). {_ADVICE}")
    return real


def is_inside(real: Path, directories: Sequence[Path]) -> bool:
    """Whether a path without links is one of the directories or lies under one. Local."""
    return any(real.is_relative_to(os.path.realpath(directory)) for directory in directories)


def existing(path: str, directories: Sequence[Path]) -> Path:
    """Return the absolute path of a file or directory to read. Local.

    Raises
    ------
    FileRefusedError
        As in :func:`resolve`, or if this process may not read it.
    FileMissingError
        If it does not exist.
    FileContentError
        If it is neither a file nor a directory but a pipe or a device, which a read could block on.
    """
    real = resolve(path, directories)
    try:
        mode = os.stat(real).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileMissingError(path) from None
    except OSError as failure:
        raise refusal(path, failure) from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise FileContentError(path, "it is neither a file nor a directory")
    if not os.access(real, os.R_OK):
        raise FileRefusedError(path, "the workers' user may not read it")
    return real


def existing_file(path: str, directories: Sequence[Path]) -> Path:
    """Return the absolute path of a file like :func:`existing`; a directory raises FileContentError. Local."""
    real = existing(path, directories)
    if real.is_dir():
        raise FileContentError(path, "it is a directory, but a file was expected")
    return real


def refuse_links_out(path: str, folder: Path, directories: Sequence[Path]) -> None:
    """Check that no link inside `folder`, at any depth, leads out of the directories. Local.

    Raises
    ------
    FileRefusedError
        If one does; the error names the folder by `path`, the caller's name for it.
    """
    waiting, seen = [folder], {folder}
    while waiting:
        for entry in _entries(path, waiting.pop()):
            real = Path(entry.path)
            if entry.is_symlink():
                real = Path(os.path.realpath(entry.path))
                if not is_inside(real, directories):
                    raise FileRefusedError(
                        path, f"it contains {entry.name}, a link out of the directories for files. {_ADVICE}"
                    )
            if entry.is_dir() and real not in seen:
                seen.add(real)
                waiting.append(real)


def _entries(path: str, folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as failure:
        raise refusal(path, failure) from None


def refusal(path: str, failure: OSError) -> FileRefusedError:
    """Return the error for a file that the operating system does not let us read."""
    return FileRefusedError(path, f"the workers cannot read it: {failure.strerror or failure}")
