"""Check whether an array lies between two bounds. Every action and every state is checked this way."""

from __future__ import annotations

from operator import le
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FEW = 16
"""Up to this many numbers are compared faster one by one: between two messages NumPy's code drops out of the cache."""


class Interval:
    """The arrays between two bounds of the same shape, both included.

    Parameters
    ----------
    low, high : ndarray of float64
        The bounds, which may be infinite.
    """

    def __init__(self, low: Array, high: Array) -> None:
        self.low, self.high = low, high
        self._lows, self._highs = (low.ravel().tolist(), high.ravel().tolist()) if low.size <= FEW else ([], [])

    def holds(self, value: Array) -> bool:
        """Return whether `value`, a real array of the shape of the bounds, lies between them. NaN does not."""
        if self._lows:
            values = value.tolist() if value.ndim == 1 else value.ravel().tolist()
            return all(map(le, self._lows, values)) and all(map(le, values, self._highs))
        return bool(np.count_nonzero((self.low <= value) & (value <= self.high)) == value.size)
