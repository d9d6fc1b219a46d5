"""HDF5 files: each rank reads chunks of its own, or elements where they lie; all write into one dataset at once.

The HDF5 library that h5py brings knows no MPI, so no two ranks may change a file through it. But a dataset without
chunks is just elements one after the other: one rank makes it, with its room allocated and nothing written, and closes
the file; then all ranks write to where the dataset says that its elements lie. Reading such a dataset needs no HDF5
library either. Chunks, which may be compressed, are read through it, each chunk by one rank.

A dataset is added to a file that is there, or replaced, in a copy of the file, which then takes its place: so a failure
half way leaves the file as it was. The copy is made by all ranks.
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
    """A dataset that the HDF5 library reads: one of chunks, or of elements of a type or in a place of their own.

    Parameters
    ----------
    path : str
        How the caller named the file.
    place : Place
        The dataset; its file is closed with the source.
    """

    def __init__(self, path: str, place: Place) -> None:
        dataset = place.dataset
        chunk = dataset.chunks or (1, 1)
        super().__init__(path, dataset.shape, dataset.dtype, chunk)
        nbytes = math.prod(chunk) * dataset.dtype.itemsize
        del dataset  # the library takes note of the cache only if it is not open already
        access = h5p.create(h5p.DATASET_ACCESS)
        # A chunk that is read in several slabs has to stay in the cache between them.
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
        If there is none of that name.
    FileContentError
        If this is no HDF5 file, it ends early, or the dataset is no matrix of numbers.
    FileRefusedError, FileMissingError
        If the dataset refers to a file that may not be read, or is not there.
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
    """Return where in its file a dataset has its elements, if they lie there as NumPy would have them."""
    if dataset.external or not dataset.id.get_type().equal(h5t.py_create(dataset.dtype)):
        return None
    offset: int | None = dataset.id.get_offset()
    return offset


def write_hdf5(ctx: TaskContext, A: DistMatrix, path: str, target: Path, name: str, overwrite: bool) -> None:
    """Write `A` as a dataset of an HDF5 file. Collective over comm."""
    steps = [step for step in name.split("/") if step]
    if not steps or set(steps) & {".", ".."}:
        raise ArgumentValueError(ctx.task, f"{name!r} is no name for a dataset")
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
    """Return how many bytes of an old file are to be copied: all, or none if nothing else is in it."""
    if not target.exists():
        return 0
    if not target.is_file() or not h5py.is_hdf5(target):
        raise FileWriteError(path, "what is there is no HDF5 file")
    with h5py.File(target, "r") as file:
        there = _check_way(path, file, steps)
        if there and not overwrite:
            raise already_there(f"{path}:{'/'.join(steps)}")
        alone = there and len(steps) == 1 and len(file) == 1 and len(file.attrs) == 0
    return 0 if alone else target.stat().st_size


def _check_way(path: str, file: h5py.File, steps: list[str]) -> bool:
    """Return whether there is a dataset; raise if something else is there, or on the way to it."""
    group = file["/"]
    for depth, step in enumerate(steps, 1):
        links = group.id.links
        if not links.exists(step.encode()):
            return False
        node = group[step] if links.get_info(step.encode()).type == h5l.TYPE_HARD else None
        if not isinstance(node, h5py.Dataset if depth == len(steps) else h5py.Group):
            raise FileWriteError(path, f"there is a link, a group or a dataset in the way, {'/'.join(steps[:depth])}")
        group = node
    return True


def _make_dataset(A: DistMatrix, staged: Path, steps: list[str], kept: int) -> int:
    """Make the dataset, in place of one that is there, without writing to it; return where its elements will lie."""
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
    return offset or 0  # None of a dataset without elements, which takes no room
