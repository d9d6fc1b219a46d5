"""Matrices from files and to files, read and written by all workers in parallel: .npy, HDF5, Zarr, Parquet.

Files are those of the server's host. Paths are relative to the first directory that the server's owner has named
(``alchemist serve --data-dir DIR``), and must lie under one of these. Nothing passes through the client. Every task is
collective over the worker group.

What is written appears under its name complete, or not at all: after a failure, what was there before is as it was.
Parts of a table of Parquet and arrays of a Zarr store are files of their own, so these are written as directories.
"""

from __future__ import annotations

from typing import Any

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.files import npy
from alchemist_ray.mpi_backend.libraries.files.access import read_matrix
from alchemist_ray.mpi_backend.libraries.files.contents import describe_file
from alchemist_ray.mpi_backend.libraries.files.directories import existing, existing_file, resolve
from alchemist_ray.mpi_backend.libraries.files.packages import needing
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

__version__ = "1.0"


@task
def describe(ctx: TaskContext, path: str) -> dict[str, Any] | None:
    """Return what is in a file.

    Parameters
    ----------
    path : str
        A file, a Zarr store or a folder of Parquet files.

    Returns
    -------
    dict
        ``format``: ``"npy"``, ``"hdf5"``, ``"zarr"`` or ``"parquet"``, judged by the content. ``datasets``: for each
        array, or column of a table, a dict of ``name``, ``shape``, ``dtype`` and ``chunks`` (None if there are none).

    Raises
    ------
    FileRefusedError, FileMissingError, FileContentError
        If it may not be read, is not there, or is of no known format.
    LibraryLoadError
        If the package for its format is not installed on the server.
    """
    with Agreement(ctx.comm):
        return describe_file(path, ctx.directories) if ctx.comm.rank == 0 else None


@task
def read_npy(ctx: TaskContext, path: str, *, layout: dict[str, Any], dtype: str | None = None) -> DistMatrix:
    """Return the matrix in a .npy file.

    Parameters
    ----------
    path : str
        The file. It may be in C or in Fortran order, of either byte order.
    layout : dict
        Pair, and perhaps block, grid and align: a :class:`~alchemist_ray.layouts.choice.LayoutChoice` on the wire.
    dtype : str, optional
        Element type of the matrix; by default that of the file. Conversions may round, not truncate.

    Returns
    -------
    A : DistMatrix, shape (m, n)
        An array of one dimension becomes a matrix of one column.

    Raises
    ------
    FileRefusedError, FileMissingError
        If the file may not be read, or is not there.
    FileContentError
        If it is no .npy file, ends early, has not 2 or 1 dimensions or no numbers, or is of an element type that
        matrices lack while `dtype` says nothing.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the dtype does not fit, or the workers have no room.

    Notes
    -----
    Each byte is read by one rank, straight into the matrix where that has whole rows in one run (VC_STAR). Memory
    beside the matrix: 16 MiB a rank.
    """
    return read_matrix(ctx, lambda: npy.open_npy(path, existing_file(path, ctx.directories)), layout, dtype)


@task
def read_hdf5(
    ctx: TaskContext, path: str, dataset: str, *, layout: dict[str, Any], dtype: str | None = None
) -> DistMatrix:
    """Return the matrix in a dataset of an HDF5 file.

    Parameters
    ----------
    path : str
        The file.
    dataset : str
        Name of the dataset, with the groups that it is in: ``"results/U"``. It may be chunked and compressed.
    layout : dict
        Pair, and perhaps block, grid and align: a :class:`~alchemist_ray.layouts.choice.LayoutChoice` on the wire.
    dtype : str, optional
        Element type of the matrix; by default that of the dataset. Conversions may round, not truncate.

    Returns
    -------
    A : DistMatrix, shape (m, n)
        A dataset of one dimension becomes a matrix of one column.

    Raises
    ------
    FileRefusedError, FileMissingError
        If the file, or one that the dataset refers to, may not be read, or is not there.
    DatasetMissingError
        If the file has no such dataset; the error lists what it has.
    FileContentError
        If this is no HDF5 file, it ends early, or the dataset has not 2 or 1 dimensions or no numbers, or is of an
        element type that matrices lack while `dtype` says nothing.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the dtype does not fit, or the workers have no room.
    LibraryLoadError
        If h5py is not installed on the server.

    Notes
    -----
    Each chunk is decompressed once. Memory beside the matrix: 16 MiB a rank, or as much and a chunk if that is more
    than 4 MiB.
    """
    with Agreement(ctx.comm), needing("h5py"):
        from alchemist_ray.mpi_backend.libraries.files import hdf5
    directories = ctx.directories
    return read_matrix(
        ctx, lambda: hdf5.open_dataset(path, existing_file(path, directories), dataset, directories), layout, dtype
    )


@task
def read_zarr(
    ctx: TaskContext, path: str, array: str = "", *, layout: dict[str, Any], dtype: str | None = None
) -> DistMatrix:
    """Return the matrix in an array of a Zarr store, format 2 or 3.

    Parameters
    ----------
    path : str
        The directory of the store.
    array : str
        Name of the array, with the groups that it is in; "" if the store is the array.
    layout : dict
        Pair, and perhaps block, grid and align: a :class:`~alchemist_ray.layouts.choice.LayoutChoice` on the wire.
    dtype : str, optional
        Element type of the matrix; by default that of the array. Conversions may round, not truncate.

    Returns
    -------
    A : DistMatrix, shape (m, n)
        An array of one dimension becomes a matrix of one column. A chunk that is not there is the fill value.

    Raises
    ------
    FileRefusedError, FileMissingError
        If the store may not be read, or is not there; or a codec of it is not one that the server runs.
    DatasetMissingError
        If the store has no such array; the error lists what it has.
    FileContentError
        If this is no Zarr store, a chunk is broken, or the array has not 2 or 1 dimensions or no numbers, or is of an
        element type that matrices lack while `dtype` says nothing.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the dtype does not fit, or the workers have no room.
    LibraryLoadError
        If zarr is not installed on the server.

    Notes
    -----
    Each chunk is decompressed once. Memory beside the matrix: 32 MiB a rank, and a chunk if that is more than 4 MiB.
    """
    with Agreement(ctx.comm), needing("zarr"):
        from alchemist_ray.mpi_backend.libraries.files import zarr_stores
    directories = ctx.directories
    return read_matrix(
        ctx, lambda: zarr_stores.open_array(path, existing(path, directories), array, directories), layout, dtype
    )


@task
def read_parquet(
    ctx: TaskContext,
    path: str,
    columns: list[str] | None = None,
    *,
    layout: dict[str, Any],
    dtype: str | None = None,
) -> DistMatrix:
    """Return the matrix of the columns of a Parquet table.

    Parameters
    ----------
    path : str
        A file, or a folder: its files ``*.parquet`` are one table, in the order of their names.
    columns : list of str, optional
        Names of the columns, in the order that they are to have in the matrix; by default all.
    layout : dict
        Pair, and perhaps block, grid and align: a :class:`~alchemist_ray.layouts.choice.LayoutChoice` on the wire.
    dtype : str, optional
        Element type of the matrix; by default what NumPy makes of the columns' types together.

    Returns
    -------
    A : DistMatrix, shape (rows, columns)
        Nulls are NaN if the matrix is floating or complex.

    Raises
    ------
    FileRefusedError, FileMissingError
        If a file may not be read, or is not there.
    DatasetMissingError
        If there is no column of that name; the error lists what there is.
    FileContentError
        If this is no Parquet file, it ends early, a column has no numbers, has nulls while the matrix is of integers or
        bool, or is of an element type that matrices lack while `dtype` says nothing.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the dtype does not fit, or the workers have no room.
    LibraryLoadError
        If pyarrow is not installed on the server.

    Notes
    -----
    A row group is read by one rank: with fewer row groups than ranks, some have nothing to read. Memory beside the
    matrix: 24 MiB a rank, and a page of each column.
    """
    with Agreement(ctx.comm), needing("pyarrow"):
        from alchemist_ray.mpi_backend.libraries.files import parquet
    return parquet.read_parquet(ctx, path, columns, layout, dtype)


@task
def write_npy(ctx: TaskContext, A: DistMatrix, path: str, *, overwrite: bool = False) -> str:
    """Write a matrix to a .npy file; return where that is on the server.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, of any type and layout.
    path : str
        The file, in a directory that is there.
    overwrite : bool
        Whether to replace a file that is there.

    Raises
    ------
    FileRefusedError
        If it lies outside the directories for files.
    FileWriteError
        If there is no directory for it, there is such a file already and `overwrite` is False, or it cannot be
        written (a full disk).
    """
    with Agreement(ctx.comm):
        target = resolve(path, ctx.directories)
    npy.write_npy(ctx, A, path, target, overwrite)
    return str(target)


@task
def write_hdf5(ctx: TaskContext, A: DistMatrix, path: str, dataset: str, *, overwrite: bool = False) -> str:
    """Write a matrix as a dataset of an HDF5 file; return where the file is on the server.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, of any type and layout.
    path : str
        The file, in a directory that is there. What else an HDF5 file of that name has is kept.
    dataset : str
        Name of the dataset; groups on the way to it are made: ``"results/U"``. It gets no chunks.
    overwrite : bool
        Whether to replace a dataset that is there.

    Raises
    ------
    FileRefusedError
        If it lies outside the directories for files.
    FileWriteError
        If there is no directory for it, there is such a dataset already and `overwrite` is False, something else is in
        its place, or the file cannot be written (a full disk).
    LibraryLoadError
        If h5py is not installed on the server.

    Notes
    -----
    To keep what else is in the file, it is copied first. Nobody else may change it meanwhile: that would be lost. The
    room of a dataset that is replaced is used again only if the new one fits there.
    """
    with Agreement(ctx.comm), needing("h5py"):
        from alchemist_ray.mpi_backend.libraries.files import hdf5
    with Agreement(ctx.comm):
        target = resolve(path, ctx.directories)
    hdf5.write_hdf5(ctx, A, path, target, dataset, overwrite)
    return str(target)


@task
def write_zarr(
    ctx: TaskContext,
    A: DistMatrix,
    path: str,
    array: str = "",
    *,
    chunks: list[int] | None = None,
    compression: str | None = "zstd",
    overwrite: bool = False,
) -> str:
    """Write a matrix as an array of a Zarr store; return where the store is on the server.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, of any type and layout.
    path : str
        The directory of the store, in a directory that is there.
    array : str
        Name of the array; groups on the way to it are made. "" makes the store the array.
    chunks : list of int, optional
        Rows and columns of a chunk; by default some rows of about 1 MiB.
    compression : str or None
        ``"zstd"`` or None.
    overwrite : bool
        Whether to replace an array that is there.

    Raises
    ------
    FileRefusedError
        If it lies outside the directories for files.
    FileWriteError
        If there is no directory for it, there is such an array already and `overwrite` is False, something else is in
        its place, or the store cannot be written (a full disk).
    ArgumentValueError
        If `chunks` or `compression` is none that there is.
    LibraryLoadError
        If zarr is not installed on the server.

    Notes
    -----
    Memory beside the matrix: 32 MiB a rank, or as much and three chunks if these are more than 4 MiB each.
    """
    with Agreement(ctx.comm), needing("zarr"):
        from alchemist_ray.mpi_backend.libraries.files import zarr_stores
    with Agreement(ctx.comm):
        store = resolve(path, ctx.directories)
    zarr_stores.write_zarr(ctx, A, path, store, array, chunks, compression, overwrite)
    return str(store)


@task
def write_parquet(
    ctx: TaskContext,
    A: DistMatrix,
    path: str,
    columns: list[str] | None = None,
    *,
    compression: str | None = "snappy",
    overwrite: bool = False,
) -> str:
    """Write a matrix as a folder of Parquet files, one a worker; return where that is on the server.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, in any layout, of any type but the complex ones.
    path : str
        The folder, in a directory that is there.
    columns : list of str, optional
        n different names; by default ``c0``, ``c1``, ...
    compression : str or None
        What pyarrow offers: ``"snappy"``, ``"zstd"``, ``"gzip"``, ``"lz4"``, ``"brotli"``.
    overwrite : bool
        Whether to replace a file or a folder of Parquet files that is there.

    Raises
    ------
    FileRefusedError
        If it lies outside the directories for files.
    FileWriteError
        If there is no directory for it, there is something already and `overwrite` is False, or it is a directory with
        other things in it, or the files cannot be written (a full disk).
    ArgumentValueError
        If the matrix is complex, or the names or the compression do not fit.
    LibraryLoadError
        If pyarrow is not installed on the server.

    Notes
    -----
    The rows of the files together, by name, are those of the matrix. Row groups are of about 4 MiB. Memory beside the
    matrix: 24 MiB a rank.
    """
    with Agreement(ctx.comm), needing("pyarrow"):
        from alchemist_ray.mpi_backend.libraries.files import parquet
    with Agreement(ctx.comm):
        target = resolve(path, ctx.directories)
    parquet.write_parquet(ctx, A, path, target, columns, compression, overwrite)
    return str(target)
