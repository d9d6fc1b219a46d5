"""Alchemist for Ray: run MPI libraries from Ray and Python.

::

    import alchemist_ray as alchemist

    U, S, Vt = ray.get(alchemist.svd.remote(A, k=20))     # ScaLAPACK on a group of MPI workers

    with alchemist.AlchemistSession() as als:             # the same without Ray
        als.request_workers(2)
        linalg = als.load_library("linalg")
        U, S, Vt = linalg.truncated_svd(als.send_matrix(A), k=20)

Importing this module loads neither Ray nor MPI; what needs Ray loads it on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from alchemist_ray.errors import AlchemistError
from alchemist_ray.layout import Grid, Layout
from alchemist_ray.library import Library
from alchemist_ray.matrix import MatrixHandle
from alchemist_ray.server import Server, start_server
from alchemist_ray.session import AlchemistSession

if TYPE_CHECKING:
    from alchemist_ray.actor import SessionActor as SessionActor
    from alchemist_ray.remote import init as init
    from alchemist_ray.remote import matmul as matmul
    from alchemist_ray.remote import put as put
    from alchemist_ray.remote import qr as qr
    from alchemist_ray.remote import shutdown as shutdown
    from alchemist_ray.remote import solve as solve
    from alchemist_ray.remote import svd as svd

_NEEDS_RAY = {
    "SessionActor": "alchemist_ray.actor",
    "init": "alchemist_ray.remote",
    "matmul": "alchemist_ray.remote",
    "put": "alchemist_ray.remote",
    "qr": "alchemist_ray.remote",
    "shutdown": "alchemist_ray.remote",
    "solve": "alchemist_ray.remote",
    "svd": "alchemist_ray.remote",
}

__all__ = [
    "AlchemistError",
    "AlchemistSession",
    "Grid",
    "Layout",
    "Library",
    "MatrixHandle",
    "Server",
    "start_server",
]  # and not what needs Ray: ``from alchemist_ray import *`` must work without it


def __getattr__(name: str) -> Any:
    module = _NEEDS_RAY.get(name)
    if module is None:
        raise AttributeError(f"module 'alchemist_ray' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as missing:
        if missing.name != "ray":
            raise
        raise ImportError(f"alchemist_ray.{name} needs Ray: pip install 'alchemist-ray[ray]'") from missing


def __dir__() -> list[str]:
    return sorted([*globals(), *_NEEDS_RAY])
