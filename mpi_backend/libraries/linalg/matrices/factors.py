"""The factors of a product, and what is made of them.

A factor is a matrix that lies somewhere, or its transpose: its blocks seen through ``.T``, in the layout transposed,
and nothing moves. Conjugates move nothing either (:attr:`Form.conjugate_right`).
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
        Whether its transpose is meant.
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
        """Block of the factor that this rank has; Fortran-ordered if transposed."""
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
    """What is made of two factors: ``alpha op(A) op(B)``.

    Attributes
    ----------
    transpose_a, transpose_b, conjugate_a, conjugate_b : bool
        What each op does.
    alpha : number
        The factor before them.
    """

    transpose_a: bool = False
    transpose_b: bool = False
    conjugate_a: bool = False
    conjugate_b: bool = False
    alpha: complex = 1.0

    def dtype(
        self, ctx: TaskContext, A: DistMatrix | SparseDistMatrix, B: DistMatrix | SparseDistMatrix
    ) -> np.dtype[Any]:
        """Return the element type to compute in: what NumPy makes of both and `alpha`."""
        common = checks.require_numeric(ctx, A=A, B=B)
        return common if self.alpha == 1 else np.result_type(common, self.alpha)

    @property
    def conjugate_right(self) -> bool:
        """Whether the right factor is to be conjugated, given that :meth:`finish` conjugates the result.

        A conjugate of the left factor is taken as conj(A) B = conj(A conj(B)): the right one goes by in pieces that can
        be conjugated, and so does the result, and the left one stays as it is.
        """
        return self.conjugate_a != self.conjugate_b

    def mirrored(self) -> Form:
        """Return the form of the transposed product, of which B is the left factor."""
        return Form(not self.transpose_b, not self.transpose_a, self.conjugate_b, self.conjugate_a, self.alpha)

    def finish(self, C: Array) -> None:
        """Do to the product of the factors, with the right one conjugated if it must be, what remains. Local."""
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
