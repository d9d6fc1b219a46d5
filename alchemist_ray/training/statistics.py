"""Means with an error or a spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Real = int | float


@dataclass(frozen=True)
class Statistics:
    """Mean of a sample and how well it is known.

    Attributes
    ----------
    mean : float
    standard_error : float
        Sample standard deviation / sqrt(n); NaN for one value.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Sequence[Real]) -> Statistics:
        """Return the statistics of some values; NaN if there are none."""
        mean, deviation = _mean_and_deviation(values)
        return cls(mean, deviation / math.sqrt(len(values)) if values else math.nan)

    def __str__(self) -> str:
        return _shown(self.mean, self.standard_error)


@dataclass(frozen=True)
class Spread:
    """Mean of a sample and how far its values lie apart.

    Attributes
    ----------
    mean : float
    standard_deviation : float
        Of the sample, with n - 1; NaN for one value.
    """

    mean: float
    standard_deviation: float

    @classmethod
    def of(cls, values: Sequence[Real]) -> Spread:
        """Return the spread of some values; NaN if there are none."""
        return cls(*_mean_and_deviation(values))

    def __str__(self) -> str:
        return _shown(self.mean, self.standard_deviation)


def _mean_and_deviation(values: Sequence[Real]) -> tuple[float, float]:
    mean = float(np.mean(values)) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _shown(mean: float, beside: float) -> str:
    return f"{mean:.4g}" if math.isnan(beside) else f"{mean:.4g} ± {beside:.2g}"
