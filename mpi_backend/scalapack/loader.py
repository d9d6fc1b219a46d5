"""Find ScaLAPACK, BLACS and LAPACK and load them into this process, with no compiler.

The shared objects of MKL's wheel and of the distributions leave symbols open that another one of them, or the MPI
library, must define. Hence three rules:

- the MPI library that mpi4py loaded (privately, as Python loads every extension) is opened again with ``RTLD_GLOBAL``,
  so that BLACS talks through the very MPI whose communicators it is given;
- the libraries are opened with ``RTLD_LAZY | RTLD_GLOBAL`` in the order of their layers, because they refer to each
  other in circles. :class:`ctypes.CDLL` always adds ``RTLD_NOW``, so ``dlopen`` is called itself;
- the BLACS must be the one built for the family of that MPI: communicator handles are integers in MPICH and its
  descendants, pointers in Open MPI.

Arguments go by reference as in Fortran with 32-bit integers (LP64).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mpi4py import MPI

from alchemist_ray.errors import LibraryLoadError

_RTLD_LAZY_GLOBAL = os.RTLD_LAZY | os.RTLD_GLOBAL


class Libraries:
    """The loaded libraries of this process, as a name space of functions.

    Parameters
    ----------
    name : str
        What was loaded, for messages.
    handles : list of int
        What ``dlopen`` returned, in the order in which symbols are looked for.
    """

    def __init__(self, name: str, handles: list[int]) -> None:
        self.name = name
        self._handles = handles

    def address(self, symbol: str) -> int:
        """Return the address of `symbol`.

        Raises
        ------
        LibraryLoadError
            If none of the libraries defines it.
        """
        for handle in self._handles:
            if address := _libc().dlsym(handle, symbol.encode()):
                return int(address)
        raise LibraryLoadError(library="scalapack", reason=f"{self.name} defines no {symbol}")

    def function(self, symbol: str, restype: Any = None) -> Any:
        """Return `symbol` as a ctypes function that returns `restype`."""
        return ctypes.CFUNCTYPE(restype)(self.address(symbol))


@lru_cache(maxsize=1)
def libraries() -> Libraries:
    """Return ScaLAPACK with BLACS, LAPACK and BLAS, loaded on the first call. Local.

    Raises
    ------
    LibraryLoadError
        If neither the `mkl` wheel nor a distribution's ScaLAPACK for this MPI is installed, or one does not load.
    """
    family = _mpi_family()
    open_mpi()
    mkl = _mkl_files(family)
    if mkl:
        return Libraries("MKL", [_open(path) for path in mkl][::-1])
    name = "libscalapack-openmpi" if family == "openmpi" else "libscalapack-mpich"
    for path in _distribution_files(name):
        return Libraries(path, [_open(path)])
    raise LibraryLoadError(
        library="scalapack",
        reason=f"no ScaLAPACK for {family} was found. Install the wheel (pip install mkl), or, where there is none, "
        f"{name} of the system's packages (apt install {name}2.2)",
    )


def _mpi_family() -> str:
    """Return ``openmpi`` or ``intelmpi``, MKL's word for MPICH and all that share its binary interface."""
    return "openmpi" if "Open MPI" in MPI.Get_library_version() else "intelmpi"


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    )


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.dlopen.restype = ctypes.c_void_p
    libc.dlopen.argtypes = (ctypes.c_char_p, ctypes.c_int)
    libc.dlsym.restype = ctypes.c_void_p
    libc.dlsym.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    libc.dlerror.restype = ctypes.c_char_p
    libc.dladdr.argtypes = (ctypes.c_void_p, ctypes.POINTER(_DlInfo))
    return libc


def _open(path: str) -> int:
    handle = _libc().dlopen(path.encode(), _RTLD_LAZY_GLOBAL)
    if not handle:
        why = (_libc().dlerror() or b"unknown reason").decode()
        raise LibraryLoadError(library="scalapack", reason=f"{path} does not load: {why}")
    return int(handle)


def open_mpi() -> str:
    """Open the MPI library that mpi4py has loaded for all of this process, and return its file. Local.

    Raises
    ------
    LibraryLoadError
        If mpi4py is bound to none.
    """
    path = bound_mpi(_open(MPI.__file__))
    if path is None:
        raise LibraryLoadError(library="scalapack", reason=f"no MPI library is bound to {MPI.__file__}")
    _open(path)
    return path


def bound_mpi(handle: int) -> str | None:
    """Return the file of the MPI library that an open shared object is linked with, whatever its name. Local."""
    address = _libc().dlsym(handle, b"MPI_Init")
    where = _DlInfo()
    found = address and _libc().dladdr(address, ctypes.byref(where))
    return os.fsdecode(where.dli_fname) if found else None


def _mkl_files(family: str) -> list[str]:
    """Return the libraries of the `mkl` wheel in the order of loading, or nothing unless all are there."""
    try:
        installed = importlib.metadata.distribution("mkl").files or []
    except importlib.metadata.PackageNotFoundError:
        return []
    by_stem = {file.name.partition(".so")[0]: str(Path(str(file.locate())).resolve()) for file in installed}
    layers = ("core", "sequential", "intel_lp64", f"blacs_{family}_lp64", "scalapack_lp64")
    found = [by_stem.get(f"libmkl_{layer}") for layer in layers]
    return [path for path in found if path] if all(found) else []


def _distribution_files(name: str) -> Iterator[str]:
    """Yield where the distribution put the newest shared object `name`."""
    multiarch = ctypes.util.find_library(name.removeprefix("lib"))
    if multiarch:
        yield multiarch
    for folder in ("/usr/lib", "/usr/lib64", *map(str, Path("/usr/lib").glob("*-linux-gnu"))):
        yield from sorted(map(str, Path(folder).glob(f"{name}.so*")), key=_version, reverse=True)


def _version(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.partition(".so")[2])]
