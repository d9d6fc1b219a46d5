"""The libraries that a server offers, with source and version.

The driver runs no code of a library. It finds the file of a module without importing the packages around it, and reads
the version in the file without executing it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from alchemist_ray.errors import LibraryNotFoundError, LibraryRefusedError
from alchemist_ray.protocol.server_options import LIBRARY_FILES

ENTRY_POINTS = "alchemist_ray.libraries"
"""Entry-point group under which an installed package registers its libraries."""
PACKAGE = "alchemist-ray"
"""The libraries of this distribution are registered first, so that others may replace them."""


@dataclass(frozen=True)
class Registration:
    """One library.

    Attributes
    ----------
    name, source : str
        Name of the library, and the module or path from which it is loaded.
    provider : str
        The package and version that registered it, or ``--library``.
    package_version : str
        Version of the package that contains it; empty if it is not part of a package.
    """

    name: str
    source: str
    provider: str
    package_version: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the registration as plain values: ``name, version, source, provider``.

        The version is the ``__version__`` that a Python module assigns, the same as after loading. If the module
        assigns none, it is the version of the package, or else empty: a shared object must be loaded to tell it.
        """
        version = _version_in(_file_of(self.source)) or self.package_version
        return {"name": self.name, "version": version, "source": self.source, "provider": self.provider}


class Registry:
    """The libraries of a server.

    Parameters
    ----------
    named : mapping
        Name -> module or path of the libraries that the server's owner names; they replace installed ones.
    allow_paths : bool
        Whether a client may name a module or path itself.
    """

    def __init__(self, named: Mapping[str, str], allow_paths: bool = False) -> None:
        self._allow_paths = allow_paths
        points = importlib.metadata.entry_points(group=ENTRY_POINTS)
        found = [_installed(point) for point in sorted(points, key=_is_of_others)]
        found.extend(Registration(name, source, "--library") for name, source in named.items())
        self._registered = {entry.name: entry for entry in found}

    def names(self) -> list[str]:
        """Return the names of all libraries, sorted."""
        return sorted(self._registered)

    def rows(self) -> list[dict[str, Any]]:
        """Return all registrations, by name."""
        return [entry.to_row() for _, entry in sorted(self._registered.items())]

    def resolve(self, name: str, path: str | None) -> str:
        """Return the module or path that the workers load for library `name`.

        Raises
        ------
        LibraryNotFoundError
            If no library of that name is registered and no path was given.
        LibraryRefusedError
            If the given path is not the registered one, and the server does not allow other paths.
        """
        entry = self._registered.get(name)
        if entry is not None and (not path or path == entry.source or path == _file_of(entry.source)):
            return entry.source
        if not path:
            raise LibraryNotFoundError(name, self.names())
        if not self._allow_paths:
            raise LibraryRefusedError(name, path)
        return path


def _is_of_others(point: EntryPoint) -> bool:
    return point.dist is None or point.dist.name != PACKAGE


def _installed(point: EntryPoint) -> Registration:
    """Return the library of an entry point: a module, or ``package:file.c`` for a file in a package."""
    source = point.module
    if point.attr:
        package = _file_of(point.module)
        source = str(Path(package).with_name(point.attr)) if package else point.value
    if point.dist is None:
        return Registration(point.name, source, "installed")
    version = point.dist.version
    provider = f"{point.dist.name} {version}" if _is_of_others(point) else PACKAGE
    return Registration(point.name, source, provider, version)


def _file_of(source: str) -> str | None:
    """Return the file of a module, so that a client may also name a registered library by its path.

    Nothing is imported, not even the packages around the module: the driver runs no code of a library.
    """
    if source.endswith(LIBRARY_FILES):
        return str(Path(source).resolve())
    spec, locations = None, None
    names = source.split(".")
    for depth in range(1, len(names) + 1):
        spec = _find(".".join(names[:depth]), locations)
        if spec is None:
            return None
        locations = spec.submodule_search_locations
    return spec.origin if spec else None


def _find(name: str, locations: Sequence[str] | None) -> ModuleSpec | None:
    """Return where a module is. All finders are asked, as an editable install has a finder of its own."""
    found = (finder.find_spec(name, locations) for finder in sys.meta_path)
    return next((spec for spec in found if spec is not None), None)


def _version_in(file: str | None) -> str:
    """Return the ``__version__`` that a Python file assigns at its top level; empty if it assigns no string to it."""
    if file is None or not file.endswith(".py"):
        return ""
    try:
        statements = ast.parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return ""
    version = ""
    for statement in statements:
        match statement:
            case ast.Assign([ast.Name("__version__")], ast.Constant(str(text))):
                version = text
            case ast.AnnAssign(ast.Name("__version__"), _, ast.Constant(str(text))):
                version = text
    return version
