"""Find ScaLAPACK, BLACS and LAPACK and load them into this process, without a compiler.

The shared objects in MKL's wheel and in the packages of Linux distributions have undefined symbols, which another of
them or the MPI library defines. Hence three rules:

- Open the MPI library of mpi4py again with ``RTLD_GLOBAL``, because Python loads every extension privately. So BLACS
  uses the MPI that its communicators belong to.
- Open the libraries with ``RTLD_LAZY | RTLD_GLOBAL`` in the order of their layers, because they refer to each other in
  circles. :class:`ctypes.CDLL` always adds ``RTLD_NOW``, so this module calls ``dlopen`` directly.
- Use the BLACS that was built for the family of that MPI: communicator handles are integers in MPICH and its
  descendants, and pointers in Open MPI.

Arguments are passed by reference as in Fortran, with 32-bit integers (LP64).
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
        Name of the library for messages.
    handles : list of int
        Handles from ``dlopen``, in the order in which symbols are searched.
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
        raise LibraryLoadError(library="scalapack", reason=f"{self.name} does not define {symbol}")

    def function(self, symbol: str, restype: Any = None) -> Any:
        """Return `symbol` as a ctypes function that returns `restype`."""
        return ctypes.CFUNCTYPE(restype)(self.address(symbol))


@lru_cache(maxsize=1)
def libraries() -> Libraries:
    """Return ScaLAPACK with BLACS, LAPACK and BLAS, loaded on the first call. Local.

    Raises
    ------
    LibraryLoadError
        If neither the `mkl` wheel nor a distribution's ScaLAPACK for this MPI is installed, or the one found does not
        load.
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
        reason=f"no ScaLAPACK for {family} was found. Install the wheel (pip install mkl), or, if your platform has no "
        f"such wheel, the system package {name} (apt install {name}2.2)",
    )


def _mpi_family() -> str:
    """Return ``openmpi`` or ``intelmpi``, which is MKL's name for every MPI with MPICH's binary interface."""
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
    """Make the symbols of mpi4py's MPI library visible to the whole process, and return its file. Local.

    Raises
    ------
    LibraryLoadError
        If mpi4py is not linked with an MPI library.
    """
    path = bound_mpi(_open(MPI.__file__))
    if path is None:
        raise LibraryLoadError(library="scalapack", reason=f"{MPI.__file__} is not linked with an MPI library")
    _open(path)
    return path


def bound_mpi(handle: int) -> str | None:
    """Return the file of the MPI library that an open shared object is linked with; None if there is none. Local."""
    address = _libc().dlsym(handle, b"MPI_Init")
    where = _DlInfo()
    found = address and _libc().dladdr(address, ctypes.byref(where))
    return os.fsdecode(where.dli_fname) if found else None


def _mkl_files(family: str) -> list[str]:
    """Return the libraries of the `mkl` wheel in loading order; an empty list if one is missing."""
    try:
        installed = importlib.metadata.distribution("mkl").files or []
    except importlib.metadata.PackageNotFoundError:
        return []
    by_stem = {file.name.partition(".so")[0]: str(Path(str(file.locate())).resolve()) for file in installed}
    layers = ("core", "sequential", "intel_lp64", f"blacs_{family}_lp64", "scalapack_lp64")
    found = [by_stem.get(f"libmkl_{layer}") for layer in layers]
    return [path for path in found if path] if all(found) else []


def _distribution_files(name: str) -> Iterator[str]:
    """Yield the places of the shared object `name` from the Linux distribution, the newest version first."""
    multiarch = ctypes.util.find_library(name.removeprefix("lib"))
    if multiarch:
        yield multiarch
    for folder in ("/usr/lib", "/usr/lib64", *map(str, Path("/usr/lib").glob("*-linux-gnu"))):
        yield from sorted(map(str, Path(folder).glob(f"{name}.so*")), key=_version, reverse=True)


def _version(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.partition(".so")[2])]
