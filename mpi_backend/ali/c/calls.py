"""One call into a shared object: its arguments, the functions that it may call back, and its results.

C sees an ``alchemist_call``. When C calls back through the table :data:`_API`, the ``key`` of the structure finds the
:class:`Call` here. No exception may cross a frame of C. So the first exception of a call is kept, and the C function
gets a code or NULL instead. The exception is raised when the call has ended, whatever the library did with the code.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.errors import (
    AlchemistError,
    ArgumentError,
    ArgumentValueError,
    ConvergenceError,
    LayoutError,
    NonFiniteError,
    PeerFailedError,
    RemoteTaskError,
    SimulationDivergedError,
    SingularMatrixError,
)
from alchemist_ray.mpi_backend import scalapack
from alchemist_ray.mpi_backend.ali.c import types as c
from alchemist_ray.mpi_backend.ali.c.descriptions import REQUIRED, Parameter, Result, kind_of, layout_choice
from alchemist_ray.mpi_backend.ali.c.types import Kind, Status
from alchemist_ray.mpi_backend.ali.c.values import check_elements, converted_array, seen_array, seen_matrix
from alchemist_ray.mpi_backend.ali.context import TaskContext
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix

_keys = itertools.count(1)  # for calls and matrices: a pointer that C kept from an earlier call never matches
_calls: weakref.WeakValueDictionary[int, Call] = weakref.WeakValueDictionary()


class Call:
    """A call into a shared object on one rank.

    Parameters
    ----------
    ctx : TaskContext
        The context of the task.
    results : sequence of Result
        The results that it may return.
    """

    def __init__(self, ctx: TaskContext, results: Sequence[Result] = ()) -> None:
        self.ctx = ctx
        self.task = ctx.task
        self.results: dict[str, Any] = {}
        self.matrices: dict[int, tuple[DistMatrix, c.CMatrix]] = {}
        self._described = {result.name: result for result in results}
        self._failure: BaseException | None = None
        self._alive: list[Any] = []  # objects to which C has pointers
        key = next(_keys)
        self._structure = c.CCall(
            api=ctypes.pointer(_API), comm=_handle(ctx.comm), rank=ctx.comm.rank, size=ctx.comm.size, key=key
        )
        _calls[key] = self

    @property
    def pointer(self) -> Any:
        """The ``alchemist_call *``."""
        return ctypes.byref(self._structure)

    # --- arguments ----------------------------------------------------------------------------------------------------

    def take(self, parameters: Sequence[Parameter], described: Any, arguments: dict[str, Any]) -> None:
        """Set the arguments of the call. Missing arguments get their defaults. Local.

        Parameters
        ----------
        parameters : sequence of Parameter
            The described parameters.
        described : pointer
            The description in C, where C finds the names.
        arguments : dict
            The arguments by name.

        Raises
        ------
        ArgumentError
            If the elements of a matrix or array have a type that the task does not take.
        ArgumentValueError
            If C cannot hold a value.
        """
        values = (c.CValue * len(parameters))()
        for value, parameter in zip(values, parameters, strict=True):
            given = arguments.get(parameter.name, parameter.default)
            if given is REQUIRED:
                raise ArgumentError(self.task, f"missing argument {parameter.name!r}")
            self._set(value, parameter, given)
        self._structure.count = len(parameters)
        self._structure.parameters = described
        self._structure.arguments = ctypes.cast(values, ctypes.POINTER(c.CValue))
        self._alive.append(values)

    def _set(self, value: c.CValue, parameter: Parameter, given: Any) -> None:
        value.kind = kind_of(given, parameter.kinds)
        match Kind(value.kind):
            case Kind.BOOL:
                value.truth = bool(given)
            case Kind.INT:
                if not -(2**63) <= int(given) < 2**63:
                    raise ArgumentValueError(self.task, f"argument {parameter.name!r} has more than 64 bits: {given}")
                value.integer = int(given)
            case Kind.FLOAT:
                value.real = float(given)
            case Kind.COMPLEX:
                value.real, value.imag = complex(given).real, complex(given).imag
            case Kind.STRING:
                if "\0" in given:
                    raise ArgumentValueError(self.task, f"argument {parameter.name!r} contains a zero byte")
                value.string = given.encode()
            case Kind.ARRAY:
                array = converted_array(self.task, parameter, given)
                self._alive.append(array)
                value.array = ctypes.pointer(seen_array(array))
            case Kind.MATRIX:
                check_elements(self.task, parameter, given)
                value.matrix = ctypes.pointer(self.keep(given))
            case Kind.NONE:
                pass
            case _:
                raise ArgumentError(self.task, f"argument {parameter.name!r} cannot be {type(given).__name__}")

    # --- matrices -----------------------------------------------------------------------------------------------------

    def keep(self, A: DistMatrix) -> c.CMatrix:
        """Return the C structure of `A`, and keep `A` as long as the call."""
        key = next(_keys)
        seen = seen_matrix(A, key)
        self.matrices[key] = (A, seen)
        return seen

    def matrix(self, pointer: Any) -> DistMatrix:
        """Return the matrix for a pointer that C passes."""
        if not pointer or pointer.contents.key not in self.matrices:
            raise self.blame("it passed a matrix that is NULL or belongs to another call: a matrix ends with its call")
        return self.matrices[pointer.contents.key][0]

    # --- the end ------------------------------------------------------------------------------------------------------

    def blame(self, what: str) -> RemoteTaskError:
        """Return the error for a fault of the library."""
        return RemoteTaskError(self.task, "a fault of the library", what)

    def note(self, failure: BaseException) -> None:
        """Keep the first failure."""
        if self._failure is None:
            self._failure = failure

    def finish(self, status: int) -> None:
        """Raise the error of the call, if there was one. Local."""
        failure, self._failure = self._failure, None
        if failure is None and status == Status.OK:
            return
        try:
            raise failure if failure is not None else _error(self.task, status, None, 0, "")
        finally:
            del failure  # an error that its own traceback refers to would live until the next garbage collection

    def outcome(self) -> Any:
        """Return a single result as it is, several as a tuple; None on a rank other than 0 that gave no results."""
        required = {name: result.kinds for name, result in self._described.items() if Kind.NONE not in result.kinds}
        if self.ctx.comm.rank > 0 and not self.results and not any(Kind.MATRIX in kinds for kinds in required.values()):
            return None
        missing = [name for name in required if name not in self.results]
        if missing:
            raise self.blame(f"it returned without its result {', '.join(map(repr, missing))}")
        values = tuple(self.results.get(name) for name in self._described)
        return values[0] if len(values) == 1 else values or None

    def give(self, name: str, value: c.CValue) -> None:
        """Accept a result from C."""
        if name not in self._described:
            raise self.blame(f"it returned a result {name!r} that is not in its description")
        if not value.kind & self._described[name].kinds:
            raise self.blame(f"it returned its result {name!r} as a kind that is not in its description")
        self.results[name] = self._read(value, name)

    def _read(self, value: c.CValue, name: str) -> Any:
        match Kind(value.kind):
            case Kind.BOOL:
                return bool(value.truth)
            case Kind.INT:
                return value.integer
            case Kind.FLOAT:
                return value.real
            case Kind.COMPLEX:
                return complex(value.real, value.imag)
            case Kind.STRING if value.string is not None:
                return value.string.decode(errors="replace")
            case Kind.ARRAY if value.array:
                return self._read_array(value.array.contents, name)
            case Kind.MATRIX:
                return self.matrix(value.matrix)
            case Kind.NONE:
                return None
        raise self.blame(f"its result {name!r} is NULL")

    def _read_array(self, array: c.CArray, name: str) -> npt.NDArray[Any]:
        dtype = c.ELEMENT_TYPES.get(array.type)
        if dtype is None or not 0 <= array.ndim <= c.MAX_DIMENSIONS:
            raise self.blame(f"its result {name!r} is an array of type {array.type} and {array.ndim} dimensions")
        shape = tuple(array.shape[: array.ndim])
        if min(shape, default=0) < 0 or math.prod(shape) != array.size or (array.size and not array.elements):
            raise self.blame(
                f"its result {name!r} is an array of shape {shape} with {array.size} elements, or its elements are NULL"
            )
        elements = np.empty(shape, dtype)
        ctypes.memmove(elements.ctypes.data, array.elements, elements.nbytes)
        return elements


def _handle(comm: MPI.Comm) -> Any:
    return c.HANDLE_TYPE.from_address(MPI._addressof(comm)).value


def _error(task: str, code: int, argument: str | None, index: int, text: str) -> AlchemistError:
    """Return the error for a code."""
    text = text or "the library gave no text"
    match code:
        case Status.ARGUMENT_ERROR:
            return ArgumentError(task, text)
        case Status.VALUE_ERROR:
            return ArgumentValueError(task, text)
        case Status.NON_FINITE if argument:
            return NonFiniteError(task, argument)
        case Status.SINGULAR if argument:
            return SingularMatrixError(task, argument, index)
        case Status.NOT_CONVERGED:
            return ConvergenceError(task, text)
        case Status.LAYOUT_ERROR:
            return LayoutError(f"{task}: {text}")
        case Status.NO_MEMORY:
            return RemoteTaskError(task, "MemoryError", text)
        case Status.PEER_FAILED:
            return PeerFailedError(index)
        case Status.DIVERGED:
            return SimulationDivergedError(task, text)
    return RemoteTaskError(task, f"error {code}", text)


# --- the functions that C may call ------------------------------------------------------------------------------------


def _callback(prototype: Any, otherwise: Any) -> Callable[[Callable[..., Any]], Any]:
    """Turn a function that takes a :class:`Call` into a C function; C gets `otherwise` if it raises."""

    def wrap(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def guarded(pointer: Any, *arguments: Any) -> Any:
            call = _calls.get(pointer.contents.key)
            if call is None:
                return otherwise
            try:
                return function(call, *arguments)
            except BaseException as failure:  # noqa: BLE001 - raised again when the call has ended
                call.note(failure)
                return otherwise

        return prototype(guarded)

    return wrap


def _text(octets: bytes | None) -> str:
    return (octets or b"").decode(errors="replace")


@_callback(c.Fail, Status.ERROR)
def _fail(call: Call, code: int, argument: bytes | None, index: int, text: bytes | None) -> int:
    code = code or Status.ERROR
    call.note(_error(call.task, code, _text(argument), index, _text(text)))
    return code


@_callback(c.Log, None)
def _log(call: Call, level: int, text: bytes | None) -> None:
    call.ctx.log.log(level, "%s", _text(text))


@_callback(c.CProgress, None)
def _progress(call: Call, done: float, total: float, text: bytes | None) -> None:
    call.ctx.progress(done, total, _text(text))


@_callback(c.CheckCancelled, Status.ERROR)
def _check_cancelled(call: Call) -> int:
    call.ctx.check_cancelled()
    return Status.OK


@_callback(c.SetResult, Status.ERROR)
def _set_result(call: Call, name: bytes | None, value: Any) -> int:
    call.give(_text(name), value.contents)
    return Status.OK


@_callback(c.NewMatrix, None)
def _new_matrix(call: Call, m: int, n: int, flag: int, layout: bytes | None, like: Any) -> int:
    comm = call.ctx.comm
    with Agreement(comm):
        dtype = c.ELEMENT_TYPES.get(flag)
        if dtype is None or m < 0 or n < 0:
            raise call.blame(f"it asked for a {m}x{n} matrix of element type {flag}")
        shape = m, n
        wanted = call.matrix(like).layout if like else layout_choice(_text(layout)).resolve(shape, comm.size)
        return ctypes.addressof(call.keep(call.ctx.empty(shape, dtype, wanted)))


@_callback(c.CopyMatrix, None)
def _copy_matrix(call: Call, matrix: Any, layout: bytes | None, transposed: int) -> int:
    with Agreement(call.ctx.comm):
        A = call.matrix(matrix)
        m, n = A.shape[::-1] if transposed else A.shape
        own = A.layout.transposed() if transposed else A.layout
        wanted = own if layout is None else layout_choice(_text(layout)).resolve((m, n), A.comm.size)
        copy = A.new(A.shape, A.layout) if wanted == A.layout and not transposed else None
    if transposed:
        return ctypes.addressof(call.keep(A.transpose(wanted)))
    if copy is None:
        return ctypes.addressof(call.keep(A.relayout(wanted)))
    np.copyto(copy.local, A.local)
    return ctypes.addressof(call.keep(copy))


@_callback(c.Scalapack, Status.ERROR)
def _scalapack(call: Call, matrix: Any, descriptor: Any) -> int:
    entries = scalapack.descriptor(call.matrix(matrix))
    ctypes.memmove(descriptor, entries.ctypes.data, entries.nbytes)
    return Status.OK


@_callback(c.Scratch, None)
def _scratch(call: Call) -> int:
    path = ctypes.create_string_buffer(bytes(call.ctx.scratch))
    call._alive.append(path)
    return ctypes.addressof(path)


_API = c.Api(
    size=ctypes.sizeof(c.Api),
    fail=_fail,
    log=_log,
    progress=_progress,
    check_cancelled=_check_cancelled,
    set_result=_set_result,
    new_matrix=_new_matrix,
    copy_matrix=_copy_matrix,
    scalapack=_scalapack,
    scratch=_scratch,
)
