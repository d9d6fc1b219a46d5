"""BLAS on parts of local blocks, in place, and LAPACK.

The blocked factorisations update a corner of a block many times. NumPy's products would need a temporary for this, and
SciPy's wrappers copy arrays that are not contiguous; BLAS itself takes a leading dimension and needs neither. This
module calls SciPy's own BLAS, which SciPy offers to compiled code (``scipy.linalg.cython_blas``). Arrays may have
either order and may be parts of larger ones, if the elements of a row or of a column are adjacent.

BLAS stores matrices by columns. It sees an array stored by rows as its transpose, hence the flags.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PREFIX = {"f": "s", "d": "d", "F": "c", "D": "z"}


def subtract_product(C: Array, A: Array, B: Array) -> None:
    """Overwrite C with C - A B (?gemm). Local."""
    (m, n), k = C.shape, A.shape[1]
    if 0 in (m, n, k):
        return
    if not _by_columns(C):
        subtract_product(C.T, B.T, A.T)
        return
    one = np.ones(1, C.dtype)
    (trans_a, lda), (trans_b, ldb) = _as_stored(A), _as_stored(B)
    _call("gemm", C.dtype, trans_a, trans_b, m, n, k, -one, A, lda, B, ldb, one, C, _leading(C))


def solve_triangle(T: Array, B: Array, *, lower: bool, unit: bool = False) -> None:
    """Overwrite B with the solution X of T X = B (?trsm); only one triangle of T is read. Local.

    ``X T = B`` is ``T^T X^T = B^T``: pass transposed views and the other triangle.
    """
    if B.size == 0:
        return
    if not unit and np.abs(np.diagonal(T)).min() < np.finfo(T.dtype).tiny:
        _substitute(T, B, lower=lower)
        return
    left = _by_columns(B)
    stored = B if left else B.T
    trans, ldt = _as_stored(T)
    # To BLAS, T stored by rows is the opposite triangle, and B stored by rows moves T^T to the other side.
    uplo = b"L" if lower == (trans == b"N") else b"U"
    if not left:
        trans = b"T" if trans == b"N" else b"N"
    m, n = stored.shape
    one = np.ones(1, B.dtype)
    arguments = (m, n, one, T, ldt, B, _leading(stored))
    _call("trsm", B.dtype, b"L" if left else b"R", uplo, trans, b"U" if unit else b"N", *arguments)


def _substitute(T: Array, B: Array, *, lower: bool) -> None:
    """Do the same as :func:`solve_triangle`, row by row and by divisions. Local.

    BLAS multiplies by reciprocals of the diagonal, which overflow for subnormal numbers.
    """
    n = len(T)
    with np.errstate(all="ignore"):
        for i in range(n) if lower else reversed(range(n)):
            _divide(B[i], T[i, i])
            rest = slice(i + 1, n) if lower else slice(0, i)
            B[rest] -= np.multiply.outer(T[rest, i], B[i])


def _divide(row: Array, pivot: Any) -> None:
    """Divide `row` in place by `pivot`, scaled to about 1 because NumPy may also divide by a reciprocal."""
    exponent = math.frexp(max(abs(pivot.real), abs(pivot.imag)))[1]
    real, imaginary = math.ldexp(pivot.real, -exponent), math.ldexp(pivot.imag, -exponent)
    row /= row.dtype.type(complex(real, imaginary) if row.dtype.kind == "c" else real)
    for part in (row.real, row.imag) if row.dtype.kind == "c" else (row,):
        np.ldexp(part, -exponent, out=part)


def lapack(name: str, A: Array) -> Any:
    """Return SciPy's wrapper of the LAPACK routine `name` for the type of `A`."""
    from scipy.linalg import get_lapack_funcs  # imported late: it takes longer than a worker takes to start

    (routine,) = get_lapack_funcs((name,), (A,))
    return routine


def _by_columns(A: Array) -> bool:
    """Whether the elements of each column are adjacent."""
    return A.shape[0] == 1 or A.strides[0] == A.itemsize


def _leading(A: Array) -> int:
    """Return the leading dimension of an array stored by columns."""
    leading: int = A.strides[1] // A.itemsize if A.shape[1] > 1 else 1
    return max(int(A.shape[0]), leading)


def _as_stored(A: Array) -> tuple[bytes, int]:
    """Return BLAS' transpose flag for `A`, and its leading dimension."""
    return (b"N", _leading(A)) if _by_columns(A) else (b"T", _leading(A.T))


def _call(name: str, dtype: np.dtype[Any], *arguments: Any) -> None:
    _routine(_PREFIX[dtype.char] + name)(*map(_by_reference, arguments))


def _by_reference(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.byref(ctypes.c_int(argument)) if isinstance(argument, int) else argument


@functools.cache
def _routine(name: str) -> Any:
    """Return a routine of SciPy's BLAS as a function of pointers."""
    from scipy.linalg import cython_blas  # imported late: it takes longer than a worker takes to start

    capsule = cython_blas.__pyx_capi__[name]
    signature = ctypes.pythonapi.PyCapsule_GetName
    signature.restype, signature.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None)(pointer(capsule, signature(capsule)))
