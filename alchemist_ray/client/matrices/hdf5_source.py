"""A dataset of an HDF5 file on the client's machine, as blocks of rows."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import DatasetMissingError, FileContentError, FileMissingError
from alchemist_ray.layouts.spec import check_dtype, converted

Array = npt.NDArray[Any]

BLOCK_BYTES = 16 * 2**20
"""Size of the blocks of rows that are read at once."""


@dataclass(frozen=True)
class LocalDataset:
    """A matrix in an open dataset.

    Attributes
    ----------
    dataset : h5py.Dataset
        The dataset.
    selection : tuple of int and range
        For each dimension one index, or a range. One or two dimensions have a range: the rows and the columns.
    dtype : dtype
        Element type that the elements are converted to.
    """

    dataset: Any
    selection: tuple[int | range, ...]
    dtype: np.dtype[Any]

    @property
    def _kept(self) -> list[tuple[int, range]]:
        """The dimensions of the dataset that become rows and columns, with their ranges."""
        return [(axis, chosen) for axis, chosen in enumerate(self.selection) if isinstance(chosen, range)]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix; a vector is one column."""
        m, *n = (len(chosen) for _, chosen in self._kept)
        return m, n[0] if n else 1

    def blocks(self) -> Iterator[Array]:
        """Yield the rows in blocks; a block has whole chunks if the dataset has chunks."""
        m, n = self.shape
        axis, rows = self._kept[0]
        chunk = self.dataset.chunks[axis] if self.dataset.chunks else 1
        height = max(1, BLOCK_BYTES // (n * max(self.dtype.itemsize, self.dataset.dtype.itemsize)))
        height = max(height // chunk * chunk, min(height, chunk))
        for row in range(0, m, height):
            chosen = list(self.selection)
            chosen[axis] = rows[row : row + height]
            try:
                block = self.dataset[tuple(_as_index(each) for each in chosen)]
            except OSError as failure:
                where = self.dataset.file.filename
                raise FileContentError(where, f"rows {row}.. cannot be read ({failure})") from failure
            yield converted(block, self.dtype).reshape(-1, n)


def _as_index(chosen: int | range) -> int | slice:
    return slice(chosen.start, chosen.stop, chosen.step) if isinstance(chosen, range) else chosen


@contextlib.contextmanager
def open_dataset(
    path: str | os.PathLike[str], name: str, dtype: npt.DTypeLike | None, selection: Any = ...
) -> Iterator[LocalDataset]:
    """Open a dataset, or the part of it that `selection` names, for reading.

    Raises
    ------
    FileMissingError, DatasetMissingError, FileContentError
        If the file or the dataset does not exist, or the dataset is not a matrix.
    InvalidArrayError
        If matrices do not have its type, and `dtype` does not say which type to convert to.
    IndexError
        If `selection` does not name a part of the dataset.
    """
    h5py = _h5py()
    where = os.path.abspath(path)
    if not os.path.isfile(where):
        raise FileMissingError(where, "on this machine")
    try:
        file = h5py.File(where, "r")
    except OSError as failure:
        raise FileContentError(where, f"this is not an HDF5 file, or it ends early ({failure})") from failure
    with file:
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise DatasetMissingError(where, name, _datasets(file, h5py.Dataset))
        chosen = _selected(selection, found.shape or ())
        extents = [len(each) for each in chosen if isinstance(each, range)]
        if len(extents) not in (1, 2) or 0 in extents:
            raise FileContentError(
                where,
                f"dataset {name!r} of shape {found.shape} gives an array of shape {tuple(extents)}, which is not a "
                "matrix: choose one with selection=, for example np.s_[:, :, 0]",
            )
        wanted = check_dtype(found.dtype if dtype is None else dtype)
        converted(np.empty(0, found.dtype), wanted)
        yield LocalDataset(found, chosen, wanted)


def _selected(selection: Any, shape: tuple[int, ...]) -> tuple[int | range, ...]:
    """Return the index or range that `selection` names in each dimension."""
    members = list(selection) if isinstance(selection, tuple) else [selection]
    places = [place for place, member in enumerate(members) if member is Ellipsis]
    if not places:
        members.append(Ellipsis)
    place = places[0] if places else len(members) - 1
    members[place : place + 1] = [slice(None)] * (len(shape) + 1 - len(members))
    if len(members) != len(shape):
        raise IndexError(f"a selection of {len(members)} dimensions of a dataset that has {len(shape)}")
    return tuple(_chosen(member, extent) for member, extent in zip(members, shape, strict=True))


def _chosen(member: Any, extent: int) -> int | range:
    if isinstance(member, slice):
        indices = range(*member.indices(extent))
        if indices.step < 1:
            raise IndexError("HDF5 datasets are read forwards: a selection needs positive steps")
        return indices
    try:
        index = operator.index(member)
    except TypeError:
        raise IndexError(f"a selection is made of integers and slices, not of {type(member).__name__}") from None
    if not -extent <= index < extent:
        raise IndexError(f"index {index} is out of bounds for {extent}")
    return index % extent


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
