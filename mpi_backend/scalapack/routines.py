"""ScaLAPACK routines on distributed matrices.

Every routine takes matrices in a layout that forms a BLACS grid, with square blocks, overwrites them as ScaLAPACK does,
and is collective over their ranks. ScaLAPACK sees each matrix as its transpose (see :mod:`.grids`), so it factorises
the transpose; each docstring says what this means for the caller.

The element type selects the prefix of a routine's name: ``s`` and ``d`` for real, ``c`` and ``z`` for complex numbers.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.scalapack.grids import descriptor
from alchemist_ray.mpi_backend.scalapack.loader import libraries

Array = npt.NDArray[Any]

_PREFIX = {"f": "s", "d": "d", "F": "c", "D": "z"}
_HIDDEN_LENGTH = ctypes.c_size_t(1)  # Fortran passes the length of each character argument after all others


def _call(name: str, dtype: np.dtype[Any], *arguments: Any) -> None:
    """Call a Fortran routine; ``?`` in `name` stands for the prefix of `dtype`."""
    routine = libraries().function(name.replace("?", _PREFIX[dtype.char]) + "_")
    characters = sum(isinstance(argument, bytes) for argument in arguments)
    routine(*map(_by_reference, arguments), *[_HIDDEN_LENGTH] * characters)


def _by_reference(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, (int, np.integer)):
        return ctypes.byref(ctypes.c_int(int(argument)))
    return argument


def _whole(A: DistMatrix) -> tuple[Any, ...]:
    """Return the four arguments for the whole of `A`: local block, first row, first column, descriptor."""
    return A.local, 1, 1, descriptor(A)


def _call_with_workspace(name: str, A: DistMatrix, before: tuple[Any, ...], after: tuple[Any, ...] = ()) -> int:
    """Call ``name(*before, work, lwork, *after, info)`` with the workspace that it asks for; return info."""
    dtype, info = A.dtype, np.zeros(1, np.int32)
    size = np.zeros(1, dtype)
    _call(name, dtype, *before, size, -1, *after, info)
    # The size is returned as a floating-point number: in single precision a large one may have been rounded down.
    lwork = int(np.nextafter(size.real[0], np.inf)) + 1
    with Agreement(A.comm):
        work = np.empty(lwork, dtype)
    _call(name, dtype, *before, work, lwork, *after, info)
    return int(info[0])


def gesvd(A: DistMatrix) -> tuple[DistMatrix, Array, DistMatrix, int]:
    """Return U, S, Vt and info of the economy-size SVD of `A` (p?gesvd); `A` is destroyed.

    ScaLAPACK computes the SVD A^T = V S U^T. Its V in column-major order is Vt in row-major order; likewise U.
    """
    m, n = A.shape
    p = min(m, n)
    with Agreement(A.comm):
        U, Vt = A.new((m, p), A.layout), A.new((p, n), A.layout)
    S = np.zeros(p, A.local.real.dtype)
    rwork = (np.empty(4 * max(m, n) + 1, S.dtype),) if A.dtype.kind == "c" else ()
    info = _call_with_workspace("p?gesvd", A, (b"V", b"V", n, m, *_whole(A), S, *_whole(Vt), *_whole(U)), rwork)
    return U, S, Vt, info
