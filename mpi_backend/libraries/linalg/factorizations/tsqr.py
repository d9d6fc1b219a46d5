"""QR of a tall matrix that is distributed by rows: a binary tree of small factorisations.

Every rank factors its own rows. Then, level by level, one of two neighbours stacks both triangles and factors the
stack, until rank 0 has R. To apply Q to a small matrix, the ranks walk the tree in the other direction, so only this
small matrix is communicated. The result is as accurate as Householder QR of the whole matrix, for any condition number.

Source: J. Demmel, L. Grigori, M. Hoemmen, J. Langou, *Communication-optimal parallel and sequential QR and LU
factorizations*, SIAM J. Sci. Comput. 34 (2012), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.mpi_backend.ali import TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import stopping

Array = npt.NDArray[Any]


class TSQR:
    """The QR factors of a tall matrix. Creating one is collective over comm.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the matrix.
    local : ndarray, shape (mloc, n)
        This rank's rows, possibly none; the rows may be distributed over the ranks in any order.
    factorise : callable
        Function that returns Q and R of this rank's rows.

    Attributes
    ----------
    R : ndarray, shape (min(m, n), n)
        The triangular factor, bitwise equal on every rank; exactly zero below the diagonal.
    """

    def __init__(self, comm: MPI.Comm, local: Array, factorise: Callable[[Array], Any] = np.linalg.qr) -> None:
        self._comm = comm
        self._leaf, R = factorise(local)
        self._nodes: list[tuple[int, Array, int]] = []  # partner, Q of the stack, number of this rank's rows in it
        self._parent: int | None = None
        self._heights = comm.allgather(R.shape[0])
        R = self._climb(np.ascontiguousarray(R))
        top = min(sum(self._heights), local.shape[1])
        self.R = R if comm.rank == 0 else np.empty((top, local.shape[1]), local.dtype)
        comm.Bcast(self.R)

    @classmethod
    def of(cls, ctx: TaskContext, local: Array, m: int) -> Self:
        """Return the factors of a matrix of `m` rows; long work stops if the task is cancelled. Collective."""
        n = local.shape[1]
        count = 4 * n * n * m / ctx.comm.size
        return cls(ctx.comm, local, lambda A: stopping.on_each_rank(ctx, count, A.dtype, lambda: np.linalg.qr(A)))

    def _climb(self, R: Array) -> Array:
        """Combine triangles towards rank 0; return the last triangle of this rank."""
        comm, n, step = self._comm, R.shape[1], 1
        heights = list(self._heights)
        while step < comm.size:
            if comm.rank % (2 * step):
                self._parent = comm.rank - step
                comm.Send(R, self._parent)
                break
            partner = comm.rank + step
            if partner < comm.size:
                other = np.empty((heights[partner], n), R.dtype)
                comm.Recv(other, partner)
                Q, stacked = np.linalg.qr(np.concatenate([R, other]))
                self._nodes.append((partner, Q, R.shape[0]))
                R = np.ascontiguousarray(stacked)
            heights = [
                min(h + (heights[r + step] if r + step < comm.size else 0), n) if r % (2 * step) == 0 else h
                for r, h in enumerate(heights)
            ]
            step *= 2
        return R

    def apply(self, Y: Array) -> Array:
        """Return this rank's rows of Q Y; every rank passes the same Y, shape (min(m, n), k). Collective over comm."""
        Y = np.ascontiguousarray(Y)
        if self._parent is not None:
            height = self._nodes[-1][1].shape[1] if self._nodes else self._leaf.shape[1]
            Y = np.empty((height, Y.shape[1]), Y.dtype)
            self._comm.Recv(Y, self._parent)
        for partner, Q, mine in reversed(self._nodes):
            self._comm.Send(np.ascontiguousarray(Q[mine:] @ Y), partner)
            Y = Q[:mine] @ Y
        W: Array = self._leaf @ Y
        return W

    def apply_adjoint(self, W: Array) -> Array:
        """Return Q^H W on every rank; each rank passes its rows of W, shape (mloc, k). Collective over comm."""
        Y = np.ascontiguousarray(self._leaf.conj().T @ W)
        for partner, Q, mine in self._nodes:
            other = np.empty((Q.shape[0] - mine, Y.shape[1]), Y.dtype)
            self._comm.Recv(other, partner)
            Y = np.ascontiguousarray(Q[:mine].conj().T @ Y + Q[mine:].conj().T @ other)
        if self._parent is not None:
            self._comm.Send(Y, self._parent)
            Y = np.empty((self.R.shape[0], Y.shape[1]), Y.dtype)
        self._comm.Bcast(Y)
        return Y

    def q(self) -> Array:
        """Return this rank's rows of Q, shape (mloc, min(m, n)). Collective over comm."""
        return self.apply(np.eye(self.R.shape[0], dtype=self.R.dtype))
