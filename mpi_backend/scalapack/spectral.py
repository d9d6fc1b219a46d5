"""ScaLAPACK's routines for eigenvalues and singular values of distributed matrices.

As in :mod:`.routines`, matrices lie on a BLACS grid in square blocks and are overwritten, and ScaLAPACK sees their
transposes. The transpose of a Hermitian A is its conjugate: it has the same eigenvalues and conjugate eigenvectors, and
the lower triangle of A is its upper one. A general A has the same eigenvalues as its transpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix
from alchemist_ray.mpi_backend.scalapack.routines import _call, _call_with_workspace, _whole

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Wanted:
    """Selection of eigenvalues: all, a range of indices, or an interval.

    Attributes
    ----------
    indices : (int, int) or None
        First and last index, counted from 0 in ascending order.
    interval : (float, float) or None
        The half-open interval ``(low, high]``.
    """

    indices: tuple[int, int] | None = None
    interval: tuple[float, float] | None = None


def heevd(A: DistMatrix, lower: bool) -> tuple[Array, DistMatrix, int]:
    """Return all eigenvalues of a Hermitian `A` in ascending order, V^H and info, by divide and conquer.

    Calls p?syevd or p?heevd, which read one triangle of `A`; `A` is destroyed.
    """
    n = A.shape[0]
    w = np.zeros(n, A.local.real.dtype)
    with Agreement(A.comm):
        Vh = A.new(A.shape, A.layout)
    before = (b"V", _uplo(lower), n, *_whole(A), w, *_whole(Vh))
    info = _call_with_workspaces(_hermitian("p?{}evd", A.dtype), A, before)
    return w, Vh, info


def heevr(A: DistMatrix, lower: bool, indices: tuple[int, int] | None) -> tuple[Array, int]:
    """Return eigenvalues of a Hermitian `A` in ascending order, and info (p?syevr, p?heevr without vectors).

    Returns all eigenvalues, or those from the first to the last of the two `indices`, which count from 0. One triangle
    of `A` is read; `A` is destroyed. This function does not offer the vectors of these routines: for clustered
    eigenvalues MKL's vectors lose orthogonality by 1e5 times the rounding error, with info = 0.
    """
    n = A.shape[0]
    real = A.local.real.dtype
    w, found, computed = np.zeros(n, real), np.zeros(1, np.int32), np.zeros(1, np.int32)
    first, last = indices or (0, n - 1)
    no_interval = np.zeros(1, real)
    before = (
        *(b"N", b"I" if indices else b"A", _uplo(lower), n, *_whole(A)),
        *(no_interval, no_interval, first + 1, last + 1, found, computed, w, *_whole(A)),
    )
    info = _call_with_workspaces(_hermitian("p?{}evr", A.dtype), A, before)
    return w[: int(found[0])], info


def _hermitian(name: str, dtype: np.dtype[Any]) -> str:
    return name.format("he" if dtype.kind == "c" else "sy")


def _uplo(lower: bool) -> bytes:
    return b"U" if lower else b"L"


def _call_with_workspaces(name: str, A: DistMatrix, before: tuple[Any, ...]) -> int:
    """Call ``name(*before, work, lwork, [rwork, lrwork,] iwork, liwork, info)`` with its workspaces; return info.

    The workspace that p?syevd asks for is too small for the block of reflectors that p?ormtr applies; we add it here.
    """
    dtype, real = A.dtype, A.local.real.dtype
    info = np.zeros(1, np.int32)
    kinds = [dtype, real, np.dtype(np.int32)] if dtype.kind == "c" else [dtype, np.dtype(np.int32)]
    asked = [np.zeros(3, kind) for kind in kinds]  # some routines write more than one number
    _call(name, dtype, *before, *(part for size in asked for part in (size, -1)), info)
    mb = A.layout.block[0]
    reflectors = (A.rows.size + A.cols.size + 2 * mb) * mb
    # Sizes are returned as floating-point numbers: in single precision a large one may have been rounded down.
    sizes = [reflectors + 1 + int(float(size[0].real) * (1 + 2.0**-22)) for size in asked]
    with Agreement(A.comm):
        spaces = [np.empty(size, kind) for size, kind in zip(sizes, kinds, strict=True)]
    _call(name, dtype, *before, *(part for space in spaces for part in (space, space.size)), info)
    return int(info[0])


def gehrd(A: DistMatrix) -> None:
    """Reduce A^T to upper Hessenberg form H in place (p?gehrd), A^T = Q H Q^H.

    On return `A` is H^T. Above its first superdiagonal, where H^T is zero, it holds the reflectors.
    """
    n = A.shape[0]
    tau = np.empty(A.cols.size + A.rows.size + 1, A.dtype)
    _call_with_workspace("p?gehrd", A, (n, 1, n, *_whole(A), tau))


def hseqr(H: Array) -> Array:
    """Return the eigenvalues of an upper Hessenberg matrix; `H` is its transpose in C order (LAPACK's ?hseqr). Local.

    Raises
    ------
    numpy.linalg.LinAlgError
        If an eigenvalue does not converge.
    """
    n, dtype = len(H), H.dtype
    parts = [np.zeros(n, dtype) for _ in range(1 if dtype.kind == "c" else 2)]
    info, size = np.zeros(1, np.int32), np.zeros(1, dtype)
    before = (b"E", b"N", n, 1, n, H, n, *parts, np.zeros(1, dtype), 1)
    _call("?hseqr", dtype, *before, size, -1, info)
    lwork = max(n, int(size[0].real)) + 1
    _call("?hseqr", dtype, *before, np.empty(lwork, dtype), lwork, info)
    if info[0]:
        raise np.linalg.LinAlgError(f"{info[0]} eigenvalues did not converge in ?hseqr")
    return parts[0] if dtype.kind == "c" else parts[0] + 1j * parts[1]


def singular_values(A: DistMatrix) -> tuple[Array, int]:
    """Return the singular values of `A` in descending order, and info (p?gesvd, no vectors); `A` is destroyed."""
    m, n = A.shape
    S = np.zeros(min(m, n), A.local.real.dtype)
    rwork = (np.empty(4 * max(m, n) + 1, S.dtype),) if A.dtype.kind == "c" else ()
    info = _call_with_workspace("p?gesvd", A, (b"N", b"N", n, m, *_whole(A), S, *_whole(A), *_whole(A)), rwork)
    return S, info
