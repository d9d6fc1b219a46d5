"""List the contents of a file: its format, and the name, shape and type of each array in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alchemist_ray.errors import FileContentError
from alchemist_ray.mpi_backend.libraries.files.directories import existing, refusal, refuse_links_out
from alchemist_ray.mpi_backend.libraries.files.npy import read_header
from alchemist_ray.mpi_backend.libraries.files.packages import needing

ContentRow = dict[str, Any]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAGIC = ((b"\x93NUMPY", "npy"), (b"PAR1", "parquet"), (_HDF5, "hdf5"))


def describe_file(path: str, directories: Sequence[Path]) -> dict[str, Any]:
    """Return the format of a file or directory and a row for each array in it. Local.

    Raises
    ------
    FileRefusedError, FileMissingError
        If it may not be read, or does not exist.
    FileContentError
        If it is broken, or its format is unknown.
    """
    real = existing(path, directories)
    name = _format_of(path, real)
    if name == "npy":
        (shape, _, dtype), _ = read_header(path, real)
        rows = [_row("", shape, dtype)]
    elif name == "hdf5":
        rows = _hdf5_rows(path, real)
    elif name == "zarr":
        refuse_links_out(path, real, directories)
        rows = _zarr_rows(path, real)
    else:
        rows = _parquet_rows(path, real, directories)
    return {"format": name, "datasets": rows}


def _row(name: str, shape: Sequence[int], dtype: object, chunks: Sequence[int] | None = None) -> ContentRow:
    return {"name": name, "shape": list(shape), "dtype": str(dtype), "chunks": None if chunks is None else list(chunks)}


def _format_of(path: str, real: Path) -> str:
    """Return the format of a file or directory. Only its content counts, not its name."""
    if real.is_dir():
        return "zarr" if any((real / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup")) else "parquet"
    try:
        with real.open("rb") as file:
            start = file.read(8)
            for magic, name in _MAGIC:
                if start.startswith(magic):
                    return name
            for power in range(9, 31):  # HDF5 may begin after a user block of 512, 1024, ... bytes
                file.seek(2**power)
                if (found := file.read(8)) == _HDF5:
                    return "hdf5"
                if not found:
                    break
    except OSError as failure:
        raise refusal(path, failure) from None
    raise FileContentError(path, "it is not an HDF5, .npy or Parquet file")


def _hdf5_rows(path: str, real: Path) -> list[ContentRow]:
    with needing("h5py"):
        import h5py

        from alchemist_ray.mpi_backend.libraries.files.hdf5_links import dataset_names, reading
    with reading(path), h5py.File(real, "r") as file:
        found = [(name, file[name]) for name in dataset_names(file)]
        return [_row(name, dataset.shape or (), dataset.dtype, dataset.chunks) for name, dataset in found]


def _zarr_rows(path: str, real: Path) -> list[ContentRow]:
    with needing("zarr"):
        from alchemist_ray.mpi_backend.libraries.files import zarr_stores
    return [_row(name, array.shape, array.dtype, array.chunks) for name, array in zarr_stores.arrays_of(path, real)]


def _parquet_rows(path: str, real: Path, directories: Sequence[Path]) -> list[ContentRow]:
    with needing("pyarrow"):
        from alchemist_ray.mpi_backend.libraries.files import parquet
    footers = [parquet.footer(path, file) for file in parquet.part_files(path, real, directories)]
    m = sum(sum(footer.groups) for footer in footers)
    return [_row(name, (m,), kind) for name, kind in footers[0].columns]
