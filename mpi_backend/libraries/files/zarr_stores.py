"""Zarr stores in directories, formats 2 and 3: every chunk is a file, which one rank reads or writes whole.

Arrays are written in format 3, or in format 2 inside a group of format 2. An array is written completely under a hidden
name, together with its groups that do not exist yet, and then renamed.

Zarr itself would decode a chunk with any installed codec, even Python's pickle. This module allows only codecs that are
known to compute and nothing else.

Source: the Zarr core specification, version 3.0, and the storage specification, version 2.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from alchemist_ray.errors import (
    ArgumentValueError,
    DatasetMissingError,
    FileContentError,
    FileRefusedError,
    FileWriteError,
)
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.files.access import Source, write_slabs
from alchemist_ray.mpi_backend.libraries.files.directories import refuse_links_out, resolve
from alchemist_ray.mpi_backend.libraries.files.replacement import already_there, replacing, sync_tree, writing
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.slab_schedules import SLAB_BYTES, FileSlab, Schedule, TileSchedule, schedule_for

Array = npt.NDArray[Any]

_CODECS = frozenset([
    "adler32", "astype", "bitround", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset",
    "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "quantize", "sharding_indexed", "shuffle",
    "transpose", "zfpy", "zlib", "zstd",
])  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A directory as Zarr sees it: the kind, ``array`` or ``group``, the format, 2 or 3, and the metadata."""

    kind: str
    zarr_format: int
    metadata: dict[str, Any]


def _node_of(path: str, folder: Path) -> Node | None:
    """Return the Zarr node in a directory; None if it has none.

    The name of the metadata file decides the format, not its content, so that Zarr reads the same metadata that this
    module has checked.
    """
    for name, kind in (("zarr.json", None), (".zarray", "array"), (".zgroup", "group")):
        try:
            metadata = json.loads((folder / name).read_text())
            return Node(kind or str(metadata["node_type"]), 2 if kind else 3, dict(metadata))
        except OSError:
            continue
        except (ValueError, KeyError, TypeError) as failure:
            raise FileContentError(path, f"its {name} is broken: {failure}") from None
    return None


def array_names(path: str, folder: Path) -> list[str]:
    """Return the names of the arrays in a store; an array that is the store itself has the name "". Local."""
    names: list[str] = []
    for where, inner, _ in os.walk(folder):
        node = _node_of(path, Path(where))
        if node is None or node.kind == "array":
            inner.clear()  # chunks, or a directory that is not part of the store
        if node is not None and node.kind == "array":
            names.append("" if Path(where) == folder else str(Path(where).relative_to(folder)))
    return sorted(names)


def arrays_of(path: str, folder: Path) -> list[tuple[str, Any]]:
    """Return the arrays in a store, open for reading, by name. Local.

    Raises
    ------
    FileContentError, FileRefusedError
        If one is broken, or has a codec that is not allowed.
    """
    return [(name, _open(path, folder / name)) for name in array_names(path, folder)]


def _open(path: str, folder: Path) -> Any:
    """Return the array in a directory, open for reading."""
    node = _node_of(path, folder)
    _require_known_codecs(path, node.metadata if node else {})
    try:
        return zarr.open_array(
            store=LocalStore(folder, read_only=True), mode="r", zarr_format=node.zarr_format if node else None
        )
    except Exception as failure:  # Zarr supports only some of the metadata that a store may have
        raise FileContentError(path, f"Zarr cannot read it: {failure}") from failure


class ZarrSource(Source):
    """An array of a Zarr store.

    Parameters
    ----------
    path : str
        Path of the store as the caller gave it.
    array : zarr.Array
        The array, open for reading.
    """

    def __init__(self, path: str, array: Any) -> None:
        super().__init__(path, array.shape, np.dtype(array.dtype), array.chunks)
        self._array = array
        self._kept: tuple[FileSlab, Array] | None = None

    def fetch(self, slab: FileSlab, out: Array) -> None:
        """Fill `out` from the store. Local."""
        if self._whole_chunks(slab):
            out[...] = self._read(slab)
            return
        chunk = self._chunk_of(slab)
        if self._kept is None or self._kept[0] != chunk:
            self._kept = None  # free its memory before the next chunk takes as much
            self._kept = chunk, self._read(chunk)
        i0, j0 = chunk.corner
        out[...] = FileSlab(slab.i0 - i0, slab.i1 - i0, slab.j0 - j0, slab.j1 - j0).of(self._kept[1])

    def _whole_chunks(self, slab: FileSlab) -> bool:
        (m, n), (h, w) = self.shape, self.chunk
        return (
            (slab.i1 % h == 0 or slab.i1 == m) and (slab.j1 % w == 0 or slab.j1 == n) and slab.i0 % h + slab.j0 % w == 0
        )

    def _chunk_of(self, slab: FileSlab) -> FileSlab:
        """Return the chunk that contains a slab which is smaller than a chunk."""
        (m, n), (h, w) = self.shape, self.chunk
        i0, j0 = slab.i0 // h * h, slab.j0 // w * w
        return FileSlab(i0, min(i0 + h, m), j0, min(j0 + w, n))

    def _read(self, slab: FileSlab) -> Array:
        where: Any = np.s_[slab.i0 : slab.i1, slab.j0 : slab.j1] if self._array.ndim == 2 else np.s_[slab.i0 : slab.i1]
        try:
            block: Array = np.asarray(self._array[where]).reshape(slab.shape)
        except Exception as failure:  # a codec may raise any error about broken bytes
            raise FileContentError(self.path, f"a chunk in it cannot be read: {failure}") from failure
        return block

    def close(self) -> None:
        """Free the cached chunk; no file is open. Local."""
        self._kept = None


def open_array(path: str, real: Path, name: str, directories: Sequence[Path]) -> ZarrSource:
    """Return an array of a Zarr store. Local.

    Raises
    ------
    DatasetMissingError
        If the store has no array of that name.
    FileContentError
        If this is not a Zarr store, or the array is not a matrix of numbers.
    FileRefusedError
        If a link in it leads out of the directories, or the array has a codec that is not allowed.
    """
    if _node_of(path, real) is None:
        raise FileContentError(path, "it is not a Zarr store: it has no zarr.json, .zarray or .zgroup")
    folder = resolve(str(real / name.strip("/")), directories)
    node = _node_of(path, folder) if folder.is_relative_to(real) else None
    if node is None or node.kind != "array":
        raise DatasetMissingError(path, name, array_names(path, real))
    refuse_links_out(path, folder, directories)
    path = f"{path}:{name}" if name else path
    return ZarrSource(path, _open(path, folder))


def _require_known_codecs(path: str, metadata: dict[str, Any]) -> None:
    for name in _codecs(metadata):
        if name.removeprefix("numcodecs.") not in _CODECS:
            raise FileRefusedError(path, f"it needs codec {name!r}, which this server does not run")


def _codecs(fields: dict[str, Any]) -> Iterator[str]:
    """Yield the names of all codecs in the metadata of an array, including those inside shards."""
    for key in ("codecs", "index_codecs", "filters", "compressor"):
        named = fields.get(key) or []
        for codec in named if isinstance(named, list) else [named]:
            described = codec if isinstance(codec, dict) else {"name": codec}
            yield from (str(described[key]) for key in ("name", "id") if key in described)
            configuration = described.get("configuration")
            yield from _codecs(configuration if isinstance(configuration, dict) else {})


# --- writing ----------------------------------------------------------------------------------------------------------


def write_zarr(
    ctx: TaskContext,
    A: DistMatrix,
    path: str,
    store: Path,
    name: str,
    chunks: list[int] | None,
    compression: str | None,
    overwrite: bool,
) -> None:
    """Write `A` as an array of a Zarr store. Collective over comm."""
    chunk = _chunk_shape(ctx, A, chunks)
    if compression not in ("zstd", None):
        raise ArgumentValueError(ctx.task, f"compression must be 'zstd' or None, not {compression!r}")
    with Agreement(ctx.comm), writing(path):
        found = _find_target(path, store, name, overwrite) if ctx.comm.rank == 0 else None
    target, inner, zarr_format = ctx.comm.bcast(found)
    with replacing(ctx.comm, path, target, ctx.directories, overwrite=overwrite, directory=True) as staged:
        with Agreement(ctx.comm), writing(path):
            if ctx.comm.rank == 0:
                _make_array(A, staged, inner, chunk, zarr_format, compression)
        with Agreement(ctx.comm), writing(path), zarr.config.set({"array.write_empty_chunks": True}):
            array = zarr.open_array(store=LocalStore(staged.joinpath(*inner)), mode="r+")

        def write(slab: FileSlab, block: Array) -> None:
            with writing(path):
                for i, j in itertools.product(range(0, slab.shape[0], chunk[0]), range(0, slab.shape[1], chunk[1])):
                    piece = block[i : i + chunk[0], j : j + chunk[1]]
                    top, left = slab.i0 + i, slab.j0 + j
                    # One chunk at a time: after a failure Zarr would still write the other chunks of the call.
                    array[top : top + piece.shape[0], left : left + piece.shape[1]] = piece

        write_slabs(ctx, A, path, _schedule(A, chunk), write)
        with Agreement(ctx.comm), writing(path):
            sync_tree(ctx.comm, staged)


def _chunk_shape(ctx: TaskContext, A: DistMatrix, chunks: list[int] | None) -> tuple[int, int]:
    """Return the shape of the chunks: `chunks` if given, else rows of about a quarter of a slab, some for each rank."""
    m, n = A.shape
    if chunks is None:
        room = SLAB_BYTES // 4 // A.dtype.itemsize
        return max(1, min(room // max(1, n), -(-m // A.comm.size))), max(1, min(n, room))
    if len(chunks) != 2 or not all(isinstance(extent, int) and extent > 0 for extent in chunks):
        raise ArgumentValueError(ctx.task, f"chunks must be two positive integers, not {chunks!r}")
    return max(1, min(chunks[0], m)), max(1, min(chunks[1], n))


def _schedule(A: DistMatrix, chunk: tuple[int, int]) -> Schedule:
    """Return which rank writes which chunks: whole ones, even if the caller wants them larger than a slab."""
    if math.prod(chunk) * A.dtype.itemsize > SLAB_BYTES:
        return TileSchedule(A.shape, A.comm.size, chunk, chunk)
    return schedule_for(A.shape, chunk, A.dtype.itemsize, A.comm.size)


def _find_target(path: str, store: Path, name: str, overwrite: bool) -> tuple[Path, list[str], int]:
    """Return the directory to create, the names inside it that lead to the array, and the format.

    The directory to create is the first one on the path from the store to the array that does not exist. If all exist,
    it is the directory of the array, to be replaced.
    """
    steps, folder, zarr_format = [step for step in name.split("/") if step], store, 3
    if any(step.startswith((".", "__")) or "\0" in step for step in steps):
        raise FileWriteError(path, f"{name!r} is not a valid name for an array")
    for depth in range(len(steps) + 1):
        folder = store.joinpath(*steps[:depth])
        if not os.path.lexists(folder):
            break
        node = None if folder.is_symlink() else _node_of(path, folder)
        if depth == len(steps):
            _require_replaceable(path, node, overwrite)
        elif node is None or node.kind != "group":
            raise FileWriteError(path, f"{folder.name} exists and is not a Zarr group, so it cannot hold an array")
        else:
            zarr_format = _format_of(path, folder, node)
    return folder, steps[depth:], zarr_format


def _require_replaceable(path: str, node: Node | None, overwrite: bool) -> None:
    if not overwrite:
        raise already_there(path)
    if node is None or node.kind != "array":
        raise FileWriteError(path, "it exists and is not a Zarr array, so it is not replaced: remove it yourself")


def _format_of(path: str, folder: Path, group: Node) -> int:
    if group.metadata.get("consolidated_metadata") or (folder / ".zmetadata").exists():
        raise FileWriteError(
            path, f"group {folder.name} has consolidated metadata, which would not list the new array: remove it first"
        )
    return group.zarr_format


def _make_array(
    A: DistMatrix, staged: Path, inner: list[str], chunk: tuple[int, int], zarr_format: int, compression: str | None
) -> None:
    """Create the array, without chunks, and its groups."""
    for depth in range(len(inner)):
        zarr.create_group(store=LocalStore(staged.joinpath(*inner[:depth])), zarr_format=zarr_format)
    zarr.create_array(
        store=LocalStore(staged.joinpath(*inner)),
        shape=A.shape,
        dtype=A.dtype,
        chunks=chunk,
        compressors=None if compression is None else "auto",
        zarr_format=zarr_format,
    )
