"""Discrete Fourier transforms of distributed matrices, with SciPy's names, arguments and scaling.

Matrices come in any layout, of any size (primes too) and any type: float32 and complex64 are transformed in single
precision, everything else in double. The result has the layout of the argument. Every task is collective over the
worker group. Empty matrices, and NaN or Inf, are refused.

The transform of both axes, :func:`fft2`, is MKL's cluster FFT (:mod:`.cluster`). Transforms of one axis bring that axis
whole onto each rank, and are SciPy's there (:mod:`.axes`).
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
        Length of the axis that is transformed: the rows are cut to it, or filled up with zeros.
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
        If `A` is empty, or `n`, `axis` or `norm` is none that there is.
    NonFiniteError
        If `A` contains NaN or Inf.
    MatrixMemoryError
        If the workers have no room for the result.

    Notes
    -----
    As :func:`scipy.fft.fft`, which computes it. Two relayouts, none where `A` has the axis whole on each rank
    (VC_STAR for rows, STAR_VC for columns). Memory beside the result: two copies of it at most.
    """
    return axes.transformed(ctx, A, [axes.Step("fft", axis, n)], norm)


@task
def ifft(ctx: TaskContext, A: DistMatrix, n: int | None = None, axis: int = -1, norm: str | None = None) -> DistMatrix:
    """Return the inverse Fourier transform of each row of a matrix, or of each column; see :func:`fft`."""
    return axes.transformed(ctx, A, [axes.Step("ifft", axis, n)], norm)


@task
def rfft(ctx: TaskContext, A: DistMatrix, n: int | None = None, axis: int = -1, norm: str | None = None) -> DistMatrix:
    """Return the non-redundant half of the Fourier transform of each row of a real matrix, or of each column.

    Parameters, errors and cost are those of :func:`fft`, except that a complex matrix is an ArgumentError. The axis
    has ``n//2 + 1`` elements afterwards.
    """
    axes.require_real(ctx, A)
    return axes.transformed(ctx, A, [axes.Step("rfft", axis, n)], norm)


@task
def irfft(ctx: TaskContext, A: DistMatrix, n: int | None = None, axis: int = -1, norm: str | None = None) -> DistMatrix:
    """Return the real matrix of which :func:`rfft` is `A`.

    Parameters, errors and cost are those of :func:`fft`. `n` is the length of the axis afterwards, ``2 * (m - 1)`` of m
    elements if not given: an odd length must be.
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
        Shape of the result: `A` is cut to it, or filled up with zeros.
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
        If `A` is empty, or `s` or `norm` is none that there is.
    NonFiniteError
        If `A` contains NaN or Inf.
    MatrixMemoryError
        If the workers have no room for the result.

    Notes
    -----
    MKL's cluster FFT, in place in the result, where there is MKL, each side is at least the number of ranks, and `s` is
    not given; otherwise one axis after the other. Two relayouts more if `A` is not in VC_STAR. Memory beside the
    result: MKL's workspace, as much again, and where `A` is in another layout, a copy of it.
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

    Parameters and errors are those of :func:`fft2`, except that a complex matrix is an ArgumentError. One axis after
    the other: three relayouts at most.
    """
    axes.require_real(ctx, A)
    return axes.transformed(ctx, A, axes.both("rfft", "fft", s, ctx.task), norm)


@task
def irfft2(ctx: TaskContext, A: DistMatrix, s: list[int] | None = None, norm: str | None = None) -> DistMatrix:
    """Return the real matrix of which :func:`rfft2` is `A`.

    Parameters and errors are those of :func:`fft2`. `s` is the shape of the result, by default of an even number of
    columns: an odd one must be given.
    """
    return axes.transformed(ctx, A, axes.both("irfft", "ifft", s, ctx.task)[::-1], norm)
