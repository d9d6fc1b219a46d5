"""Let each allocation of each linear algebra task fail in turn; print where no :class:`Agreement` saw it.

At such a place a rank without memory would raise alone, and the others would wait for it in MPI forever. One
process can show this without waiting. One rank solves the small problems first; then all ranks share the work
of each task. The last line is the number of failures.
"""

import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from mpi4py import MPI

from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import linalg
from alchemist_ray.mpi_backend.libraries.linalg import small_problems
from alchemist_ray.mpi_backend.libraries.linalg.spectral import eigenvalues, full_svd, hermitian
from alchemist_ray.mpi_backend.libraries.linalg.spectral import polar_decomposition as polar
from alchemist_ray.mpi_backend.matrices.agreement import Agreement
from alchemist_ray.mpi_backend.scalapack.spectral import Wanted

comm = MPI.COMM_WORLD
rng = np.random.default_rng(0)


class NoRoom(MemoryError):
    agreed = False


class Memory:
    """Counts allocations, and lets one of them fail."""

    count = failing = 0

    def allocate(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        self.count += 1
        if self.count == self.failing:
            raise NoRoom
        return np.empty(shape, dtype)

    def failing_at(self, count: int, work: Callable[[], Any]) -> NoRoom | None:
        """Return the error when the allocation after this many fails, or None if there are not so many."""
        self.count, self.failing = -1, count
        try:
            work()
        except NoRoom as failure:
            return failure
        return None


memory = Memory()
ctx = TaskContext(comm, "linalg.case", allocate=memory.allocate)
leave = Agreement.__exit__


def noticed(
    self: Agreement, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
) -> None:
    if isinstance(failure, NoRoom):
        failure.agreed = True
    leave(self, kind, failure, trace)


Agreement.__exit__ = noticed  # type: ignore[method-assign]  # to see which errors pass an agreement


def dealt(A: np.ndarray[Any, Any], pair: str = "MC_MR") -> DistMatrix:
    return DistMatrix(comm, A.shape, Layout.of(pair, A.shape, comm.size), A, memory.allocate)


def normal(m: int, n: int, pair: str = "MC_MR") -> DistMatrix:
    return dealt(rng.standard_normal((m, n)) + 1j * rng.standard_normal((m, n)), pair)


def real(m: int, n: int) -> DistMatrix:
    return dealt(rng.standard_normal((m, n)), "VC_STAR")


def cases() -> dict[str, Callable[[], Any]]:
    S, T, W, b = normal(40, 40), normal(100, 20), normal(20, 100), normal(40, 3)
    H, P = dealt(S.local + S.local.conj().T), dealt(S.local @ S.local.conj().T)
    X, Y, bT, bW = real(60, 5), real(60, 2), normal(100, 3), normal(20, 3)
    rows, small = normal(100, 4, "VC_STAR"), normal(4, 4)
    lu, cho = linalg.lu_factor(ctx, S), linalg.cholesky(ctx, P)
    return {
        "gemm": lambda: linalg.gemm(ctx, S, S),
        "gemm, inner": lambda: linalg.gemm(ctx, T, T, transpose_a=True),
        "gemm, rows": lambda: linalg.gemm(ctx, rows, small),
        "solve": lambda: linalg.solve(ctx, S, b),
        "solve, pos": lambda: linalg.solve(ctx, P, b, assume_a="pos"),
        "solve, triangular": lambda: linalg.solve(ctx, P, b, assume_a="upper triangular"),
        "inv": lambda: linalg.inv(ctx, S),
        "lu": lambda: linalg.lu(ctx, S),
        "lu, permuted": lambda: linalg.lu(ctx, S, permute_l=True),
        "lu_factor": lambda: linalg.lu_factor(ctx, S),
        "lu_solve": lambda: linalg.lu_solve(ctx, *lu, b),
        "slogdet": lambda: linalg.slogdet(ctx, S),
        "cholesky": lambda: linalg.cholesky(ctx, P),
        "cho_solve": lambda: linalg.cho_solve(ctx, cho, b),
        "condest": lambda: linalg.condest(ctx, S),
        "qr, tall": lambda: linalg.qr(ctx, T),
        "qr, square": lambda: linalg.qr(ctx, S),
        "qr, wide": lambda: linalg.qr(ctx, W),
        "qr, pivoting": lambda: linalg.qr(ctx, S, pivoting=True),
        "qr, r": lambda: linalg.qr(ctx, T, mode="r"),
        "lstsq, tall": lambda: linalg.lstsq(ctx, T, bT),
        "lstsq, wide": lambda: linalg.lstsq(ctx, W, bW),
        "gelsy, tall": lambda: linalg.lstsq(ctx, T, bT, lapack_driver="gelsy"),
        "gelsy, wide": lambda: linalg.lstsq(ctx, W, bW, lapack_driver="gelsy"),
        "svd, triangle": lambda: linalg.svd(ctx, T),
        "svd": lambda: linalg.svd(ctx, S),
        "svd, full": lambda: linalg.svd(ctx, T, full_matrices=True),
        "svd, all ranks": lambda: full_svd.on_all_ranks(ctx, S, False, True),
        "svd, all ranks, full": lambda: full_svd.on_all_ranks(ctx, normal(80, 50), True, True),
        "eigh": lambda: linalg.eigh(ctx, H),
        "eigh, all ranks": lambda: hermitian.on_all_ranks(ctx, H, True, Wanted(indices=(2, 5)), True),
        "eigh, nothing": lambda: hermitian.on_all_ranks(ctx, H, True, Wanted(interval=(1e3, 1e4)), True),
        "eigvals": lambda: linalg.eigvals(ctx, S),
        "eigvals, all ranks": lambda: eigenvalues.values_on_all_ranks(ctx, S),
        "eig": lambda: linalg.eig(ctx, S),
        "expm": lambda: linalg.expm(ctx, S),
        "pinv": lambda: linalg.pinv(ctx, S),
        "polar": lambda: linalg.polar(ctx, S),
        "polar, left": lambda: linalg.polar(ctx, T, side="left"),
        "polar, iteration": lambda: polar.by_iteration(ctx, S, "right"),
        "truncated_svd": lambda: linalg.truncated_svd(ctx, T, 3),
        "truncated_svd, krylov": lambda: linalg.truncated_svd(ctx, dealt(rng.random((90, 80))), 1, method="krylov"),
        "truncated_svd, wide": lambda: linalg.truncated_svd(ctx, W, 3, method="randomized"),
        "norm": lambda: linalg.norm(ctx, S, 2),
        "norm, columns": lambda: linalg.norm(ctx, S, "fro", 0),
        "sum": lambda: linalg.sum(ctx, S, 0),
        "transpose": lambda: linalg.transpose(ctx, S),
        "elementwise": lambda: linalg.elementwise(ctx, "add", S, S),
        "pca": lambda: linalg.pca(ctx, X),
        "pca, wide": lambda: linalg.pca(ctx, real(5, 60)),
        "kmeans": lambda: linalg.kmeans(ctx, X, 3),
        "cx": lambda: linalg.cx(ctx, S, 3),
        "ridge_cg": lambda: linalg.ridge_cg(ctx, X, Y),
        "rf_ridge": lambda: linalg.rf_ridge(ctx, X, Y, 20),
        "random_features": lambda: linalg.random_features(ctx, X, 20),
    }


def place(failure: NoRoom) -> str:
    frames = [frame for frame in traceback.extract_tb(failure.__traceback__) if "/linalg/" in frame.filename]
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"


def main() -> None:
    small_problems.REPLICATED = -1  # every rank would solve them, and the worker find the memory for their results
    failures = failures_of("one rank, ")
    small_problems.LARGEST.clear()
    print(failures + failures_of(""))


def failures_of(how: str) -> int:
    failures = memory.failing = 0
    for name, work in cases().items():
        at = 0
        while (failure := memory.failing_at(at, work)) is not None:
            if not failure.agreed:
                print(f"{how}{name}: allocation {at} at {place(failure)}")
            failures, at = failures + 1, at + 1
    return failures


if __name__ == "__main__":
    main()
