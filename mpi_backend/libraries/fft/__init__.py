"""Discrete Fourier transforms of distributed matrices, with SciPy's names, arguments and scaling.

Every task takes matrices of any layout, size (also prime) and type. It transforms float32 and complex64 in single
precision and every other type in double. The result has the layout of the argument. Every task is collective over the
worker group. A matrix that is empty or contains NaN or Inf is an error.

The transform of both axes, :func:`fft2`, calls MKL's cluster FFT (:mod:`.cluster`). The transforms of one axis relayout
the matrix so that each rank holds that axis whole, and call SciPy there (:mod:`.axes`).
"""

from __future__ import annotations

from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.fft import axes, cluster

__version__ = "1.0"


@task
def fft(ctx: TaskContext, A: DistMatrix, n: int | None = None, axis: int = -1, norm: str | None = None) -> DistMatrix:
    """Return the Fourier transform of each row of a matrix, or of each column.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, in any layout, of any type.
    n : int, optional
        Length of the transformed axis; longer input is cut, shorter input is padded with zeros.
    axis : int
        1 or -1 transforms rows, 0 or -2 columns.
    norm : str, optional
        ``"backward"`` (the default: no factor forward, 1/n backward), ``"ortho"`` (both 1/sqrt(n)) or ``"forward"``.

    Returns
    -------
    DistMatrix
        complex64 if `A` is float32 or complex64, else complex128, in the layout of `A`.

    Raises
    ------
    ArgumentValueError
        If `A` is empty, or `n`, `axis` or `norm` is not valid.
    NonFiniteError
        If `A` contains NaN or Inf.
    MatrixMemoryError
        If the workers have not enough memory for the result.

    Notes
    -----
    Calls :func:`scipy.fft.fft` on each rank. Needs two relayouts, or none if each rank already holds the axis whole
    (VC_STAR for rows, STAR_VC for columns). Memory beside the result: at most two copies of it.
    """
    return axes.transformed(ctx, A, [axes.Step("fft", axis, n)], norm)


@task
def ifft(ctx: TaskContext, A: DistMatrix, n: int | None = None, axis: int = -1, norm: str | None = None) -> DistMatrix:
    """Return the inverse Fourier transform of each row of a matrix, or of each column; see :func:`fft`."""
    return axes.transformed(ctx, A, [axes.Step("ifft", axis, n)], norm)


@task
def rfft(ctx: TaskContext, A: DistMatrix, n: int | None = None, axis: int = -1, norm: str | None = None) -> DistMatrix:
    """Return the non-redundant half of the Fourier transform of each row of a real matrix, or of each column.

    Parameters, errors and cost are those of :func:`fft`, except that a complex matrix raises ArgumentError. The result
    has ``n//2 + 1`` elements along the axis.
    """
    axes.require_real(ctx, A)
    return axes.transformed(ctx, A, [axes.Step("rfft", axis, n)], norm)


@task
def irfft(ctx: TaskContext, A: DistMatrix, n: int | None = None, axis: int = -1, norm: str | None = None) -> DistMatrix:
    """Return the real matrix whose :func:`rfft` is `A`.

    Parameters, errors and cost are those of :func:`fft`, but `n` is the length of the axis in the result. The default
    is ``2 * (m - 1)`` for m elements, so give `n` if the length is odd.
    """
    return axes.transformed(ctx, A, [axes.Step("irfft", axis, n)], norm)


@task
def fft2(ctx: TaskContext, A: DistMatrix, s: list[int] | None = None, norm: str | None = None) -> DistMatrix:
    """Return the two-dimensional Fourier transform of a matrix.

    Parameters
    ----------
    A : DistMatrix, shape (m, n)
        The matrix, in any layout, of any type.
    s : list of two int, optional
        Shape of the result; `A` is cut to it, or padded with zeros.
    norm : str, optional
        ``"backward"`` (the default: no factor forward, 1/(mn) backward), ``"ortho"`` (both 1/sqrt(mn)) or
        ``"forward"``.

    Returns
    -------
    DistMatrix, shape (m, n) or `s`
        complex64 if `A` is float32 or complex64, else complex128, in the layout of `A`.

    Raises
    ------
    ArgumentValueError
        If `A` is empty, or `s` or `norm` is not valid.
    NonFiniteError
        If `A` contains NaN or Inf.
    MatrixMemoryError
        If the workers have not enough memory for the result.

    Notes
    -----
    Uses MKL's cluster FFT, in place in the result, if MKL is installed, each side is at least the number of ranks, and
    `s` is not given; otherwise transforms one axis after the other. Two more relayouts if `A` is not in VC_STAR. Memory
    beside the result: MKL's workspace, which is as large as the result, and a copy of `A` if it is in another layout.
    """
    if s is None and cluster.applies(A):
        return cluster.fft2(ctx, A, norm, inverse=False)
    return axes.transformed(ctx, A, axes.both("fft", "fft", s, ctx.task), norm)


@task
def ifft2(ctx: TaskContext, A: DistMatrix, s: list[int] | None = None, norm: str | None = None) -> DistMatrix:
    """Return the inverse two-dimensional Fourier transform of a matrix; see :func:`fft2`."""
    if s is None and cluster.applies(A):
        return cluster.fft2(ctx, A, norm, inverse=True)
    return axes.transformed(ctx, A, axes.both("ifft", "ifft", s, ctx.task), norm)


@task
def rfft2(ctx: TaskContext, A: DistMatrix, s: list[int] | None = None, norm: str | None = None) -> DistMatrix:
    """Return the non-redundant half, ``n//2 + 1`` columns, of the two-dimensional transform of a real matrix.

    Parameters and errors are those of :func:`fft2`, except that a complex matrix raises ArgumentError. Transforms one
    axis after the other, with at most three relayouts.
    """
    axes.require_real(ctx, A)
    return axes.transformed(ctx, A, axes.both("rfft", "fft", s, ctx.task), norm)


@task
def irfft2(ctx: TaskContext, A: DistMatrix, s: list[int] | None = None, norm: str | None = None) -> DistMatrix:
    """Return the real matrix whose :func:`rfft2` is `A`.

    Parameters and errors are those of :func:`fft2`. `s` is the shape of the result. By default the number of columns is
    even, so give `s` if it is odd.
    """
    return axes.transformed(ctx, A, axes.both("irfft", "ifft", s, ctx.task)[::-1], norm)
