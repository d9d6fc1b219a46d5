"""Parquet: the columns of a table, in one file or in a folder of files, as a matrix.

A table consists of row groups, and each column of a row group is compressed separately. Each rank gets a run of whole
row groups and reads them from first to last, some rows at a time. A folder is read as one table, its files in the order
of their names. It is written as one file per rank; in that order the files have the rows of the matrix.

Source: the Parquet format specification (https://parquet.apache.org/docs/file-format).
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from alchemist_ray.errors import (
    AlchemistError,
    ArgumentValueError,
    DatasetMissingError,
    FileContentError,
    FileWriteError,
)
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.files.access import Source, read_matrix, write_slabs
from alchemist_ray.mpi_backend.libraries.files.directories import existing, refuse_links_out
from alchemist_ray.mpi_backend.libraries.files.element_types import convert
from alchemist_ray.mpi_backend.libraries.files.replacement import already_there, replacing, sync_tree, writing
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.slab_schedules import SLAB_BYTES, FileSlab, RowSchedule, Schedule, even_bounds

Array = npt.NDArray[Any]

_SUFFIX = ".parquet"
_NUMPY_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
_COMPRESSIONS = ("snappy", "zstd", "gzip", "lz4", "brotli")


@dataclass(frozen=True)
class Footer:
    """The footer of a Parquet file.

    Attributes
    ----------
    groups : tuple of int
        Rows of each row group.
    columns : tuple of (str, str)
        Name and type of each column.
    index : tuple of str
        The columns in which pandas has stored the index of a data frame; they are not features.
    """

    groups: tuple[int, ...]
    columns: tuple[tuple[str, str], ...]
    index: tuple[str, ...] = ()

    def features(self) -> list[str]:
        """Return the names of the columns that are read by default."""
        return [name for name, _ in self.columns if name not in self.index]


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn Arrow's errors about a broken file into FileContentError. Local."""
    try:
        yield
    except AlchemistError:
        raise
    except (pa.ArrowException, OSError, ValueError) as failure:
        raise FileContentError(path, f"Parquet cannot read it: {failure}") from None


def part_files(path: str, real: Path, directories: Sequence[Path]) -> list[Path]:
    """Return the files of a table, in the order of its rows. Local.

    Raises
    ------
    FileContentError
        If a folder has no Parquet files.
    FileRefusedError
        If a link in a folder leads out of the directories.
    """
    if not real.is_dir():
        return [real]
    refuse_links_out(path, real, directories)
    names = sorted(entry.name for entry in os.scandir(real) if entry.is_file() and _is_part(entry.name))
    if not names:
        raise FileContentError(path, f"the folder has no files *{_SUFFIX} (subfolders are ignored)")
    return [real / name for name in names]


def _is_part(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith((".", "_"))


def footer(path: str, file: Path) -> Footer:
    """Return the footer of a file. Local.

    Raises
    ------
    FileContentError
        If it is not a Parquet file, or ends early.
    """
    with _reading(path), pq.ParquetFile(file) as opened:
        metadata, schema = opened.metadata, opened.schema_arrow
        groups = tuple(metadata.row_group(k).num_rows for k in range(metadata.num_row_groups))
        columns = tuple((column.name, _NUMPY_NAMES.get(str(column.type), str(column.type))) for column in schema)
        return Footer(groups, columns, _index_columns(schema))


def _index_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that hold the index of a data frame, by the metadata that pandas writes. Local."""
    described = schema.pandas_metadata or {}
    return tuple(name for name in described.get("index_columns", ()) if isinstance(name, str))  # a RangeIndex is a dict


def read_parquet(
    ctx: TaskContext, path: str, columns: list[str] | None, layout: dict[str, Any], dtype: str | None
) -> DistMatrix:
    """Return the matrix of a table. Collective over comm."""
    with Agreement(ctx.comm):
        files = part_files(path, existing(path, ctx.directories), ctx.directories)
        mine = [footer(path, file) for file in files[ctx.comm.rank :: ctx.comm.size]]
    dealt = ctx.comm.allgather(mine)
    footers = [dealt[k % ctx.comm.size][k // ctx.comm.size] for k in range(len(files))]
    return read_matrix(ctx, lambda: ParquetSource(path, files, footers, columns), layout, dtype)


class ParquetSource(Source):
    """A table in one or more files.

    Parameters
    ----------
    path : str
        Path of the table as the caller gave it.
    files, footers : list
        The files in the order of their rows, and their footers.
    columns : list of str or None
        The columns to read, in that order; None means all.

    Raises
    ------
    DatasetMissingError
        If a file lacks a column.
    FileContentError
        If a column is not numeric, or the table has no rows.
    """

    def __init__(self, path: str, files: list[Path], footers: list[Footer], columns: list[str] | None) -> None:
        names = footers[0].features() if columns is None else columns
        types = [_column_type(path, footer, name) for footer in footers for name in names]
        self._groups = [
            (file, k, n) for file, footer in zip(files, footers, strict=True) for k, n in enumerate(footer.groups)
        ]
        self._ends = list(itertools.accumulate((n for _, _, n in self._groups), initial=0))
        dtype = np.result_type(*types) if types else np.dtype(np.float64)
        super().__init__(path, (self._ends[-1], len(names)), dtype, (1, 1))
        self._names = names
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._row = -1

    def schedule(self, dtype: np.dtype[Any], size: int) -> Schedule:
        """Return which rows each rank reads: runs of whole row groups, as even as the groups allow. Local."""
        m, n = self.shape
        even = even_bounds(m, size)
        bounds = tuple(self._ends[bisect.bisect_left(self._ends, row)] for row in even)
        height = max(1, SLAB_BYTES // max(1, n * max(self.dtype.itemsize, dtype.itemsize)))
        return RowSchedule(bounds, n, height)

    def read(self, slab: FileSlab, out: Array) -> None:
        """Fill `out`. Slabs must come in the order of their rows, the first at the start of a row group. Local."""
        if self._row != slab.i0:
            self._batches, self._batch = self._all_batches(slab.i0, -(-out.shape[0] // 4)), None
        filled = 0
        with _reading(self.path):
            while filled < out.shape[0]:
                batch = self._batch if self._batch is not None and self._batch.num_rows else next(self._batches, None)
                if batch is None:
                    raise FileContentError(self.path, "its row groups have fewer rows than its footer says")
                count = min(batch.num_rows, out.shape[0] - filled)
                self._fill(batch.slice(0, count), out[filled : filled + count])
                self._batch, filled = batch.slice(count), filled + count
        self._row = slab.i1

    def _all_batches(self, row: int, height: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the row group that begins at `row` to the end, at most `height` at a time."""
        buffer = max(SLAB_BYTES // max(1, len(self._names)), 2**12)  # each column has a buffer of this size
        for file, members in itertools.groupby(self._groups[self._ends.index(row) :], key=lambda group: group[0]):
            with pq.ParquetFile(file, buffer_size=buffer) as opened:
                for _, k, _ in members:
                    yield from opened.iter_batches(height, [k], self._names, use_threads=False)

    def _fill(self, batch: pa.RecordBatch, out: Array) -> None:
        for j, name in enumerate(self._names):
            column = batch.column(batch.schema.get_field_index(name))
            if column.null_count == 0:
                convert(self.path, column.to_numpy(zero_copy_only=False), out[:, j])
            elif out.dtype.kind in "fc":
                convert(
                    self.path,
                    column.fill_null(pa.scalar(0).cast(column.type)).to_numpy(zero_copy_only=False),
                    out[:, j],
                )
                out[column.is_null().to_numpy(zero_copy_only=False), j] = np.nan
            else:
                raise FileContentError(
                    self.path,
                    f"column {name!r} has nulls, which {out.dtype} cannot hold: dtype='float64' reads them as NaN",
                )

    def fetch(self, slab: FileSlab, out: Array) -> None:
        """Fill `out`. Local."""
        self.read(slab, out)

    def close(self) -> None:
        """Close the open file. Local."""
        self._batches, self._batch = iter(()), None

    def signature(self) -> tuple[Any, ...]:
        """Return the properties that must be the same on all ranks."""
        return *super().signature(), self._ends


def _column_type(path: str, footer: Footer, name: str) -> np.dtype[Any]:
    """Return the NumPy type of a column."""
    types = [kind for column, kind in footer.columns if column == name]
    if not types:
        raise DatasetMissingError(path, name, [column for column, _ in footer.columns])
    if len(types) > 1:
        raise FileContentError(path, f"it has {len(types)} columns with the name {name!r}")
    if types[0].rstrip("0123456789") not in ("int", "uint", "float", "bool"):
        raise FileContentError(
            path, f"column {name!r} has type {types[0]}, which is not numeric: select others with columns=[...]"
        )
    return np.dtype(types[0])


# --- writing ----------------------------------------------------------------------------------------------------------


def write_parquet(
    ctx: TaskContext,
    A: DistMatrix,
    path: str,
    target: Path,
    columns: list[str] | None,
    compression: str | None,
    overwrite: bool,
) -> None:
    """Write `A` as a folder of Parquet files. Collective over comm."""
    schema = _schema(ctx, A, columns)
    if compression is not None and (compression not in _COMPRESSIONS or not pa.Codec.is_available(compression)):
        raise ArgumentValueError(ctx.task, f"unknown compression {compression!r}; try 'snappy', 'zstd' or None")
    with Agreement(ctx.comm), writing(path):
        if ctx.comm.rank == 0:
            _require_replaceable(path, target, overwrite)
    with replacing(ctx.comm, path, target, ctx.directories, overwrite=overwrite, directory=True) as staged:
        with Agreement(ctx.comm), writing(path):
            if ctx.comm.rank == 0:
                staged.mkdir()
        _write_parts(ctx, A, path, staged, schema, compression)
        with Agreement(ctx.comm), writing(path):
            sync_tree(ctx.comm, staged)


def _write_parts(
    ctx: TaskContext, A: DistMatrix, path: str, staged: Path, schema: pa.Schema, compression: str | None
) -> None:
    """Write this rank's rows, if it has any, to its own file. Collective over comm."""
    bounds = even_bounds(A.shape[0], ctx.comm.size)
    # A table without rows also needs one file, which names its columns.
    writes = bounds[ctx.comm.rank] < bounds[ctx.comm.rank + 1] or (A.shape[0] == 0 and ctx.comm.rank == 0)
    schedule = RowSchedule(bounds, A.shape[1], max(1, SLAB_BYTES // (A.shape[1] * A.dtype.itemsize)))
    with contextlib.ExitStack() as stack:
        with Agreement(ctx.comm), writing(path):
            if writes:
                file = staged / f"part-{ctx.comm.rank:05}{_SUFFIX}"
                # Computed numbers rarely repeat, so a dictionary of distinct values does not pay.
                writer = pq.ParquetWriter(file, schema, compression=compression or "none", use_dictionary=False)
                stack.callback(_close_quietly, writer)

        def write(slab: FileSlab, block: Array) -> None:
            columns = np.ascontiguousarray(block.T)
            batch = pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=schema)
            with writing(path):
                writer.write_batch(batch)

        write_slabs(ctx, A, path, schedule, write)
        with Agreement(ctx.comm), writing(path):
            if writes:
                writer.close()


def _close_quietly(writer: pq.ParquetWriter) -> None:
    """Close a file and ignore errors: it may be one whose writing has failed."""
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):
        writer.close()


def _schema(ctx: TaskContext, A: DistMatrix, columns: list[str] | None) -> pa.Schema:
    if A.dtype.kind == "c":
        raise ArgumentValueError(ctx.task, f"the matrix is {A.dtype}, and Parquet has no complex numbers")
    if A.shape[1] == 0:
        raise ArgumentValueError(ctx.task, f"the matrix is {A.shape[0]}x0, and Parquet needs at least one column")
    names = [f"c{j}" for j in range(A.shape[1])] if columns is None else columns
    if len(names) != A.shape[1] or len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
        raise ArgumentValueError(ctx.task, f"columns must be {A.shape[1]} names, all different")
    return pa.schema([pa.field(name, pa.from_numpy_dtype(A.dtype), nullable=False) for name in names])


def _require_replaceable(path: str, target: Path, overwrite: bool) -> None:
    """Check that the target, if it exists, may be replaced: it is a file, or a folder with Parquet files only."""
    if target.exists() and not overwrite:
        raise already_there(path)
    if target.is_dir():
        for entry in os.scandir(target):
            if not entry.is_file(follow_symlinks=False) or not (_is_part(entry.name) or entry.name[0] in "._"):
                raise FileWriteError(path, f"the existing directory contains {entry.name}, so it is not replaced")
