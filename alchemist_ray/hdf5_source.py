"""A dataset of an HDF5 file on the client's machine, as blocks of rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import DatasetMissingError, FileContentError, FileMissingError
from alchemist_ray.spec import check_dtype

Array = npt.NDArray[Any]

BLOCK_BYTES = 16 * 2**20
"""Size of the blocks that are read at a time."""


@dataclass(frozen=True)
class Hdf5Source:
    """An open dataset as a matrix.

    Attributes
    ----------
    dataset : h5py.Dataset
        The dataset, of one or two dimensions.
    shape : (int, int)
        Of the matrix; a vector is one column.
    dtype : dtype
        What its elements are converted to.
    """

    dataset: Any
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def blocks(self) -> Iterator[Array]:
        """Yield the rows in blocks, of whole chunks where the dataset has chunks."""
        m, n = self.shape
        chunk = self.dataset.chunks[0] if self.dataset.chunks else 1
        height = max(1, BLOCK_BYTES // (n * max(self.dtype.itemsize, self.dataset.dtype.itemsize)))
        height = max(height // chunk * chunk, min(height, chunk))
        for row in range(0, m, height):
            block = self.dataset[row : row + height]
            yield block.astype(self.dtype, copy=False).reshape(-1, n)


@contextlib.contextmanager
def open_dataset(path: str | os.PathLike[str], name: str, dtype: npt.DTypeLike | None) -> Iterator[Hdf5Source]:
    """Open a dataset for reading.

    Raises
    ------
    FileMissingError, DatasetMissingError, FileContentError
        If there is no such file, no such dataset, or none that is a matrix.
    InvalidArrayError
        If it is of a type that no matrix has, and `dtype` does not say which to convert to.
    """
    h5py = _h5py()
    where = os.fspath(path)
    if not os.path.isfile(where):
        raise FileMissingError(where, "on this machine")
    try:
        file = h5py.File(where, "r")
    except OSError as failure:
        raise FileContentError(where, f"this is no HDF5 file, or it ends early ({failure})") from failure
    with file:
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise DatasetMissingError(where, name, _datasets(file, h5py.Dataset))
        if found.ndim not in (1, 2) or 0 in found.shape:
            raise FileContentError(where, f"dataset {name!r} has shape {found.shape}, which is not that of a matrix")
        shape = (found.shape[0], found.shape[1] if found.ndim == 2 else 1)
        yield Hdf5Source(found, shape, check_dtype(found.dtype if dtype is None else dtype))


def _datasets(file: Any, kind: type) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, member: names.append(name) if isinstance(member, kind) else None)
    return names


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as missing:
        raise ImportError("HDF5 files need h5py: pip install 'alchemist-ray[files]'") from missing
    return h5py
