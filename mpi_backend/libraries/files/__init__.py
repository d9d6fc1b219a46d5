"""Matrices in .npy, HDF5, Zarr and Parquet files, which all workers read and write in parallel.

Paths refer to the server's host. They are relative to the first directory that the server's owner has named
(``alchemist serve --data-dir DIR``), and must lie under one of these directories. The relative path of a client that
has started the server itself begins at the client's working directory. No data passes through the client.
Every task is collective over the worker group.

A written file appears under its name complete or not at all; after a failure the old content is unchanged. Parquet
tables and Zarr arrays are written as directories, because their parts and chunks are separate files.
"""

from __future__ import annotations

from pathlib import Path
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
def describe(ctx: TaskContext, path: Path) -> dict[str, Any] | None:
    """Return the format of a file and a list of its matrices.

    Parameters
    ----------
    path : path
        A file, a Zarr store or a folder of Parquet files.

    Returns
    -------
    dict
        ``format``: ``"npy"``, ``"hdf5"``, ``"zarr"`` or ``"parquet"``, judged by the content. ``datasets``: for each
        array, or column of a table, a dict of ``name``, ``shape``, ``dtype`` and ``chunks`` (None without chunks).

    Raises
    ------
    FileRefusedError, FileMissingError, FileContentError
        If the file may not be read, does not exist, or has an unknown format.
    LibraryLoadError
        If the package for its format is not installed on the server.
    """
    with Agreement(ctx.comm):
        return describe_file(str(path), ctx.directories) if ctx.comm.rank == 0 else None


@task
def read_npy(ctx: TaskContext, path: Path, *, layout: dict[str, Any], dtype: str | None = None) -> DistMatrix:
    """Return the matrix in a .npy file.

    Parameters
    ----------
    path : path
        The file, in C or Fortran order and either byte order.
    layout : dict
        Pair, and optionally block, grid and align: a :class:`~alchemist_ray.layouts.choice.LayoutChoice` on the wire.
    dtype : str, optional
        Element type of the matrix; by default that of the file. Conversions may round but not truncate.

    Returns
    -------
    A : DistMatrix, shape (m, n)
        An array of one dimension becomes a matrix of one column.

    Raises
    ------
    FileRefusedError, FileMissingError
        If the file may not be read, or does not exist.
    FileContentError
        If it is not a .npy file, ends early, does not have 1 or 2 dimensions, is not numeric, or has an element type
        that matrices lack and `dtype` is not given.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the dtype does not fit, or the workers have not enough memory.

    Notes
    -----
    Each byte is read by one rank, and directly into the matrix if the layout gives each rank consecutive whole rows
    (VC_STAR). Memory beside the matrix: 16 MiB per rank.
    """
    told, directories = str(path), ctx.directories
    return read_matrix(ctx, lambda: npy.open_npy(told, existing_file(told, directories)), layout, dtype)


@task
def read_hdf5(
    ctx: TaskContext, path: Path, dataset: str, *, layout: dict[str, Any], dtype: str | None = None
) -> DistMatrix:
    """Return the matrix in a dataset of an HDF5 file.

    Parameters
    ----------
    path : path
        The file.
    dataset : str
        Name of the dataset with its groups: ``"results/U"``. It may be chunked and compressed.
    layout : dict
        Pair, and optionally block, grid and align: a :class:`~alchemist_ray.layouts.choice.LayoutChoice` on the wire.
    dtype : str, optional
        Element type of the matrix; by default that of the dataset. Conversions may round but not truncate.

    Returns
    -------
    A : DistMatrix, shape (m, n)
        A dataset of one dimension becomes a matrix of one column.

    Raises
    ------
    FileRefusedError, FileMissingError
        If the file, or another file that the dataset refers to, may not be read or does not exist.
    DatasetMissingError
        If the file has no such dataset; the error lists the datasets of the file.
    FileContentError
        If this is not an HDF5 file, it ends early, or the dataset does not have 1 or 2 dimensions, is not numeric, or
        has an element type that matrices lack and `dtype` is not given.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the dtype does not fit, or the workers have not enough memory.
    LibraryLoadError
        If h5py is not installed on the server.

    Notes
    -----
    Each chunk is decompressed once. Memory beside the matrix: 16 MiB per rank, plus one chunk if that is larger than
    4 MiB.
    """
    with Agreement(ctx.comm), needing("h5py"):
        from alchemist_ray.mpi_backend.libraries.files import hdf5
    told, directories = str(path), ctx.directories
    return read_matrix(
        ctx, lambda: hdf5.open_dataset(told, existing_file(told, directories), dataset, directories), layout, dtype
    )


@task
def read_zarr(
    ctx: TaskContext, path: Path, array: str = "", *, layout: dict[str, Any], dtype: str | None = None
) -> DistMatrix:
    """Return the matrix in an array of a Zarr store, format 2 or 3.

    Parameters
    ----------
    path : path
        The directory of the store.
    array : str
        Name of the array with its groups; "" if the store itself is the array.
    layout : dict
        Pair, and optionally block, grid and align: a :class:`~alchemist_ray.layouts.choice.LayoutChoice` on the wire.
    dtype : str, optional
        Element type of the matrix; by default that of the array. Conversions may round but not truncate.

    Returns
    -------
    A : DistMatrix, shape (m, n)
        An array of one dimension becomes a matrix of one column. A missing chunk stands for the fill value.

    Raises
    ------
    FileRefusedError, FileMissingError
        If the store may not be read or does not exist, or the array needs a codec that the server does not run.
    DatasetMissingError
        If the store has no such array; the error lists the arrays of the store.
    FileContentError
        If this is not a Zarr store, a chunk is broken, or the array does not have 1 or 2 dimensions, is not numeric, or
        has an element type that matrices lack and `dtype` is not given.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the dtype does not fit, or the workers have not enough memory.
    LibraryLoadError
        If zarr is not installed on the server.

    Notes
    -----
    Each chunk is decompressed once. Memory beside the matrix: 32 MiB per rank, plus one chunk if that is larger than
    4 MiB.
    """
    with Agreement(ctx.comm), needing("zarr"):
        from alchemist_ray.mpi_backend.libraries.files import zarr_stores
    told, directories = str(path), ctx.directories
    return read_matrix(
        ctx, lambda: zarr_stores.open_array(told, existing(told, directories), array, directories), layout, dtype
    )


@task
def read_parquet(
    ctx: TaskContext,
    path: Path,
    columns: list[str] | None = None,
    *,
    layout: dict[str, Any],
    dtype: str | None = None,
) -> DistMatrix:
    """Return the columns of a Parquet table as a matrix.

    Parameters
    ----------
    path : path
        A file, or a folder whose files ``*.parquet``, in the order of their names, form one table.
    columns : list of str, optional
        Names of the columns, in the order wanted for the matrix; by default all.
    layout : dict
        Pair, and optionally block, grid and align: a :class:`~alchemist_ray.layouts.choice.LayoutChoice` on the wire.
    dtype : str, optional
        Element type of the matrix; by default the common NumPy type of the columns.

    Returns
    -------
    A : DistMatrix, shape (rows, columns)
        Nulls become NaN if the matrix is floating or complex.

    Raises
    ------
    FileRefusedError, FileMissingError
        If a file may not be read, or does not exist.
    DatasetMissingError
        If a named column does not exist; the error lists the columns of the table.
    FileContentError
        If this is not a Parquet file or it ends early; if a column is not numeric, has nulls while the matrix has
        integers or bool, or has an element type that matrices lack and `dtype` is not given.
    LayoutError, ArgumentValueError, MatrixMemoryError
        If the layout or the dtype does not fit, or the workers have not enough memory.
    LibraryLoadError
        If pyarrow is not installed on the server.

    Notes
    -----
    One rank reads a whole row group, so if there are fewer row groups than ranks, some ranks read nothing. Memory
    beside the matrix: 24 MiB per rank, plus a page of each column.
    """
    with Agreement(ctx.comm), needing("pyarrow"):
        from alchemist_ray.mpi_backend.libraries.files import parquet
    return parquet.read_parquet(ctx, str(path), columns, layout, dtype)


@task
def write_npy(ctx: TaskContext, A: DistMatrix, path: Path, *, overwrite: bool = False) -> str:
    """Write a matrix to a .npy file; return its path on the server.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, of any type and layout.
    path : path
        The file; its directory must exist.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    FileRefusedError
        If the path lies outside the directories for files.
    FileWriteError
        If the directory does not exist, the file exists and `overwrite` is False, or the file cannot be written (for
        example, the disk is full).
    """
    with Agreement(ctx.comm):
        target = resolve(str(path), ctx.directories)
    npy.write_npy(ctx, A, str(path), target, overwrite)
    return str(target)


@task
def write_hdf5(ctx: TaskContext, A: DistMatrix, path: Path, dataset: str, *, overwrite: bool = False) -> str:
    """Write a matrix as a dataset of an HDF5 file; return the path of the file on the server.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, of any type and layout.
    path : path
        The file; its directory must exist. The other contents of an existing file are kept.
    dataset : str
        Name of the dataset, as in ``"results/U"``; missing groups are created. It is written without chunks.
    overwrite : bool
        Whether to replace an existing dataset.

    Raises
    ------
    FileRefusedError
        If the path lies outside the directories for files.
    FileWriteError
        If the directory does not exist, the dataset exists and `overwrite` is False, something other than a dataset has
        its name, or the file cannot be written (for example, the disk is full).
    LibraryLoadError
        If h5py is not installed on the server.

    Notes
    -----
    The file is copied first to keep its other contents. If another program changes it meanwhile, those changes are
    lost. The space of a replaced dataset is reused only if the new dataset fits into it.
    """
    with Agreement(ctx.comm), needing("h5py"):
        from alchemist_ray.mpi_backend.libraries.files import hdf5
    with Agreement(ctx.comm):
        target = resolve(str(path), ctx.directories)
    hdf5.write_hdf5(ctx, A, str(path), target, dataset, overwrite)
    return str(target)


@task
def write_zarr(
    ctx: TaskContext,
    A: DistMatrix,
    path: Path,
    array: str = "",
    *,
    chunks: list[int] | None = None,
    compression: str | None = "zstd",
    overwrite: bool = False,
) -> str:
    """Write a matrix as an array of a Zarr store; return the path of the store on the server.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, of any type and layout.
    path : path
        The directory of the store; its parent must exist.
    array : str
        Name of the array; missing groups are created. "" makes the store itself the array.
    chunks : list of int, optional
        Rows and columns of a chunk; by default a number of rows of about 1 MiB.
    compression : str or None
        ``"zstd"`` or None.
    overwrite : bool
        Whether to replace an existing array.

    Raises
    ------
    FileRefusedError
        If the path lies outside the directories for files.
    FileWriteError
        If the parent directory does not exist, the array exists and `overwrite` is False, something other than an array
        has its name, or the store cannot be written (for example, the disk is full).
    ArgumentValueError
        If `chunks` or `compression` is not valid.
    LibraryLoadError
        If zarr is not installed on the server.

    Notes
    -----
    Memory beside the matrix: 32 MiB per rank, plus three chunks if they are larger than 4 MiB each.
    """
    with Agreement(ctx.comm), needing("zarr"):
        from alchemist_ray.mpi_backend.libraries.files import zarr_stores
    with Agreement(ctx.comm):
        store = resolve(str(path), ctx.directories)
    zarr_stores.write_zarr(ctx, A, str(path), store, array, chunks, compression, overwrite)
    return str(store)


@task
def write_parquet(
    ctx: TaskContext,
    A: DistMatrix,
    path: Path,
    columns: list[str] | None = None,
    *,
    compression: str | None = "snappy",
    overwrite: bool = False,
) -> str:
    """Write a matrix as a folder of Parquet files, one per worker; return the path of the folder on the server.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, in any layout, of any real type.
    path : path
        The folder; its parent directory must exist.
    columns : list of str, optional
        n different names; by default ``c0``, ``c1``, ...
    compression : str or None
        One of pyarrow's: ``"snappy"``, ``"zstd"``, ``"gzip"``, ``"lz4"``, ``"brotli"``.
    overwrite : bool
        Whether to replace an existing file or folder of Parquet files.

    Raises
    ------
    FileRefusedError
        If the path lies outside the directories for files.
    FileWriteError
        If the parent directory does not exist, the path exists and `overwrite` is False, the path is a directory that
        has other files in it, or the files cannot be written (for example, the disk is full).
    ArgumentValueError
        If the matrix is complex, or the names or the compression do not fit.
    LibraryLoadError
        If pyarrow is not installed on the server.

    Notes
    -----
    The files in the order of their names have the rows of the matrix. Row groups have about 4 MiB. Memory beside the
    matrix: 24 MiB per rank.
    """
    with Agreement(ctx.comm), needing("pyarrow"):
        from alchemist_ray.mpi_backend.libraries.files import parquet
    with Agreement(ctx.comm):
        target = resolve(str(path), ctx.directories)
    parquet.write_parquet(ctx, A, str(path), target, columns, compression, overwrite)
    return str(target)
