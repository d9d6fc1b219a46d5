"""Which libraries a server offers, and where each comes from."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from alchemist_ray.errors import LibraryNotFoundError, LibraryRefusedError

ENTRY_POINTS = "alchemist_ray.libraries"
"""Entry-point group under which an installed package registers its libraries."""

BUILT_IN = {
    "files": "alchemist_ray.mpi_backend.files",
    "linalg": "alchemist_ray.mpi_backend.linalg",
    "TestLib": "alchemist_ray.mpi_backend.testlib",
}


@dataclass(frozen=True)
class Registration:
    """One library: its name, the module or path it is loaded from, and which package brought it."""

    name: str
    source: str
    provider: str

    def to_row(self) -> dict[str, Any]:
        """Return the registration as plain values."""
        return {"name": self.name, "source": self.source, "provider": self.provider}


class Registry:
    """The libraries of a server.

    Parameters
    ----------
    named : mapping
        Name -> module or path, as the server's owner has given them; they come before installed ones.
    allow_paths : bool
        Whether a client may name a module or path itself.
    """

    def __init__(self, named: Mapping[str, str], allow_paths: bool = False) -> None:
        self._allow_paths = allow_paths
        found = [Registration(name, source, "alchemist-ray") for name, source in BUILT_IN.items()]
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            provider = f"{point.dist.name} {point.dist.version}" if point.dist else "installed"
            found.append(Registration(point.name, point.module, provider))
        found.extend(Registration(name, source, "--library") for name, source in named.items())
        self._registered = {entry.name: entry for entry in found}

    def rows(self) -> list[dict[str, Any]]:
        """Return all registrations, by name."""
        return [entry.to_row() for _, entry in sorted(self._registered.items())]

    def resolve(self, name: str, path: str | None) -> str:
        """Return what the workers import for library `name`.

        Raises
        ------
        LibraryNotFoundError
            If there is no library of that name, and no path was given.
        LibraryRefusedError
            If a path was given that is not the registered one, and the server does not allow that.
        """
        entry = self._registered.get(name)
        if entry is not None and (not path or path == entry.source or path == _file_of(entry.source)):
            return entry.source
        if not path:
            raise LibraryNotFoundError(name, sorted(self._registered))
        if not self._allow_paths:
            raise LibraryRefusedError(name, path)
        return path


def _file_of(source: str) -> str | None:
    """Return the file of a module, so that a client may name a registered library by its path as well.

    Nothing is imported for it, not even the packages that the module is in: the driver runs no code of a library.
    """
    if source.endswith(".py"):
        return str(Path(source).resolve())
    spec, locations = None, None
    names = source.split(".")
    for depth in range(1, len(names) + 1):
        spec = PathFinder.find_spec(".".join(names[:depth]), locations)
        if spec is None:
            return None
        locations = spec.submodule_search_locations
    return spec.origin if spec else None
