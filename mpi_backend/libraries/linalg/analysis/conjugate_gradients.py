"""Regularised least squares with many right-hand sides by conjugate gradients on the normal equations.

    (Z^H Z + shift I) X = Z^H Y

Each column has its own iteration, and all columns share the products, which run at the speed of a matrix product: P is
gathered on every rank, each rank multiplies its rows of Z by it, panel by panel, and the contributions of the ranks to
Z^H (Z P) are added up and distributed. The rows of X, R and P are distributed over the ranks, so no rank repeats their
memory or work. A converged column is left out of later iterations.

The residual of the recurrence drifts away from the true residual. So when all columns have converged, the true residual
is computed and the iteration restarts from it, as long as that improves the result.

Sources: Å. Björck, *Numerical Methods for Least Squares Problems*, SIAM 1996, section 7.4; A. Gittens et al., KDD 2018,
293 (for random features of speech data).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.libraries.linalg.analysis.samples import Samples
from alchemist_ray.mpi_backend.libraries.linalg.scaling import shift_exponents

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
ReportIteration = Callable[[int, float], None]

_RESTARTS = 5


class Panels(Protocol):
    """A matrix that yields panels of this rank's rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the whole matrix."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        ...

    def panels(self) -> Iterator[tuple[slice, Any]]:
        """Yield ranges of this rank's rows, and the rows themselves, dense or sparse."""
        ...


@dataclass(frozen=True)
class WholePanel:
    """Stored samples as a single panel."""

    samples: Samples

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the whole matrix."""
        return self.samples.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.samples.dtype

    def panels(self) -> Iterator[tuple[slice, Any]]:
        """Yield all rows of this rank, if there are any."""
        if self.samples.height:
            yield slice(0, self.samples.height), self.samples.local


@dataclass(frozen=True)
class NormalEquations:
    """The normal equations, as the iteration uses them.

    Attributes
    ----------
    comm : MPI.Comm
        The ranks.
    Z : Panels
        The matrix, m x n, distributed by rows.
    shift : float
        The number that is added to the diagonal.
    layout : Layout
        Layout of the n rows of the unknowns, which gives each rank consecutive rows.
    """

    comm: MPI.Comm
    Z: Panels
    shift: float
    layout: Layout

    @property
    def heights(self) -> list[int]:
        """Number of rows of the unknowns on each rank."""
        return [self.layout.part((self.Z.shape[1], 1), rank)[0].size for rank in range(self.comm.size)]

    def right_hand_side(self, Y: Array) -> Array:
        """Return this rank's rows of Z^H Y; each rank passes its rows of Y. Collective over comm."""
        return self._dealt(lambda rows, panel: _adjoint_product(panel, Y[rows]), Y.shape[1])

    def product(self, P: Array) -> Array:
        """Return this rank's rows of (Z^H Z + shift I) P; each rank passes its rows of P. Collective over comm."""
        whole = np.empty((self.Z.shape[1], P.shape[1]), P.dtype)
        self.comm.Allgatherv(np.ascontiguousarray(P), [whole, [h * P.shape[1] for h in self.heights]])
        Q = self._dealt(lambda rows, panel: _adjoint_product(panel, panel @ whole), P.shape[1])
        Q += P.dtype.type(self.shift) * P
        return Q

    def _dealt(self, contribution: Callable[[slice, Any], Array], width: int) -> Array:
        """Return this rank's rows of the sum of the contributions of all panels and ranks. Collective over comm."""
        total = np.zeros((self.Z.shape[1], width), self.Z.dtype)
        for rows, panel in self.Z.panels():
            total += contribution(rows, panel)
        heights = self.heights
        share = np.empty((heights[self.comm.rank], width), self.Z.dtype)
        self.comm.Reduce_scatter(total, share, [h * width for h in heights])
        return share

    def column_dots(self, X: Array, Y: Array) -> Doubles:
        """Return the real parts of the inner products of columns, in double precision. Collective over comm."""
        precise = np.complex128 if X.dtype.kind == "c" else np.float64
        dots: Doubles = np.einsum("ij,ij->j", X.conj(), Y, dtype=precise).real.copy()
        self.comm.Allreduce(MPI.IN_PLACE, dots)
        self.comm.Bcast(dots)
        return dots

    def column_exponents(self, X: Array) -> npt.NDArray[np.int64]:
        """Return for each column the exponent of two of its largest element. Collective over comm."""
        parts = (X.real, X.imag) if X.dtype.kind == "c" else (X,)
        largest = np.max([np.abs(part).max(0, initial=0) for part in parts], 0).astype(np.float64)
        self.comm.Allreduce(MPI.IN_PLACE, largest, MPI.MAX)
        exponents: npt.NDArray[np.int64] = np.frexp(largest)[1].astype(np.int64)
        return exponents


def _adjoint_product(panel: Any, W: Array) -> Array:
    """Return panel^H W. Local."""
    complex_valued = W.dtype.kind == "c"
    product: Array = panel.T @ (np.conjugate(W) if complex_valued else W)
    return np.conjugate(product) if complex_valued else product


@dataclass(frozen=True)
class Solution:
    """The result of the iteration.

    Attributes
    ----------
    X : ndarray
        This rank's rows of the unknowns.
    residuals : ndarray, shape (iterations + 1, c)
        Norms of the residuals relative to those of the right-hand sides, before the first iteration and after each one;
        the last row has the true residuals.
    converged : bool
        Whether all true residuals are within the tolerance.
    """

    X: Array
    residuals: Doubles
    converged: bool


def conjugate_gradients(
    equations: NormalEquations, B: Array, tol: float, max_iterations: int, progress: ReportIteration
) -> Solution:
    """Return the solution of the normal equations for right-hand sides `B`. Collective over comm.

    Parameters
    ----------
    equations : NormalEquations
        The equations.
    B : ndarray, shape (nloc, c)
        This rank's rows of Z^H Y.
    tol : float
        Bound for the relative residual of each column.
    max_iterations : int
        Largest number of iterations.
    progress : callable
        Called with the number of iterations and the largest residual.
    """
    X, B = np.zeros_like(B), B.copy()
    exponents = equations.column_exponents(B)
    shift_exponents(B, -exponents)  # so that squares neither underflow nor overflow in any column
    scale = np.sqrt(equations.column_dots(B, B))
    scale[scale == 0] = 1
    residual, R = np.sqrt(equations.column_dots(B, B)) / scale, B.copy()
    history = [residual]
    for _ in range(_RESTARTS):
        _iterate(equations, X, R, scale, tol, max_iterations + 1 - len(history), history, progress)
        R = B - equations.product(X)
        previous, residual = residual, np.sqrt(equations.column_dots(R, R)) / scale
        if residual.max(initial=0) <= tol or len(history) > max_iterations or not np.any(residual < 0.5 * previous):
            break
    history[-1] = residual
    shift_exponents(X, exponents)
    return Solution(X, np.array(history), bool(residual.max(initial=0) <= tol))


def _iterate(
    equations: NormalEquations,
    X: Array,
    R: Array,
    scale: Doubles,
    tol: float,
    count: int,
    history: list[Doubles],
    progress: ReportIteration,
) -> None:
    """Improve X and its residual R in place by at most `count` iterations. Collective over comm."""
    P = R.copy()
    rho = equations.column_dots(R, R)
    norms = np.sqrt(rho) / scale
    for _ in range(count):
        active = np.flatnonzero(norms > tol)
        if not active.size:
            return
        direction = P[:, active]
        Q = equations.product(direction)
        curvature = equations.column_dots(direction, Q)
        step = np.divide(rho[active], curvature, out=np.zeros(active.size), where=curvature > 0)
        X[:, active] += direction * step.astype(X.real.dtype)
        R[:, active] -= Q * step.astype(X.real.dtype)
        after = equations.column_dots(R[:, active], R[:, active])
        P[:, active] = R[:, active] + direction * (after / rho[active]).astype(X.real.dtype)
        rho[active] = after
        norms = np.sqrt(rho) / scale
        history.append(norms)
        progress(len(history) - 1, float(norms.max()))
        if not step.any():
            return
