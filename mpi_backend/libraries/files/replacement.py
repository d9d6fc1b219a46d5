"""Put a file or a directory in the place of another all at once, or not at all.

Everything is written to a hidden sibling of the target, so on the same file system, and has reached the disk before the
sibling takes the target's name. Whoever reads the target sees the old content or the new, never a mixture; and when
anything fails on any rank, the sibling is removed and the old content stands.

A file replaces a file by ``rename``; a directory, which that cannot replace, changes places with the old one
(``renameat2``) where the system can do so, and elsewhere takes its name in two steps.
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
    """Turn what the operating system, or a library, says about writing `path` into a FileWriteError. Local."""
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
    """Give the path of a sibling of `target` that becomes `target` when the context ends well. Collective over comm.

    Inside, whatever fails must fail on every rank alike: see :class:`.Agreement`.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks.
    path : str
        How the caller named the target, for messages.
    target : Path
        Absolute, without links.
    directories : sequence of Path
        The directories for files: they are never replaced themselves.
    overwrite : bool
        Whether there may be a target already.
    directory : bool
        Whether that may be a directory. Whoever says so has looked at what is in it.

    Raises
    ------
    FileWriteError
        If there is a target that may not be overwritten, or it cannot be replaced, or there is no directory for it.
    FileRefusedError
        If the target is one of the directories for files.
    """
    token = comm.bcast(secrets.token_hex(8) if comm.rank == 0 else None)
    staged = target.with_name(f".alchemist-{token}.partial")
    with Agreement(comm), writing(path):
        if comm.rank == 0:
            if any(Path(os.path.realpath(allowed)).is_relative_to(target) for allowed in directories):
                raise FileRefusedError(path, "this is a directory for files, or above one")
            _check(path, target, overwrite)
            if target.is_dir() and not directory:
                raise FileWriteError(path, "there is a directory of that name")
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
        raise FileWriteError(path, "there is no directory of that name to put it into")
    if not overwrite and target.exists():
        raise already_there(path)


def already_there(path: str) -> FileWriteError:
    """Return the error for a target that may not be overwritten."""
    return FileWriteError(path, "there is one already (overwrite=True replaces it)")


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
    with contextlib.suppress(OSError):  # the new content is in its place: too late to say that it could not be written
        sync_directory(target.parent)


def _swap(staged: Path, target: Path) -> None:
    """Let `staged` and `target` change places."""
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
    """Remove a file, or a directory with all that is in it, as far as that is possible. Local."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sync_directory(folder: Path) -> None:
    """Have the names in a directory on the disk. Local."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(comm: MPI.Comm, folder: Path) -> None:
    """Have this rank's share of the files under a directory on the disk, and of the directories. Local."""
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
