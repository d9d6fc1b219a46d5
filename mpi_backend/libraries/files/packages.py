"""The packages that some formats need, and servers without them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from alchemist_ray.errors import LibraryLoadError


@contextlib.contextmanager
def needing(package: str) -> Iterator[None]:
    """Say how to get `package` if an import in the context fails for want of it. Local.

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
