"""The types of ``alchemist_ali.h`` for ctypes, with the same names without prefix and the same order of fields.

The header explains the fields.
"""

from __future__ import annotations

import ctypes
import enum
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_void_p

import numpy as np
from mpi4py import MPI

from alchemist_ray.layouts.spec import DTYPES

ABI_VERSION = 2
MAX_DIMENSIONS = 8

HANDLE_TYPE = c_int32 if MPI._sizeof(MPI.Comm) == ctypes.sizeof(c_int32) else c_void_p
"""Type of an ``MPI_Comm`` in C: an integer in MPICH and its descendants, a pointer in Open MPI."""


class Kind(enum.IntFlag):
    """Kinds of arguments and results."""

    NONE = 1
    BOOL = 2
    INT = 4
    FLOAT = 8
    COMPLEX = 16
    STRING = 32
    ARRAY = 64
    MATRIX = 128


class Status(enum.IntEnum):
    """The codes that a task returns."""

    OK = 0
    ERROR = 1
    ARGUMENT_ERROR = 2
    VALUE_ERROR = 3
    NON_FINITE = 4
    SINGULAR = 5
    NOT_CONVERGED = 6
    LAYOUT_ERROR = 7
    NO_MEMORY = 8
    PEER_FAILED = 9
    DIVERGED = 10
    OWN_ERROR = 100


ELEMENT_TYPES = {1 << position: np.dtype(name) for position, name in enumerate(DTYPES)}
"""Flag of the header -> element type, in the order of the element types of matrices."""
TYPE_FLAGS = {dtype: flag for flag, dtype in ELEMENT_TYPES.items()}


class CArray(ctypes.Structure):
    """``alchemist_array``."""

    _fields_ = (
        ("type", c_int32),
        ("ndim", c_int32),
        ("size", c_int64),
        ("shape", c_int64 * MAX_DIMENSIONS),
        ("elements", c_void_p),
    )


class CAxis(ctypes.Structure):
    """``alchemist_axis``."""

    _fields_ = (
        ("extent", c_int64),
        ("size", c_int64),
        ("block", c_int64),
        ("stride", c_int64),
        ("position", c_int64),
    )


class CMatrix(ctypes.Structure):
    """``alchemist_matrix``."""

    _fields_ = (
        ("m", c_int64),
        ("n", c_int64),
        ("rows", CAxis),
        ("cols", CAxis),
        ("local", c_void_p),
        ("ld", c_int64),
        ("type", c_int32),
        ("itemsize", c_int32),
        ("pair", c_char_p),
        ("mb", c_int64),
        ("nb", c_int64),
        ("nprow", c_int32),
        ("npcol", c_int32),
        ("myrow", c_int32),
        ("mycol", c_int32),
        ("row_align", c_int32),
        ("col_align", c_int32),
        ("redundant", c_int32),
        ("is_source", c_int32),
        ("key", c_int64),
    )


class CValue(ctypes.Structure):
    """``alchemist_value``."""

    _fields_ = (
        ("kind", c_int32),
        ("truth", c_int32),
        ("integer", c_int64),
        ("real", c_double),
        ("imag", c_double),
        ("string", c_char_p),
        ("array", POINTER(CArray)),
        ("matrix", POINTER(CMatrix)),
    )


class CParameter(ctypes.Structure):
    """``alchemist_parameter``."""

    _fields_ = (
        ("name", c_char_p),
        ("kinds", c_int32),
        ("default_value", c_char_p),
        ("doc", c_char_p),
        ("types", c_int32),
        ("layout", c_char_p),
    )


class CResult(ctypes.Structure):
    """``alchemist_result``."""

    _fields_ = (("name", c_char_p), ("kinds", c_int32), ("doc", c_char_p))


class CCall(ctypes.Structure):
    """``alchemist_call``. Its fields are defined below, after :class:`Api`, which refers to it."""


CallPointer = POINTER(CCall)

Fail = ctypes.CFUNCTYPE(c_int32, CallPointer, c_int32, c_char_p, c_int64, c_char_p)
Log = ctypes.CFUNCTYPE(None, CallPointer, c_int32, c_char_p)
CProgress = ctypes.CFUNCTYPE(None, CallPointer, c_double, c_double, c_char_p)
CheckCancelled = ctypes.CFUNCTYPE(c_int32, CallPointer)
SetResult = ctypes.CFUNCTYPE(c_int32, CallPointer, c_char_p, POINTER(CValue))
NewMatrix = ctypes.CFUNCTYPE(c_void_p, CallPointer, c_int64, c_int64, c_int32, c_char_p, POINTER(CMatrix))
CopyMatrix = ctypes.CFUNCTYPE(c_void_p, CallPointer, POINTER(CMatrix), c_char_p, c_int32)
Scalapack = ctypes.CFUNCTYPE(c_int32, CallPointer, POINTER(CMatrix), POINTER(c_int32))
Scratch = ctypes.CFUNCTYPE(c_void_p, CallPointer)


class Api(ctypes.Structure):
    """``alchemist_api``."""

    _fields_ = (
        ("size", c_int64),
        ("fail", Fail),
        ("log", Log),
        ("progress", CProgress),
        ("check_cancelled", CheckCancelled),
        ("set_result", SetResult),
        ("new_matrix", NewMatrix),
        ("copy_matrix", CopyMatrix),
        ("scalapack", Scalapack),
        ("scratch", Scratch),
    )


CCall._fields_ = (
    ("api", POINTER(Api)),
    ("comm", HANDLE_TYPE),
    ("rank", c_int32),
    ("size", c_int32),
    ("count", c_int32),
    ("parameters", POINTER(CParameter)),
    ("arguments", POINTER(CValue)),
    ("key", c_int64),
)

CRun = ctypes.CFUNCTYPE(c_int32, CallPointer)


class CTask(ctypes.Structure):
    """``alchemist_task``."""

    _fields_ = (
        ("name", c_char_p),
        ("doc", c_char_p),
        ("parameters", POINTER(CParameter)),
        ("results", POINTER(CResult)),
        ("run", CRun),
    )


class CBox(ctypes.Structure):
    """``alchemist_box``."""

    _fields_ = (
        ("ndim", c_int32),
        ("shape", c_int64 * MAX_DIMENSIONS),
        ("low", c_double),
        ("high", c_double),
        ("lows", POINTER(c_double)),
        ("highs", POINTER(c_double)),
        ("names", POINTER(c_char_p)),
        ("units", POINTER(c_char_p)),
    )


class CField(ctypes.Structure):
    """``alchemist_field``."""

    _fields_ = (
        ("ny", c_int64),
        ("nx", c_int64),
        ("name", c_char_p),
        ("unit", c_char_p),
        ("low", c_double),
        ("high", c_double),
    )


class CSimulator(ctypes.Structure):
    """``alchemist_simulator``."""

    _fields_ = (
        ("name", c_char_p),
        ("doc", c_char_p),
        ("parameters", POINTER(CParameter)),
        ("create", ctypes.CFUNCTYPE(c_int32, CallPointer, POINTER(c_void_p))),
        ("spaces", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, POINTER(CBox), POINTER(CBox))),
        ("reset", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, POINTER(c_int64))),
        ("step", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, c_void_p)),
        ("get_state", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, c_void_p)),
        ("get_score", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, POINTER(c_double))),
        ("is_finished", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, POINTER(c_int32))),
        ("destroy", ctypes.CFUNCTYPE(None, c_void_p)),
        ("info_names", POINTER(c_char_p)),
        ("get_info", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, POINTER(c_double))),
        ("describe_field", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, POINTER(CField))),
        ("get_field", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, c_void_p)),
        ("snapshot_bytes", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, POINTER(c_int64))),
        ("snapshot", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, c_void_p)),
        ("restore", ctypes.CFUNCTYPE(c_int32, CallPointer, c_void_p, c_void_p)),
        ("work_unit", c_char_p),
        ("work_per_step", ctypes.CFUNCTYPE(c_double, c_void_p)),
    )


SIMULATOR_BYTES_1: int = CSimulator.info_names.offset
"""Bytes of a simulator of version 1, whose last field is ``destroy``."""


class CLibraryDescription(ctypes.Structure):
    """``alchemist_library_description``."""

    _fields_ = (
        ("abi_version", c_int32),
        ("comm_bytes", c_int32),
        ("version", c_char_p),
        ("doc", c_char_p),
        ("tasks", POINTER(CTask)),
        ("simulator", POINTER(CSimulator)),
        ("simulator_bytes", c_int64),  # not in version 1
    )
