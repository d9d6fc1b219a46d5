"""Measure things side by side: one run, alternating, medians of ratios with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def seconds(action: Callable[[], object]) -> float:
    """Return how long one call of `action` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Comparison:
    """A measurement held against a baseline of the same run.

    Attributes
    ----------
    what, baseline : str
        What was measured, and against what.
    ours, theirs : sequence of float
        Seconds (or another unit, the same for both), pairwise from the same moment.
    asked : str
        What the ratio should be, e.g. ``"<= 3"``; empty: nothing was asked.
    unit : float, str
        Factor and name to print the values with.
    """

    what: str
    baseline: str
    ours: Sequence[float]
    theirs: Sequence[float]
    asked: str
    unit: tuple[float, str] = (1.0, "s")

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, pairwise."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def reached(self) -> bool:
        """Whether the median ratio is what was asked."""
        if not self.asked:
            return True
        relation, _, limit = self.asked.partition(" ")
        ratio = statistics.median(self.ratios)
        return ratio <= float(limit) if relation == "<=" else ratio >= float(limit)

    def row(self) -> list[str]:
        """Return the cells of a table row."""
        factor, unit = self.unit
        return [
            self.what,
            self.baseline,
            f"{statistics.median(self.ours) * factor:.4g} {unit}",
            f"{statistics.median(self.theirs) * factor:.4g} {unit}",
            f"{statistics.median(self.ratios):.2f}",
            f"{min(self.ratios):.2f} - {max(self.ratios):.2f} of {len(self.ratios)}",
            self.asked,
            "" if not self.asked else "yes" if self.reached else "NO",
        ]


HEAD = ["measured", "against", "ours", "theirs", "ratio", "spread", "asked", "reached"]


def print_table(comparisons: Sequence[Comparison]) -> None:
    """Print comparisons as a Markdown table."""
    rows = [HEAD, *(comparison.row() for comparison in comparisons)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
