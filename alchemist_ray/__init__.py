"""Alchemist for Ray: run MPI libraries from Ray and Python.

::

    import alchemist_ray as alchemist

    U, S, Vt = ray.get(alchemist.svd.remote(A, k=20))     # ScaLAPACK on a group of MPI workers

    with alchemist.AlchemistSession() as als:             # the same without Ray
        als.request_workers(2)
        linalg = als.load_library("linalg")
        U, S, Vt = linalg.truncated_svd(als.send_matrix(A), k=20)

Importing this module loads none of its submodules: each name loads its own module when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alchemist_ray._version import __version__ as __version__

if TYPE_CHECKING:  # for editors and type checkers; the names are loaded by __getattr__
    from alchemist_ray import errors as errors
    from alchemist_ray.client.libraries import Library as Library
    from alchemist_ray.client.local_server import Server as Server
    from alchemist_ray.client.local_server import start_server as start_server
    from alchemist_ray.client.matrices.handle import MatrixHandle as MatrixHandle
    from alchemist_ray.client.session import AlchemistSession as AlchemistSession
    from alchemist_ray.envs.hpc_simulator import HPCSimulator as HPCSimulator
    from alchemist_ray.envs.hpc_vector_env import HPCVectorEnv as HPCVectorEnv
    from alchemist_ray.errors import AlchemistError as AlchemistError
    from alchemist_ray.layouts.grid import Grid as Grid
    from alchemist_ray.layouts.layout import Layout as Layout
    from alchemist_ray.on_ray.actor import SessionActor as SessionActor
    from alchemist_ray.on_ray.remote import cholesky as cholesky
    from alchemist_ray.on_ray.remote import condest as condest
    from alchemist_ray.on_ray.remote import det as det
    from alchemist_ray.on_ray.remote import eigh as eigh
    from alchemist_ray.on_ray.remote import eigvals as eigvals
    from alchemist_ray.on_ray.remote import expm as expm
    from alchemist_ray.on_ray.remote import inv as inv
    from alchemist_ray.on_ray.remote import kmeans as kmeans
    from alchemist_ray.on_ray.remote import library as library
    from alchemist_ray.on_ray.remote import lstsq as lstsq
    from alchemist_ray.on_ray.remote import lu as lu
    from alchemist_ray.on_ray.remote import matmul as matmul
    from alchemist_ray.on_ray.remote import norm as norm
    from alchemist_ray.on_ray.remote import pca as pca
    from alchemist_ray.on_ray.remote import pinv as pinv
    from alchemist_ray.on_ray.remote import polar as polar
    from alchemist_ray.on_ray.remote import put as put
    from alchemist_ray.on_ray.remote import qr as qr
    from alchemist_ray.on_ray.remote import solve as solve
    from alchemist_ray.on_ray.remote import svd as svd
    from alchemist_ray.on_ray.sessions import init as init
    from alchemist_ray.on_ray.sessions import shutdown as shutdown

_CLIENT = {
    "AlchemistError": "alchemist_ray.errors",
    "AlchemistSession": "alchemist_ray.client.session",
    "Grid": "alchemist_ray.layouts.grid",
    "Layout": "alchemist_ray.layouts.layout",
    "Library": "alchemist_ray.client.libraries",
    "MatrixHandle": "alchemist_ray.client.matrices.handle",
    "Server": "alchemist_ray.client.local_server",
    "start_server": "alchemist_ray.client.local_server",
}

_EXTRA = {
    "HPCSimulator": "alchemist_ray.envs.hpc_simulator",
    "HPCVectorEnv": "alchemist_ray.envs.hpc_vector_env",
    "SessionActor": "alchemist_ray.on_ray.actor",
    "init": "alchemist_ray.on_ray.sessions",
    "shutdown": "alchemist_ray.on_ray.sessions",
    "stop_cluster": "alchemist_ray.on_ray.clusters",
    **dict.fromkeys(
        (
            "library",
            "put",
            "svd",
            "matmul",
            "qr",
            "solve",
            "lu",
            "cholesky",
            "lstsq",
            "inv",
            "det",
            "eigh",
            "eigvals",
            "expm",
            "pinv",
            "polar",
            "condest",
            "norm",
            "pca",
            "kmeans",
        ),
        "alchemist_ray.on_ray.remote",
    ),
}
"""Names that need Ray or gymnasium."""

_MODULES = {**_CLIENT, **_EXTRA}

_EXTRAS = {
    "ray": "Ray: pip install 'alchemist-ray[ray]'",
    "gymnasium": "gymnasium: pip install 'alchemist-ray[rl]'",
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
]  # without the names of _EXTRA: ``from alchemist_ray import *`` must work without Ray


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("alchemist_ray.errors")
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'alchemist_ray' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as missing:
        needed = _EXTRAS.get(missing.name or "")
        if needed is None:
            raise
        raise ImportError(f"alchemist_ray.{name} needs {needed}") from missing
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, "errors"})
