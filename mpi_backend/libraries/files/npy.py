"""NumPy's ``.npy`` files: a header, then the elements as they lie in memory.

Source: NumPy Enhancement Proposal 1 and :mod:`numpy.lib.format`. The elements begin at a multiple of 64 bytes. Python
objects, which such a file can hold as a pickle, are never read.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from alchemist_ray.errors import FileContentError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.files.directories import refusal
from alchemist_ray.mpi_backend.libraries.files.plain import PlainSource, write_plain
from alchemist_ray.mpi_backend.libraries.files.replacement import replacing, writing
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]

_READERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def read_header(path: str, real: Path) -> tuple[Header, int]:
    """Return the header of a ``.npy`` file (shape, Fortran order or not, type) and the offset of the elements. Local.

    Raises
    ------
    FileContentError
        If this is not a ``.npy`` file.
    FileRefusedError
        If it cannot be opened.
    """
    try:
        file = real.open("rb")
    except OSError as failure:
        raise refusal(path, failure) from None
    with file:
        return _header(path, file), file.tell()


def _header(path: str, file: BinaryIO) -> Header:
    try:
        version = npy_format.read_magic(file)
        reader = _READERS.get(version)
        if reader is not None:
            shape, by_columns, dtype = reader(file)
            return shape, by_columns, dtype
    except (ValueError, OSError) as failure:
        raise FileContentError(path, f"it is not a .npy file: {failure}") from None
    raise FileContentError(path, f"it is a .npy file of version {version}, which cannot be a matrix of numbers")


def open_npy(path: str, real: Path) -> PlainSource:
    """Return the array in a ``.npy`` file. Local.

    Raises
    ------
    FileContentError
        If this is not a ``.npy`` file, or not a matrix of numbers.
    """
    (shape, by_columns, dtype), offset = read_header(path, real)
    return PlainSource(path, real, offset, shape, dtype, by_columns)


def write_npy(ctx: TaskContext, A: DistMatrix, path: str, target: Path, overwrite: bool) -> None:
    """Write `A` to a ``.npy`` file. Collective over comm."""
    header = io.BytesIO()
    described = {"descr": npy_format.dtype_to_descr(A.dtype), "fortran_order": False, "shape": A.shape}
    npy_format.write_array_header_1_0(header, described)
    with replacing(ctx.comm, path, target, ctx.directories, overwrite=overwrite) as staged:
        with Agreement(ctx.comm), writing(path):
            if ctx.comm.rank == 0:
                staged.write_bytes(header.getvalue())
        write_plain(ctx, A, path, staged, len(header.getvalue()))
