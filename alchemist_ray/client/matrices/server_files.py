"""Files that the workers read and write themselves: what the session and the handles offer of the library ``files``.

Paths are those of the server's host, under the directories that its owner has named; relative ones begin at the first
of these. Every worker reads or writes its own share, and nothing passes through this process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.layouts.choice import Blocks, GridShape, LayoutChoice
from alchemist_ray.layouts.layout import Layout

if TYPE_CHECKING:
    from os import PathLike

    from alchemist_ray.client.matrices.arithmetic import Computes
    from alchemist_ray.client.matrices.handle import MatrixHandle

    Path = str | PathLike[str]

_PARAMETERS = """
        layout : str or Layout
            How the matrix is to be distributed.
        dtype : dtype, optional
            Element type of the matrix; by default the file's, which must be one that matrices have.
        block_size, grid, align : optional
            Of the layout; see :meth:`AlchemistSession.send_matrix`.

        Raises
        ------
        FileRefusedError
            If the file lies outside the directories that the server's owner has named, or may not be read.
        FileMissingError, DatasetMissingError
            If there is no such file, or nothing of that name in it.
        FileContentError
            If it is not such a file, ends early, or contains what no matrix holds.
        MatrixMemoryError
            If the workers have no room for it."""


def _documented(function: Any) -> Any:
    function.__doc__ = function.__doc__.replace("{parameters}", _PARAMETERS.strip("\n").lstrip())
    return function


class ReadsFiles(ABC):
    """The session's methods that have the workers read a file."""

    @abstractmethod
    def run_task(self, library: str, task: str, /, **arguments: Any) -> Any:
        """Run a task of a library."""

    def _read(
        self,
        task: str,
        path: Path,
        layout: str | Layout,
        dtype: npt.DTypeLike | None,
        layout_options: dict[str, Any],
        **arguments: Any,
    ) -> MatrixHandle:
        choice = LayoutChoice.of(layout, **layout_options)
        name = None if dtype is None else np.dtype(dtype).name
        wire = choice.to_wire()
        handle: MatrixHandle = self.run_task("files", task, path=str(path), layout=wire, dtype=name, **arguments)
        return handle

    @_documented
    def read_hdf5(
        self,
        path: Path,
        dataset: str,
        layout: str | Layout = "MC_MR",
        *,
        dtype: npt.DTypeLike | None = None,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
    ) -> MatrixHandle:
        """Have the workers read a dataset of an HDF5 file; a vector becomes one column.

        Parameters
        ----------
        path : str
            The file, on the server's host.
        dataset : str
            Name of the dataset, e.g. ``"group/name"``.
        {parameters}
        """
        options = {"block_size": block_size, "grid": grid, "align": align}
        return self._read("read_hdf5", path, layout, dtype, options, dataset=dataset)

    @_documented
    def read_npy(
        self,
        path: Path,
        layout: str | Layout = "MC_MR",
        *,
        dtype: npt.DTypeLike | None = None,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
    ) -> MatrixHandle:
        """Have the workers read a ``.npy`` file.

        Parameters
        ----------
        path : str
            The file, on the server's host.
        {parameters}
        """
        return self._read("read_npy", path, layout, dtype, {"block_size": block_size, "grid": grid, "align": align})

    @_documented
    def read_zarr(
        self,
        path: Path,
        array: str = "",
        layout: str | Layout = "MC_MR",
        *,
        dtype: npt.DTypeLike | None = None,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
    ) -> MatrixHandle:
        """Have the workers read an array of a Zarr store, a directory.

        Parameters
        ----------
        path : str
            The store, on the server's host.
        array : str
            Name of the array in the store; empty if the store is one array.
        {parameters}
        """
        options = {"block_size": block_size, "grid": grid, "align": align}
        return self._read("read_zarr", path, layout, dtype, options, array=array)

    @_documented
    def read_parquet(
        self,
        path: Path,
        columns: Sequence[str] | None = None,
        layout: str | Layout = "MC_MR",
        *,
        dtype: npt.DTypeLike | None = None,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
    ) -> MatrixHandle:
        """Have the workers read numeric columns of a Parquet file, or of a directory of such files.

        Parameters
        ----------
        path : str
            The file or directory, on the server's host.
        columns : sequence of str, optional
            Which columns, in which order; by default all.
        {parameters}
        """
        options = {"block_size": block_size, "grid": grid, "align": align}
        names = None if columns is None else list(columns)
        return self._read("read_parquet", path, layout, dtype, options, columns=names)

    def describe_file(self, path: Path) -> dict[str, Any]:
        """Return what a file on the server's host contains: its format, and shape and dtype of what is in it."""
        described: dict[str, Any] = self.run_task("files", "describe", path=str(path))
        return described


class WritesFiles(ABC):
    """The handle's methods that have the workers write the matrix to a file.

    The file appears, or takes the place of an old one, when it is complete; until then, and if anything fails, what was
    there before is as it was. Each returns the path on the server's host, and raises
    :class:`~alchemist_ray.errors.FileRefusedError` for a path outside the directories that the server's owner has
    named, and :class:`~alchemist_ray.errors.FileWriteError` where something is there that is not to be overwritten, or
    the disk is full.
    """

    @abstractmethod
    def _computing(self) -> Computes:
        """Return the session that runs the tasks."""

    def _write(self, task: str, path: Path, overwrite: bool, **arguments: Any) -> str:
        written: str = self._computing().run_task(
            "files", task, A=self, path=str(path), overwrite=overwrite, **arguments
        )
        return written

    def write_hdf5(self, path: Path, dataset: str, *, overwrite: bool = False) -> str:
        """Have the workers write the matrix to a dataset of an HDF5 file; other datasets of the file stay.

        Parameters
        ----------
        path : str
            The file, on the server's host.
        dataset : str
            Name of the dataset, e.g. ``"group/name"``.
        overwrite : bool
            Whether to replace a dataset of that name.
        """
        return self._write("write_hdf5", path, overwrite, dataset=dataset)

    def write_npy(self, path: Path, *, overwrite: bool = False) -> str:
        """Have the workers write the matrix to a ``.npy`` file on the server's host.

        Parameters
        ----------
        path : str
            The file.
        overwrite : bool
            Whether to replace a file that is there.
        """
        return self._write("write_npy", path, overwrite)

    def write_zarr(
        self,
        path: Path,
        array: str = "",
        *,
        chunks: tuple[int, int] | None = None,
        compression: str | None = "zstd",
        overwrite: bool = False,
    ) -> str:
        """Have the workers write the matrix to a Zarr store, a directory.

        Parameters
        ----------
        path : str
            The store, on the server's host.
        array : str
            Name of the array in the store; empty: the store is the array.
        chunks : (int, int), optional
            Rows and columns of a chunk; by default some MiB of whole rows.
        compression : str or None
            ``"zstd"`` or None.
        overwrite : bool
            Whether to replace what is there.
        """
        cut = None if chunks is None else list(chunks)
        return self._write("write_zarr", path, overwrite, array=array, chunks=cut, compression=compression)

    def write_parquet(
        self,
        path: Path,
        columns: Sequence[str] | None = None,
        *,
        compression: str | None = "snappy",
        overwrite: bool = False,
    ) -> str:
        """Have the workers write the matrix as Parquet: a directory with one file a worker.

        Parameters
        ----------
        path : str
            The directory, on the server's host.
        columns : sequence of str, optional
            Names of the columns; by default c0, c1, ...
        compression : str or None
            Of Parquet's: ``"snappy"``, ``"zstd"``, ``"gzip"`` and so on.
        overwrite : bool
            Whether to replace what is there.
        """
        names = None if columns is None else list(columns)
        return self._write("write_parquet", path, overwrite, columns=names, compression=compression)
