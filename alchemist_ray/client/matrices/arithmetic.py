"""Arithmetic of matrix handles: operators and methods that run tasks of the library ``linalg``; results are handles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import DetachedHandleError
from alchemist_ray.layouts.choice import Blocks, GridShape, LayoutChoice
from alchemist_ray.layouts.layout import Layout

if TYPE_CHECKING:
    from alchemist_ray.client.matrices.handle import MatrixHandle

Number = int | float | complex | np.number[Any]


class Computes(Protocol):
    """What runs the tasks: a session."""

    def run_task(self, library: str, task: str, /, **arguments: Any) -> Any:
        """Run a task of a library."""

    def send_matrix(self, matrix: npt.ArrayLike) -> MatrixHandle:
        """Send a matrix to the workers."""


class Arithmetic:
    """What can be computed with a matrix on the workers. Operands are handles, numbers, or arrays, which are sent.

    Element types are NumPy's: a number does not widen a matrix of its own kind (``2.5 * A`` of a float32 matrix is
    float32). Each raises what its task raises: :class:`~alchemist_ray.errors.ArgumentValueError` where shapes do not
    fit, :class:`~alchemist_ray.errors.ArgumentError` for element types that cannot be computed with,
    :class:`~alchemist_ray.errors.DetachedHandleError` where the handle has left the process of its session.
    """

    __array_ufunc__ = None  # array + handle is ours to compute

    _session: Computes | None

    def _computing(self) -> Computes:
        if self._session is None:
            raise DetachedHandleError
        return self._session

    def _compute(self, task: str, /, **arguments: Any) -> Any:
        return self._computing().run_task("linalg", task, **arguments)

    def _operand(self, other: Any) -> Any:
        """Return `other` as a handle or a number; NotImplemented if it is neither."""
        if isinstance(other, (Arithmetic, int, float, complex, np.number, np.bool_)):
            return other
        if isinstance(other, np.ndarray):
            return self._computing().send_matrix(other)
        return NotImplemented

    def _elementwise(self, operation: str, other: Any, swapped: bool = False) -> Any:
        operand = self._operand(other)
        if operand is NotImplemented:
            return NotImplemented
        left, right = (operand, self) if swapped else (self, operand)
        return self._compute("elementwise", operation=operation, A=left, B=right)

    # --- element by element -------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        return self._elementwise("add", other)

    def __radd__(self, other: Any) -> Any:
        return self._elementwise("add", other, swapped=True)

    def __sub__(self, other: Any) -> Any:
        return self._elementwise("subtract", other)

    def __rsub__(self, other: Any) -> Any:
        return self._elementwise("subtract", other, swapped=True)

    def __mul__(self, other: Any) -> Any:
        return self._elementwise("multiply", other)

    def __rmul__(self, other: Any) -> Any:
        return self._elementwise("multiply", other, swapped=True)

    def __truediv__(self, other: Any) -> Any:
        return self._elementwise("divide", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._elementwise("divide", other, swapped=True)

    def __neg__(self) -> Any:
        return self._compute("elementwise", operation="negative", A=self)

    def __abs__(self) -> Any:
        return self._compute("elementwise", operation="absolute", A=self)

    def astype(self, dtype: npt.DTypeLike) -> Any:
        """Return the matrix with elements of `dtype`, one of :data:`.DTYPES`, in the same layout."""
        return self._compute("astype", A=self, dtype=np.dtype(dtype).name)

    def conj(self) -> Any:
        """Return the complex conjugate, in the same layout."""
        return self._compute("conj", A=self)

    # --- products -----------------------------------------------------------------------------------------------------

    def __matmul__(self, other: Any) -> Any:
        operand = self._operand(other)
        return self._compute("gemm", A=self, B=operand) if isinstance(operand, Arithmetic) else NotImplemented

    def __rmatmul__(self, other: Any) -> Any:
        operand = self._operand(other)
        return self._compute("gemm", A=operand, B=self) if isinstance(operand, Arithmetic) else NotImplemented

    # --- rearranged ---------------------------------------------------------------------------------------------------

    @property
    def T(self) -> Any:
        """The transpose, shape (n, m), every element on the worker where it was."""
        return self._compute("transpose", A=self)

    @property
    def H(self) -> Any:
        """The conjugate transpose, shape (n, m), every element on the worker where it was."""
        return self._compute("transpose", A=self, conjugate=True)

    def relayout(
        self,
        layout: str | Layout,
        *,
        block_size: Blocks | None = None,
        grid: GridShape | None = None,
        align: tuple[int, int] | None = None,
    ) -> Any:
        """Return the same matrix in another layout, exchanged among the workers.

        Parameters
        ----------
        layout : str or Layout
            Name of the distribution pair, e.g. ``"STAR_VR"``, or a whole layout.
        block_size : int or (int, int), optional
            Rows and columns of a block; by default what suits the shape.
        grid : (int, int), optional
            Rows and columns of the process grid; by default the most square one.
        align : (int, int), optional
            The positions that get the first block of rows and of columns.

        Raises
        ------
        LayoutError
            If there is no such layout, or it does not fit the workers.
        MatrixMemoryError
            If the workers have no room for a second copy.
        """
        return self._compute("relayout", A=self, layout=LayoutChoice.of(layout, block_size, grid, align).to_wire())

    # --- reduced ------------------------------------------------------------------------------------------------------

    def sum(self, axis: int | None = None) -> Any:
        """Return the sum of all elements, or a handle of the sums along `axis`: shape (1, n) for 0, (m, 1) for 1."""
        return self._compute("sum", A=self, axis=axis)

    def norm(self, ord: str | int | float = "fro") -> float:  # noqa: A002 - the name that NumPy and SciPy have for it
        """Return a norm: "fro", 1 (largest column sum), inf (largest row sum) or "max" (largest element)."""
        norm: float = self._compute("norm", A=self, ord=ord)
        return norm
