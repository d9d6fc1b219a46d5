"""Load a library in C, C++ or Fortran: a shared object that uses ``alchemist_ali.h``.

The shared object becomes a Python module whose functions call it. From there on it is described, checked and called
like any other library (:mod:`.library`). Its undefined symbols are searched in this process. Functions of MPI are found
in the library that mpi4py has loaded. Functions of ScaLAPACK, BLACS, LAPACK and BLAS are found in the library shipped
with the server (:mod:`.loader`), which is loaded if such a function is missing. The shared object must itself be linked
with all other libraries. Its own symbols are private to it (``RTLD_LOCAL``). All symbols are resolved at once
(``RTLD_NOW``), so that a missing symbol is an error here and not in the middle of a task.

The interpreter's lock is released while C runs, so matrices move and the driver gets answers meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
import sys
import types
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from alchemist_ray.errors import LibraryLoadError
from alchemist_ray.mpi_backend.ali.c import types as c
from alchemist_ray.mpi_backend.ali.c.calls import Call
from alchemist_ray.mpi_backend.ali.c.descriptions import (
    Parameter,
    Reader,
    Result,
    docstring,
    read_library,
    simulator_in,
)
from alchemist_ray.mpi_backend.ali.c.simulators import simulator_class
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.ali.library import task
from alchemist_ray.mpi_backend.scalapack.loader import bound_mpi, libraries, open_mpi

_ENTRY = "alchemist_library"


def import_shared_object(name: str, path: str | os.PathLike[str]) -> ModuleType:
    """Return the shared object at `path` as the module of the library `name`. Local.

    Raises
    ------
    LibraryLoadError
        If it does not load, is for another MPI or another version of the interface, or its description is wrong.
    """
    library = _open(name, Path(path))
    try:
        entry = getattr(library, _ENTRY)
    except AttributeError:
        reason = f"{path} does not export {_ENTRY}: close the description with the macro ALCHEMIST_LIBRARY"
        raise LibraryLoadError(name, reason) from None
    entry.restype = ctypes.POINTER(c.CLibraryDescription)
    return _module_of(name, library, read_library(name, entry()))


def _open(name: str, path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise LibraryLoadError(name, f"the file {path} does not exist")
    mpi = open_mpi()
    _print_by_lines()
    library = _open_with_scalapack(name, str(path.resolve()))
    bound = bound_mpi(library._handle)
    if bound is not None and not os.path.samefile(bound, mpi):
        reason = (
            f"it is linked with the MPI library {bound}, but the workers use {mpi}: compile it with the mpicc of that "
            "library"
        )
        raise LibraryLoadError(name, reason)
    return library


@lru_cache(maxsize=1)
def _print_by_lines() -> None:
    """Make C write its output to the log line by line, so that the log has it if the library crashes."""
    libc = ctypes.CDLL(None)
    by_lines = 1  # _IOLBF
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, by_lines, ctypes.c_size_t(0))


def _open_with_scalapack(name: str, path: str) -> ctypes.CDLL:
    """Open a shared object; if a symbol is missing, load ScaLAPACK and try again."""
    try:
        return ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as failure:
        if "undefined symbol" not in str(failure):
            raise LibraryLoadError(name, f"it does not load: {failure}") from failure
    with contextlib.suppress(LibraryLoadError):  # without ScaLAPACK the error below names the symbol
        libraries()
    try:
        return ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as failure:
        reason = f"it does not load: {failure}. Link it with the library that defines the symbol"
        raise LibraryLoadError(name, reason) from failure


def _module_of(name: str, library: ctypes.CDLL, description: c.CLibraryDescription) -> ModuleType:
    reader = Reader(name)
    module = ModuleType(f"alchemist_library_{name}", reader.text(description.doc, "its docstring: "))
    sys.modules[module.__name__] = module  # the annotations of its simulator are looked up there
    module.__dict__["__version__"] = reader.text(description.version, "its version: ")
    module.__dict__["__shared_object__"] = library
    tasks = tuple(reader.entries(description.tasks, "", "task"))
    described = simulator_in(name, description)
    if not tasks and described is None:
        raise reader.error("", "it describes neither tasks nor a simulator")
    for entry in tasks:
        function = _function_of(reader, name, entry)
        setattr(module, function.__name__, task(function))
    if described is not None:
        simulator = simulator_class(reader, name, described, module.__name__)
        setattr(module, simulator.__name__, simulator)
    return module


def _function_of(reader: Reader, library: str, entry: c.CTask) -> Callable[..., Any]:
    """Return a function with the described signature that runs a task of the shared object."""
    name = reader.name(entry.name, "")
    where = f"task {name}: "
    if not entry.run:
        raise reader.error(where, "it has no function to run")
    parameters, results = reader.parameters(entry.parameters, where), reader.results(entry.results, where)
    run, described = entry.run, entry.parameters

    def function(ctx: TaskContext, **arguments: Any) -> Any:
        call = Call(ctx, results)
        call.take(parameters, described, arguments)
        call.finish(run(call.pointer))
        return call.outcome()

    function.__name__ = name
    function.__qualname__ = f"{library}.{name}"
    function.__doc__ = docstring(reader.text(entry.doc, where), parameters, results)
    signature = _signature(parameters, results)
    function.__signature__ = signature  # type: ignore[attr-defined]  # inspect looks for it
    function.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    function.__annotations__["return"] = signature.return_annotation
    return function


def _signature(parameters: tuple[Parameter, ...], results: tuple[Result, ...]) -> inspect.Signature:
    ctx = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=TaskContext)
    returned = [result.annotation for result in results]
    annotation: Any = None
    if returned:
        annotation = returned[0] if len(returned) == 1 else types.GenericAlias(tuple, tuple(returned))
    return inspect.Signature([ctx, *(p.signed() for p in parameters)], return_annotation=annotation)
