"""Say how to install a module that a library imports and the workers do not have."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re

DISTRIBUTION = "alchemist-ray"

_FOR_DEVELOPERS = "dev"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


def reason_for(failure: ModuleNotFoundError, source: str) -> str:
    """Return why a library does not load: which module the workers lack, and how to install it. Local.

    Parameters
    ----------
    failure : ModuleNotFoundError
        The error of the import.
    source : str
        The source that the library was loaded from: a module's name or a path.
    """
    module = failure.name
    if not module:
        return f"ModuleNotFoundError: {failure}"
    package = module.partition(".")[0]
    if module != package and _is_installed(package):
        return f"the workers' package {package!r} has no module {module!r} (is another version of it needed?)"
    said = f"module {package!r} is not installed where the workers run"
    if package == source or source.startswith(f"{package}."):
        return f"{said}: install it there, check the name, or give the path of a file"
    if extra := extra_with(package):
        return f"{said}; install it there: pip install '{DISTRIBUTION}[{extra}]'"
    return f"{said}; install it there (pip install {package}), or put its folder on the workers' PYTHONPATH"


def extra_with(package: str) -> str | None:
    """Return the first extra of this package that installs `package`; None if no extra does. Local."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # the source tree is used without having been installed
        return None
    for requirement in requirements:
        name, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        if name and extra and extra[1] != _FOR_DEVELOPERS and _normalised(name[0]) == _normalised(package):
            return extra[1]
    return None


def _normalised(name: str) -> str:
    """Return a name of a package as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # the package is loaded, but has no import spec
        return True
