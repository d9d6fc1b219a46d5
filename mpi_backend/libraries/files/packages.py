"""Errors for packages that a file format needs and the server lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from alchemist_ray.errors import LibraryLoadError


@contextlib.contextmanager
def needing(package: str) -> Iterator[None]:
    """Say how to install `package` if an import in the block fails because it is missing. Local.

    Raises
    ------
    LibraryLoadError
        If it, or something that it needs, is not installed.
    """
    try:
        yield
    except ImportError as missing:
        raise LibraryLoadError(
            package, f"{missing}. Install it where the workers run: pip install 'alchemist-ray[files]'"
        ) from None
