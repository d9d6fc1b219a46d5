"""Fourier transforms of real periodic fields, many at once, for use inside compiled kernels.

A field of M real samples is treated as one complex sequence of n = M/2: even samples are the real part, odd samples the
imaginary part. So a field is stored as two arrays, `even` and `odd`, and products of fields are computed on these
arrays directly. The complex transform is Stockham's, which needs no reordering, with radices 4, 3 and 2 (Van Loan,
Computational Frameworks for the Fast Fourier Transform, 1992, section 1.7). Arrays are flat: sample j of field b is at
``j * batch + b``. So the innermost loops run over contiguous memory, and they are longer with more fields.

A field x[j] has the coefficients ``X[k] = 1/M sum_j x[j] exp(-2 pi i j k / M)``. :func:`synthesise` takes X[0..n].
:func:`analyse` returns 2 M X[k], because the caller multiplies by a factor anyway.

Everything is local, in float64 and in IEEE order: equal input gives equal output, bit for bit, with any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RADICES = (4, 2, 3)

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` when it is first called, and keep the result on disk."""
    return cast("Function", numba.njit(cache=True, error_model="numpy")(function))


# Indices are unsigned. With signed indices numba tests each access for a negative index, which prevents vectorisation.
index = np.uint64
_0, _1 = index(0), index(1)


def radices_of(n: int) -> Array | None:
    """Return the radices of a complex transform of n points, fours first; None if n is not of the form 2^a 3^b."""
    found = []
    for radix in RADICES:
        while n % radix == 0:
            found.append(radix)
            n //= radix
    return np.array(found, np.int64) if n == 1 else None


def good_size(least: int) -> int:
    """Return the smallest even M >= `least` that can be transformed."""
    size = max(4, least + least % 2)
    while radices_of(size // 2) is None:
        size += 2
    return size


class TransformPlan(NamedTuple):
    """The constants of transforms of `batch` fields of M = 2n samples.

    Attributes
    ----------
    batch : int
        Number of fields.
    cos, sin : ndarray, shape (n,)
        Real and imaginary parts of exp(-2 pi i k / n).
    cos2, sin2 : ndarray, shape (n,)
        Real and imaginary parts of exp(-2 pi i k / M).
    radices : ndarray of int
        Radices of the passes, in their order.
    """

    batch: int
    cos: Array
    sin: Array
    cos2: Array
    sin2: Array
    radices: Array


def plan_for(points: int, batch: int) -> TransformPlan:
    """Return the plan for `batch` fields of `points` samples.

    Raises
    ------
    ValueError
        If `points` is odd or not of the form 2^a 3^b.
    """
    n = points // 2
    radices = radices_of(n)
    if points % 2 or radices is None:
        raise ValueError(f"the number of points must be even and of the form 2^a 3^b, not {points}")
    angles = 2 * np.pi * np.arange(n) / points
    return TransformPlan(batch, np.cos(2 * angles), -np.sin(2 * angles), np.cos(angles), -np.sin(angles), radices)


@compiled
def _pass2(xr: Array, xi: Array, yr: Array, yi: Array, cos: Array, sin: Array, turn: Any, m: Any, s: Any) -> None:
    sm = s * m
    for p in range(m):
        wr, wi = cos[p * turn], sin[p * turn]
        x0 = s * p
        y0 = x0 + x0
        for q in range(s):
            a, out = x0 + q, y0 + q
            b, second = a + sm, out + s
            dr, di = xr[a] - xr[b], xi[a] - xi[b]
            yr[out], yi[out] = xr[a] + xr[b], xi[a] + xi[b]
            yr[second], yi[second] = dr * wr - di * wi, dr * wi + di * wr


@compiled
def _pass3(xr: Array, xi: Array, yr: Array, yi: Array, cos: Array, sin: Array, turn: Any, m: Any, s: Any) -> None:
    half_root = 0.8660254037844386
    sm = s * m
    for p in range(m):
        p1 = p * turn
        p2 = p1 + p1
        w1r, w1i, w2r, w2i = cos[p1], sin[p1], cos[p2], sin[p2]
        x0 = s * p
        y0 = x0 + x0 + x0
        for q in range(s):
            a, out = x0 + q, y0 + q
            b, second = a + sm, out + s
            c, third = b + sm, second + s
            tr, ti = xr[b] + xr[c], xi[b] + xi[c]
            dr, di = half_root * (xr[b] - xr[c]), half_root * (xi[b] - xi[c])
            mr, mi = xr[a] - 0.5 * tr, xi[a] - 0.5 * ti
            br, bi, cr, ci = mr + di, mi - dr, mr - di, mi + dr
            yr[out], yi[out] = xr[a] + tr, xi[a] + ti
            yr[second], yi[second] = br * w1r - bi * w1i, br * w1i + bi * w1r
            yr[third], yi[third] = cr * w2r - ci * w2i, cr * w2i + ci * w2r


@compiled
def _pass4(xr: Array, xi: Array, yr: Array, yi: Array, cos: Array, sin: Array, turn: Any, m: Any, s: Any) -> None:
    sm = s * m
    for p in range(m):
        p1 = p * turn
        p2 = p1 + p1
        p3 = p2 + p1
        w1r, w1i, w2r, w2i, w3r, w3i = cos[p1], sin[p1], cos[p2], sin[p2], cos[p3], sin[p3]
        x0 = s * p
        y0 = x0 + x0 + x0 + x0
        for q in range(s):
            a, out = x0 + q, y0 + q
            b, second = a + sm, out + s
            c, third = b + sm, second + s
            d, fourth = c + sm, third + s
            sr, si = xr[a] + xr[c], xi[a] + xi[c]
            dr, di = xr[a] - xr[c], xi[a] - xi[c]
            tr, ti = xr[b] + xr[d], xi[b] + xi[d]
            er, ei = xr[b] - xr[d], xi[b] - xi[d]
            br, bi, cr, ci, fr, fi = dr + ei, di - er, sr - tr, si - ti, dr - ei, di + er
            yr[out], yi[out] = sr + tr, si + ti
            yr[second], yi[second] = br * w1r - bi * w1i, br * w1i + bi * w1r
            yr[third], yi[third] = cr * w2r - ci * w2i, cr * w2i + ci * w2r
            yr[fourth], yi[fourth] = fr * w3r - fi * w3i, fr * w3i + fi * w3r


@compiled
def _first4(xr: Array, xi: Array, yr: Array, yi: Array, cos: Array, sin: Array, m: Any) -> None:
    """Do the first pass of a single field. Only the loop over p runs over contiguous memory there."""
    for p in range(m):
        b = p + m
        c = b + m
        d = c + m
        p2 = p + p
        p3 = p2 + p
        out = p2 + p2
        second = out + _1
        third = second + _1
        fourth = third + _1
        sr, si = xr[p] + xr[c], xi[p] + xi[c]
        dr, di = xr[p] - xr[c], xi[p] - xi[c]
        tr, ti = xr[b] + xr[d], xi[b] + xi[d]
        er, ei = xr[b] - xr[d], xi[b] - xi[d]
        br, bi, cr, ci, fr, fi = dr + ei, di - er, sr - tr, si - ti, dr - ei, di + er
        yr[out], yi[out] = sr + tr, si + ti
        yr[second], yi[second] = br * cos[p] - bi * sin[p], br * sin[p] + bi * cos[p]
        yr[third], yi[third] = cr * cos[p2] - ci * sin[p2], cr * sin[p2] + ci * cos[p2]
        yr[fourth], yi[fourth] = fr * cos[p3] - fi * sin[p3], fr * sin[p3] + fi * cos[p3]


@compiled
def _fft(xr: Array, xi: Array, yr: Array, yi: Array, plan: TransformPlan) -> tuple[Array, Array, Array, Array]:
    """Transform n complex points. Return the pair of arrays with the result (x or y), then the other pair."""
    stride, m, batch = index(1), index(plan.cos.size), index(plan.batch)
    for radix in plan.radices:
        m //= index(radix)
        if radix == 4 and stride * batch == _1:
            _first4(xr, xi, yr, yi, plan.cos, plan.sin, m)
        elif radix == 4:
            _pass4(xr, xi, yr, yi, plan.cos, plan.sin, stride, m, stride * batch)
        elif radix == 2:
            _pass2(xr, xi, yr, yi, plan.cos, plan.sin, stride, m, stride * batch)
        else:
            _pass3(xr, xi, yr, yi, plan.cos, plan.sin, stride, m, stride * batch)
        stride *= index(radix)
        xr, xi, yr, yi = yr, yi, xr, xi
    return xr, xi, yr, yi


@compiled
def synthesise(X: Array, room: Array, plan: TransformPlan) -> tuple[Array, Array, Array, Array]:
    """Return the even and the odd samples of fields, given their coefficients.

    Parameters
    ----------
    X : ndarray, shape (2, (n + 1) * batch)
        Real and imaginary parts of X[0..n].
    room : ndarray, shape (4, n * batch)
        Scratch memory.
    plan : TransformPlan
        Plan of the transform.

    Returns
    -------
    even, odd, spare, spare : ndarray, shape (n * batch,)
        The rows of `room`, with the samples first.
    """
    n, batch = index(plan.cos.size), index(plan.batch)
    Xr, Xi, even, odd = X[0], X[1], room[0], room[1]
    for k in range(n):
        c, s = plan.cos2[k], -plan.sin2[k]
        here, mirrored = k * batch, (n - k) * batch
        for q in range(batch):
            a, b = here + q, mirrored + q
            dr, di = Xr[a] - Xr[b], Xi[a] + Xi[b]
            even[a] = Xr[a] + Xr[b] - (dr * s + di * c)
            odd[a] = Xi[a] - Xi[b] + (dr * c - di * s)
    # With real and imaginary parts exchanged, the transform is its own inverse.
    odd, even, one, other = _fft(odd, even, room[2], room[3], plan)
    return even, odd, one, other


@compiled
def analyse(even: Array, odd: Array, one: Array, other: Array, X: Array, modes: int, plan: TransformPlan) -> None:
    """Set X[0..modes-1] to 2 M times the coefficients of fields. The first four arrays are overwritten."""
    n, batch = index(plan.cos.size), index(plan.batch)
    even, odd, one, other = _fft(even, odd, one, other, plan)
    Xr, Xi = X[0], X[1]
    for k in range(index(modes)):
        c, s = plan.cos2[k], plan.sin2[k]
        here, mirrored = k * batch, (n - k) * batch if k > _0 else _0
        for q in range(batch):
            a, b = here + q, mirrored + q
            sr, si = even[a] + even[b], odd[a] - odd[b]
            dr, di = odd[a] + odd[b], even[b] - even[a]
            Xr[a] = sr + (dr * c - di * s)
            Xi[a] = si + (dr * s + di * c)
