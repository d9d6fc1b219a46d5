"""HDF5 files: the ranks read different chunks or byte ranges in parallel, and all write into one dataset at once.

The HDF5 library in h5py's wheel is built without MPI, so two ranks must not change a file through it. But a dataset
without chunks is one run of elements: one rank creates it, with its space allocated and nothing written, and closes the
file; then all ranks write at the offset of its elements. Reading such a dataset needs no HDF5 library either. Chunks,
which may be compressed, are read through the library, each chunk by one rank.

To add or replace a dataset in an existing file, all ranks together copy the file and change the copy, which then takes
the place of the file. So a failure in the middle leaves the file unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5l, h5p, h5s, h5t

from alchemist_ray.errors import ArgumentValueError, FileContentError, FileWriteError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.files.access import Source
from alchemist_ray.mpi_backend.libraries.files.hdf5_links import Place, locate, reading, require_inside
from alchemist_ray.mpi_backend.libraries.files.plain import PlainSource, copy_plain, write_plain
from alchemist_ray.mpi_backend.libraries.files.replacement import already_there, replacing, writing
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.slab_schedules import FileSlab

Array = npt.NDArray[Any]

_ALIGNMENT = 4096
_SMALLEST_CACHE = 2**20


class Hdf5Source(Source):
    """A dataset that only the HDF5 library can read, for example because it has chunks or is virtual.

    Parameters
    ----------
    path : str
        Path of the file as the caller gave it.
    place : Place
        The dataset; closing the source closes its file.
    """

    def __init__(self, path: str, place: Place) -> None:
        dataset = place.dataset
        chunk = dataset.chunks or (1, 1)
        super().__init__(path, dataset.shape, dataset.dtype, chunk)
        nbytes = math.prod(chunk) * dataset.dtype.itemsize
        del dataset  # the library ignores the cache settings if the dataset is already open
        access = h5p.create(h5p.DATASET_ACCESS)
        # A chunk that is read in several slabs must stay in the cache between them.
        access.set_chunk_cache(521, max(nbytes, _SMALLEST_CACHE), 1.0)
        access.set_efile_prefix(b"${ORIGIN}")
        self._file = place.file
        self._dataset = h5py.Dataset(h5d.open(place.group.id, place.name.encode(), access))

    def fetch(self, slab: FileSlab, out: Array) -> None:
        """Fill `out` from the file. Local."""
        rows, cols = slice(slab.i0, slab.i1), slice(slab.j0, slab.j1)
        with reading(self.path):
            if self._dataset.ndim == 1:
                self._dataset.read_direct(out.reshape(-1), np.s_[rows])
            else:
                self._dataset.read_direct(out, np.s_[rows, cols])

    def close(self) -> None:
        """Close the file. Local."""
        self._file.close()


def open_dataset(path: str, real: Path, name: str, directories: Sequence[Path]) -> Source:
    """Return a dataset of an HDF5 file. Local.

    Raises
    ------
    DatasetMissingError
        If the file has no dataset of that name.
    FileContentError
        If this is not an HDF5 file, it ends early, or the dataset is not a matrix of numbers.
    FileRefusedError, FileMissingError
        If the dataset refers to a file that may not be read, or does not exist.
    """
    place = locate(path, real, name, directories)
    path = f"{path}:{name}"
    try:
        with reading(path):
            if place.dataset.shape is None:
                raise FileContentError(path, "the dataset has no elements")
            require_inside(path, place, directories)
            offset = _offset_of_elements(place.dataset)
            if offset is None:
                return Hdf5Source(path, place)
            source = PlainSource(path, Path(place.file.filename), offset, place.dataset.shape, place.dataset.dtype)
    except BaseException:
        place.file.close()
        raise
    place.file.close()
    return source


def _offset_of_elements(dataset: h5py.Dataset) -> int | None:
    """Return the offset of the elements in the file of a dataset; None unless they are stored as NumPy stores them."""
    if dataset.external or not dataset.id.get_type().equal(h5t.py_create(dataset.dtype)):
        return None
    offset: int | None = dataset.id.get_offset()
    return offset


def write_hdf5(ctx: TaskContext, A: DistMatrix, path: str, target: Path, name: str, overwrite: bool) -> None:
    """Write `A` as a dataset of an HDF5 file. Collective over comm."""
    steps = [step for step in name.split("/") if step]
    if not steps or set(steps) & {".", ".."}:
        raise ArgumentValueError(ctx.task, f"{name!r} is not a valid name for a dataset")
    with Agreement(ctx.comm), writing(path):
        old = _kept_bytes(path, target, steps, overwrite) if ctx.comm.rank == 0 else None
    exists, kept = ctx.comm.bcast((target.exists(), old))
    with replacing(ctx.comm, path, target, ctx.directories, overwrite=exists) as staged:
        if kept:
            copy_plain(ctx, path, target, staged, kept)
        with Agreement(ctx.comm), writing(path):
            offset = _make_dataset(A, staged, steps, kept) if ctx.comm.rank == 0 else None
        write_plain(ctx, A, path, staged, ctx.comm.bcast(offset))


def _kept_bytes(path: str, target: Path, steps: list[str], overwrite: bool) -> int:
    """Return how many bytes of an old file to copy: all, or none if it has no other contents."""
    if not target.exists():
        return 0
    if not target.is_file() or not h5py.is_hdf5(target):
        raise FileWriteError(path, "it exists and is not an HDF5 file")
    with h5py.File(target, "r") as file:
        there = _check_way(path, file, steps)
        if there and not overwrite:
            raise already_there(f"{path}:{'/'.join(steps)}")
        alone = there and len(steps) == 1 and len(file) == 1 and len(file.attrs) == 0
    return 0 if alone else target.stat().st_size


def _check_way(path: str, file: h5py.File, steps: list[str]) -> bool:
    """Return whether the dataset exists; raise if something else has its name or the name of one of its groups."""
    group = file["/"]
    for depth, step in enumerate(steps, 1):
        links = group.id.links
        if not links.exists(step.encode()):
            return False
        node = group[step] if links.get_info(step.encode()).type == h5l.TYPE_HARD else None
        if not isinstance(node, h5py.Dataset if depth == len(steps) else h5py.Group):
            wanted = "dataset" if depth == len(steps) else "group"
            raise FileWriteError(path, f"{'/'.join(steps[:depth])} in it is a link or not a {wanted}")
        group = node
    return True


def _make_dataset(A: DistMatrix, staged: Path, steps: list[str], kept: int) -> int:
    """Create the dataset, replacing an existing one, without writing to it; return the offset of its elements."""
    aligned = {"alignment_threshold": _ALIGNMENT, "alignment_interval": _ALIGNMENT}
    with h5py.File(staged, "r+" if kept else "w", **aligned) as file:
        group = file.require_group("/".join(steps[:-1])) if len(steps) > 1 else file["/"]
        if steps[-1] in group:
            del group[steps[-1]]
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_layout(h5d.CONTIGUOUS)
        plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5d.FILL_TIME_NEVER)
        space, dtype = h5s.create_simple(A.shape), h5t.py_create(A.dtype, logical=True)
        offset: int | None = h5d.create(group.id, steps[-1].encode(), dtype, space, plist).get_offset()
    return offset or 0  # None for a dataset without elements, which needs no space
