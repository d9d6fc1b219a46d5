"""Find a dataset in an HDF5 file without leaving the allowed directories.

An HDF5 file can refer to other files: by external links in the path of a dataset, by external storage of its elements,
and by virtual datasets, which combine datasets of other files. The HDF5 library would follow all three on its own. So
this module walks the path of a dataset step by step, and checks the dataset before anything is read from it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
from h5py import h5f, h5l

from alchemist_ray.errors import AlchemistError, DatasetMissingError, FileContentError, FileError, FileRefusedError
from alchemist_ray.mpi_backend.libraries.files.directories import existing_file

MOST_LINKS = 16
"""Largest number of links in the path of a dataset; a circle of links exceeds it."""

MOST_NAMES = 50
"""Largest number of datasets that an error lists."""


@dataclass(frozen=True)
class Place:
    """Location of a dataset: an open file, a group in it, and the name of the dataset in the group."""

    file: h5py.File
    group: h5py.Group
    name: str

    @property
    def dataset(self) -> h5py.Dataset:
        """The dataset, opened."""
        return self.group[self.name]

    def beside(self, path: str, other: str, directories: Sequence[Path]) -> Path:
        """Return the path of the file that this file refers to as `other`, relative to its own directory."""
        if other == ".":
            return Path(self.file.filename)
        try:
            return existing_file(str(Path(self.file.filename).parent / other), directories)
        except FileError as failure:
            failure.path = f"{path} -> {other}"  # the caller knows only `path`
            raise


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn errors of the HDF5 library about a broken file into FileContentError. Local."""
    try:
        yield
    except AlchemistError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as failure:
        raise FileContentError(path, f"HDF5 cannot read it: {failure}") from None


def dataset_names(file: h5py.File) -> list[str]:
    """Return the names of the datasets in a file, without those that can be reached only by links. Local."""
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
    return names


def locate(path: str, real: Path, name: str, directories: Sequence[Path], follow: bool = True) -> Place:
    """Return the dataset that `name` leads to; the caller must close its file. Local.

    Parameters
    ----------
    path : str
        Path of the file as the caller gave it.
    real : Path
        Its resolved path.
    name : str
        Names from the root to the dataset, separated by slashes.
    directories : sequence of Path
        The directories under which files may be.
    follow : bool
        Whether to follow links.

    Raises
    ------
    DatasetMissingError
        If `name` does not lead to a dataset.
    FileRefusedError
        If `name` leads out of the directories, or contains a link and `follow` is False.
    FileMissingError, FileContentError
        If a link leads to a file that does not exist or is not an HDF5 file.
    """
    with reading(path):
        file = h5py.File(real, "r")
        try:
            place = _walk(path, file, deque(_steps(name)), directories, MOST_LINKS if follow else 0)
            if place is None:
                names = dataset_names(file)
                more = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
                raise DatasetMissingError(path, name, names[:MOST_NAMES] + more)
        except BaseException:
            file.close()
            raise
        if place.file is not file:
            file.close()
        return place


def _steps(name: str) -> list[str]:
    return [step for step in name.split("/") if step not in ("", ".")]


def _walk(path: str, file: h5py.File, steps: deque[str], directories: Sequence[Path], links: int) -> Place | None:
    """Return the dataset at `steps` from the root of a file, or None; follow at most `links` links."""
    place = Place(file, file["/"], "")
    while steps:
        step = steps.popleft()
        kind = _link_type(place.group, step)
        if kind is None:
            return None
        if kind != h5l.TYPE_HARD:
            links -= 1
            if links < 0:
                raise FileRefusedError(path, f"{step!r} in it is a link, and no (more) links are followed here")
            place, onward = _follow(path, place, step, kind, directories)
            steps.extendleft(reversed(onward))
            continue
        node = place.group[step]
        if isinstance(node, h5py.Dataset) and not steps:
            return Place(place.file, place.group, step)
        if not isinstance(node, h5py.Group):
            return None
        place = Place(place.file, node, "")
    return None


def _link_type(group: h5py.Group, step: str) -> int | None:
    """Return the type of a link without following it; None if there is no link of that name."""
    links = group.id.links
    kind: int | None = links.get_info(step.encode()).type if links.exists(step.encode()) else None
    return kind


def _follow(path: str, place: Place, step: str, kind: int, directories: Sequence[Path]) -> tuple[Place, list[str]]:
    """Return the group in which the target of a link starts, and the steps from there to the target."""
    value = place.group.id.links.get_val(step.encode())
    if kind == h5l.TYPE_SOFT:
        onward = value.decode()
        return (Place(place.file, place.file["/"], "") if onward.startswith("/") else place), _steps(onward)
    if kind != h5l.TYPE_EXTERNAL:
        raise FileRefusedError(path, f"{step!r} in it is a link of a user-defined type, which is not followed")
    other, onward = value[0].decode(), value[1].decode()
    file = h5py.File(place.beside(path, other, directories), "r")
    return Place(file, file["/"], ""), _steps(onward)


def require_inside(path: str, place: Place, directories: Sequence[Path]) -> None:
    """Check that all elements of a dataset lie in files under the directories. Local.

    Raises
    ------
    FileRefusedError
        If some do not, or a source of a virtual dataset is not a plain dataset.
    FileMissingError, DatasetMissingError, FileContentError
        If some are missing; the HDF5 library would return zeros for them.
    """
    dataset = place.dataset
    for name, offset, size in dataset.external or ():
        real = place.beside(path, name, directories)
        if size != h5f.UNLIMITED and real.stat().st_size < offset + size:
            raise FileContentError(path, f"its elements are in {name}, which ends early")
    if dataset.is_virtual:
        for other, name in {(source.file_name, source.dset_name) for source in dataset.virtual_sources()}:
            _require_plain(path, place, other, name, directories)


def _require_plain(path: str, place: Place, other: str, name: str, directories: Sequence[Path]) -> None:
    """Check that a source of a virtual dataset lies under the directories and has its elements in its own file."""
    if "%" in other + name:
        raise FileRefusedError(
            path, f"it is a virtual dataset with a pattern as source, {other}:{name}; such datasets are not read"
        )
    source = locate(path, place.beside(path, other, directories), name, directories, follow=False)
    with source.file:
        if source.dataset.is_virtual or source.dataset.external:
            raise FileRefusedError(
                path, f"it is a virtual dataset, and its source {other}:{name} is itself virtual or stored externally"
            )
