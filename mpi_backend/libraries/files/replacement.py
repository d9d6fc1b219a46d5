"""Replace a file or a directory completely or not at all.

The new content is written to a hidden sibling of the target, which is on the same file system. It is flushed to the
disk before the sibling takes the target's name. A reader of the target sees the old content or the new content, never a
mixture. If anything fails on any rank, the sibling is removed and the old content stays.

A file replaces a file by ``rename``. A directory cannot be replaced in this way: it is exchanged with the old one
(``renameat2``) where the system supports that, and otherwise renamed in two steps.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpi4py import MPI

from alchemist_ray.errors import AlchemistError, FileRefusedError, FileWriteError
from alchemist_ray.mpi_backend.libraries.files import linux
from alchemist_ray.mpi_backend.matrices.agreement import Agreement


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn errors of the operating system or a library about writing `path` into FileWriteError. Local."""
    try:
        yield
    except AlchemistError:
        raise
    except (OSError, RuntimeError, ValueError) as failure:  # the latter two from HDF5 and Zarr
        raise FileWriteError(path, getattr(failure, "strerror", None) or str(failure)) from None


@contextlib.contextmanager
def replacing(
    comm: MPI.Comm,
    path: str,
    target: Path,
    directories: Sequence[Path],
    *,
    overwrite: bool,
    directory: bool = False,
) -> Iterator[Path]:
    """Yield the path of a sibling of `target`, which becomes `target` if the block succeeds. Collective over comm.

    A failure inside the block must reach every rank: see :class:`.Agreement`.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks.
    path : str
        Path of the target as the caller gave it, for messages.
    target : Path
        Absolute path without links.
    directories : sequence of Path
        The directories for files, which are never replaced themselves.
    overwrite : bool
        Whether the target may exist.
    directory : bool
        Whether an existing target may be a directory. The caller must have checked its contents.

    Raises
    ------
    FileWriteError
        If the target exists and may not be overwritten, cannot be replaced, or its directory does not exist.
    FileRefusedError
        If the target is one of the directories for files.
    """
    token = comm.bcast(secrets.token_hex(8) if comm.rank == 0 else None)
    staged = target.with_name(f".alchemist-{token}.partial")
    with Agreement(comm), writing(path):
        if comm.rank == 0:
            if any(Path(os.path.realpath(allowed)).is_relative_to(target) for allowed in directories):
                raise FileRefusedError(path, "it is one of the directories for files, or contains one")
            _check(path, target, overwrite)
            if target.is_dir() and not directory:
                raise FileWriteError(path, "it is an existing directory")
    try:
        yield staged
        with Agreement(comm), writing(path):
            if comm.rank == 0:
                _put(path, staged, target, overwrite)
    finally:
        if comm.rank == 0:
            remove(staged)


def _check(path: str, target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise FileWriteError(path, "its directory does not exist")
    if not overwrite and target.exists():
        raise already_there(path)


def already_there(path: str) -> FileWriteError:
    """Return the error for a target that may not be overwritten."""
    return FileWriteError(path, "it exists already (overwrite=True replaces it)")


def _put(path: str, staged: Path, target: Path, overwrite: bool) -> None:
    """Give `staged` the name of `target`."""
    if not overwrite:
        try:
            if not linux.rename_new(staged, target):
                _check(path, target, overwrite)
                staged.rename(target)
        except FileExistsError:
            raise already_there(path) from None
    elif not target.exists():
        staged.rename(target)
    elif staged.is_dir() or target.is_dir():
        _swap(staged, target)
    else:
        shutil.copymode(target, staged)
        staged.replace(target)
    with contextlib.suppress(OSError):  # the new content is in place, so a failure here must not be reported as one
        sync_directory(target.parent)


def _swap(staged: Path, target: Path) -> None:
    """Exchange `staged` and `target`."""
    if linux.exchange(staged, target):
        return
    old = staged.with_name(staged.name + "-old")
    target.rename(old)
    try:
        staged.rename(target)
    except OSError:
        old.rename(target)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a file, or a directory with its contents, as far as possible. Local."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sync_directory(folder: Path) -> None:
    """Flush the names in a directory to the disk. Local."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(comm: MPI.Comm, folder: Path) -> None:
    """Flush this rank's share of the files and directories under `folder` to the disk. Local."""
    found = sorted(Path(where, name) for where, _, names in os.walk(folder) for name in ("", *names))
    for each in found[comm.rank :: comm.size]:
        if each.is_dir():
            sync_directory(each)
            continue
        fd = os.open(each, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
