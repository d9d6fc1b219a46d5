"""The factors of a product, and the form of the product.

A factor is a stored matrix or its transpose. A transpose moves no data: its blocks are views through ``.T`` in the
transposed layout. Conjugates move no data either (:attr:`Form.conjugate_right`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.layouts.layout import AxisPart, Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import checks

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Operand:
    """A matrix or its transpose as a factor.

    Attributes
    ----------
    stored : DistMatrix
        The matrix as it is stored.
    transposed : bool
        Whether the factor is its transpose.
    """

    stored: DistMatrix
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the factor."""
        m, n = self.stored.shape
        return (n, m) if self.transposed else (m, n)

    @property
    def layout(self) -> Layout:
        """Layout of the factor."""
        return self.stored.layout.transposed() if self.transposed else self.stored.layout

    @property
    def local(self) -> Array:
        """Block of the factor on this rank; Fortran-ordered if transposed."""
        return self.stored.local.T if self.transposed else self.stored.local

    @property
    def order(self) -> Literal["C", "F"]:
        """Memory order of :attr:`local`."""
        return "F" if self.transposed else "C"

    @property
    def parts(self) -> tuple[AxisPart, AxisPart]:
        """Rows and columns of the factor that this rank holds."""
        rows, cols = self.stored.rows, self.stored.cols
        return (cols, rows) if self.transposed else (rows, cols)

    def relayout(self, layout: Layout) -> Operand:
        """Return the same factor in `layout`. Collective over comm."""
        return Operand(self.stored.relayout(layout.transposed() if self.transposed else layout), self.transposed)


@dataclass(frozen=True)
class Form:
    """The form of a product: ``alpha op(A) op(B)``.

    Attributes
    ----------
    transpose_a, transpose_b, conjugate_a, conjugate_b : bool
        The operations of each op.
    alpha : number
        The scalar factor.
    """

    transpose_a: bool = False
    transpose_b: bool = False
    conjugate_a: bool = False
    conjugate_b: bool = False
    alpha: complex = 1.0

    def dtype(
        self, ctx: TaskContext, A: DistMatrix | SparseDistMatrix, B: DistMatrix | SparseDistMatrix
    ) -> np.dtype[Any]:
        """Return the element type to compute in: NumPy's result type of both factors and `alpha`."""
        common = checks.require_numeric(ctx, A=A, B=B)
        return common if self.alpha == 1 else np.result_type(common, self.alpha)

    @property
    def conjugate_right(self) -> bool:
        """Whether to conjugate the right factor, given that :meth:`finish` conjugates the result.

        conj(A) B is computed as conj(A conj(B)): the right factor is processed in pieces, which can be conjugated, and
        the result can be conjugated in place, so the left factor needs no copy.
        """
        return self.conjugate_a != self.conjugate_b

    def mirrored(self) -> Form:
        """Return the form of the transposed product, whose left factor is B."""
        return Form(not self.transpose_b, not self.transpose_a, self.conjugate_b, self.conjugate_a, self.alpha)

    def finish(self, C: Array) -> None:
        """Apply the remaining conjugation and `alpha` to the product `C` in place. Local."""
        if self.conjugate_a and C.dtype.kind == "c":
            np.conjugate(C, out=C)
        if self.alpha != 1:
            C *= C.dtype.type(self.alpha)


def require_inner(ctx: TaskContext, left: tuple[int, int], right: tuple[int, int], form: Form) -> None:
    """Check that factors of these shapes multiply. Local.

    Raises
    ------
    ArgumentValueError
        If they do not.
    """
    if left[1] != right[0]:
        a, b = ("^T" if transposed else "" for transposed in (form.transpose_a, form.transpose_b))
        raise ArgumentValueError(
            ctx.task,
            f"shapes do not multiply: A{a} is {left[0]}x{left[1]}, B{b} is {right[0]}x{right[1]}, and the inner two "
            "numbers differ",
        )
