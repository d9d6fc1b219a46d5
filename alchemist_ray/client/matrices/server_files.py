"""Files that the workers read and write themselves, by tasks of the library ``files``.

Paths are those of the server's host. They must lie in the directories that the server's owner has named, and relative
paths begin at the first of these. Each worker reads or writes its own share; no element passes through this process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.matrices.computing import Computes
from alchemist_ray.layouts.choice import LayoutChoice
from alchemist_ray.protocol.descriptions import TaskDescription
from alchemist_ray.protocol.server_options import LIBRARY_FILES

if TYPE_CHECKING:
    from alchemist_ray.client.matrices.handle import MatrixHandle

Path = str | PathLike[str]


def read_file(
    session: Computes, task: str, path: Path, choice: LayoutChoice, dtype: npt.DTypeLike | None, **arguments: Any
) -> MatrixHandle:
    """Have the workers of a session read a matrix from a file.

    Parameters
    ----------
    session : Computes
        The session.
    task : str
        The task of ``files``, e.g. ``"read_npy"``.
    path : str
        The file, on the server's host.
    choice : LayoutChoice
        How the matrix is to be distributed.
    dtype : dtype or None
        Element type of the matrix; None: the file's.
    **arguments
        What else the task takes.
    """
    handle: MatrixHandle = session.run_task(
        "files",
        task,
        path=path,
        layout=choice.to_wire(),
        dtype=None if dtype is None else np.dtype(dtype).name,
        **arguments,
    )
    return handle


def write_file(session: Computes, task: str, handle: MatrixHandle, path: Path, **arguments: Any) -> str:
    """Have the workers of a session write a matrix to a file; return its path on the server's host."""
    written: str = session.run_task("files", task, A=handle, path=path, **arguments)
    return written


def on_server(session: Computes, path: Path, directory: str = "") -> str:
    """Return the path to send to the server.

    A server that this process has started for itself sees the same files, so a relative path begins at `directory`, by
    default the current one. On any other server it begins at the first of the server's directories.
    """
    text = os.fsdecode(path)
    return os.path.abspath(os.path.join(directory, text)) if session.shares_directory else text


def resolve_paths(
    session: Computes, task: TaskDescription, arguments: Mapping[str, Any], directory: str = ""
) -> dict[str, Any]:
    """Return the arguments of a task by name, the paths among them as :func:`on_server` returns them."""
    resolved = dict(arguments)
    for parameter in task.parameters:
        value = arguments.get(parameter.name)
        if "path" in parameter.kinds and isinstance(value, (str, PathLike)):
            resolved[parameter.name] = on_server(session, value, directory)
    return resolved


def local_library(session: Computes, path: str) -> str:
    """Return the source of a library to send to the server: a module's name as it is, a file as :func:`on_server`."""
    is_file = os.sep in path or path.endswith(LIBRARY_FILES)
    return on_server(session, path) if is_file else path
