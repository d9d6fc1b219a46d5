"""Transforms of one axis after the other: a relayout gives each rank the whole axis, and SciPy transforms it there.

Both axes take two exchanges of the whole matrix, and a transform of columns, whose elements lie far apart in memory. On
2 ranks this took 1.1 s for a 4096 x 4096 matrix of complex128, and MKL's cluster FFT took 0.3 s. So :func:`.fft2` uses
:mod:`.cluster` where it applies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries.linalg import stopping
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated, require_finite

NORMS = ("backward", "ortho", "forward")


@dataclass(frozen=True)
class Step:
    """The transform of one axis.

    Attributes
    ----------
    name : str
        Name of the function in :mod:`scipy.fft`.
    axis : int
        0, 1, -1 or -2.
    n : int, optional
        Length of the axis before the transform; for ``irfft``, after it.
    """

    name: str
    axis: int
    n: int | None = None


def both(rows: str, columns: str, s: list[int] | None, task: str) -> list[Step]:
    """Return the steps that transform rows and then columns. Local.

    Raises
    ------
    ArgumentValueError
        If `s` is not two numbers.
    """
    if s is None:
        return [Step(rows, 1), Step(columns, 0)]
    if len(s) != 2 or not all(isinstance(n, int) for n in s):
        raise ArgumentValueError(task, f"s must be two integers, the shape of the transform, not {s!r}")
    return [Step(rows, 1, s[1]), Step(columns, 0, s[0])]


def transformed(ctx: TaskContext, A: DistMatrix, steps: list[Step], norm: str | None) -> DistMatrix:
    """Return the result of applying `steps` to `A`, in the layout of `A`. Collective over comm."""
    require_transformable(ctx, A, norm)
    for step in steps:
        _require_axis(ctx, A, step)
    B = A
    for step in steps:
        B = _step(ctx, B, step, norm)
    return B.relayout(A.layout)


def require_real(ctx: TaskContext, A: DistMatrix) -> None:
    """Check that `A` is not complex. Local."""
    if A.dtype.kind == "c":
        raise ArgumentError(ctx.task, f"matrix A has dtype {A.dtype}, but this transform takes real matrices: use fft")


def require_transformable(ctx: TaskContext, A: DistMatrix, norm: str | None) -> None:
    """Check what all transforms require: a known norm, and a finite matrix that is not empty. Collective over comm."""
    if norm not in (None, *NORMS):
        raise ArgumentValueError(ctx.task, f"norm must be one of {', '.join(NORMS)}, not {norm!r}")
    if 0 in A.shape:
        raise ArgumentValueError(ctx.task, f"matrix A is empty ({A.shape[0]}x{A.shape[1]}) and cannot be transformed")
    require_finite(ctx, A=A)


def _require_axis(ctx: TaskContext, A: DistMatrix, step: Step) -> None:
    if step.axis not in (-2, -1, 0, 1):
        raise ArgumentValueError(ctx.task, f"axis must be 0 (columns) or 1 (rows), not {step.axis}")
    if step.n is not None and step.n < 1:
        raise ArgumentValueError(ctx.task, f"the length of a transform must be 1 or more, not {step.n}")
    if step.name == "irfft" and step.n is None and A.shape[step.axis % 2] < 2:
        raise ArgumentValueError(ctx.task, "A has one element along the axis: give the length of the result, 1")


def _step(ctx: TaskContext, A: DistMatrix, step: Step, norm: str | None) -> DistMatrix:
    import scipy.fft

    axis = step.axis % 2
    A = A.relayout(_layout_with_whole(axis, A))
    # SciPy refuses an empty block.
    shape = tuple(1 if side == 0 else side for side in A.local.shape)
    local = A.local if A.local.size else np.zeros(shape, A.dtype)
    transform: Any = getattr(scipy.fft, step.name)
    (m, n), B = A.shape, None
    for part in stopping.in_parts(ctx, 10 * m * n * math.log2(A.shape[axis] + 1), A.dtype, local.shape[1 - axis]):
        image = transform(local[part] if axis else local[:, part], n=step.n, axis=axis, norm=norm)
        if B is None:
            length = image.shape[axis]
            B = allocated(ctx, (m, length) if axis else (length, n), image.dtype, A.layout)
        if B.local.size:
            np.copyto(B.local[part] if axis else B.local[:, part], image)
    assert B is not None  # there is one part at least
    return B


def _layout_with_whole(axis: int, A: DistMatrix) -> Layout:
    """Return a layout that gives each rank the whole axis: that of `A` if its pair does so."""
    pairs = ("VC_STAR", "VR_STAR") if axis else ("STAR_VC", "STAR_VR")
    return A.layout if A.layout.pair in pairs else Layout.of(pairs[0], A.shape, A.comm.size)
