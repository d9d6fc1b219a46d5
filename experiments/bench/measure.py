"""Measure things side by side: one run, alternating, medians of ratios with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self


def seconds(action: Callable[[], object]) -> float:
    """Return how long one call of `action` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def alternate(repeats: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measure two things in turn, `repeats` times each, after one of each that is not counted.

    Parameters
    ----------
    repeats : int
        Pairs of measurements.
    ours, theirs : callable
        Each does one measurement and returns its seconds (or whatever is measured).
    """
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    return [a for a, _ in pairs], [b for _, b in pairs]


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

    @classmethod
    def of_rates(
        cls, what: str, baseline: str, nbytes: int, times: tuple[Sequence[float], Sequence[float]], asked: str
    ) -> Self:
        """Return the comparison of the rates at which `nbytes` were moved in the seconds of :func:`alternate`."""
        ours, theirs = ([nbytes / seconds for seconds in side] for side in times)
        return cls(what, baseline, ours, theirs, asked, (1e-9, "GB/s"))

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, pairwise."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool:
        """Whether the median ratio is what was asked."""
        if not self.asked:
            return True
        relation, _, limit = self.asked.partition(" ")
        return self.ratio <= float(limit) if relation == "<=" else self.ratio >= float(limit)

    def row(self) -> list[str]:
        """Return the cells of a table row."""
        factor, unit = self.unit
        return [
            self.what,
            self.baseline,
            f"{statistics.median(self.ours) * factor:.4g} {unit}",
            f"{statistics.median(self.theirs) * factor:.4g} {unit}",
            _ratio_text(self.ratio),
            f"{_ratio_text(min(self.ratios))} - {_ratio_text(max(self.ratios))} of {len(self.ratios)}",
            self.asked,
            "" if not self.asked else "yes" if self.reached else "NO",
        ]


def _ratio_text(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


@dataclass
class Findings:
    """What a benchmark has found.

    Attributes
    ----------
    comparisons : list of Comparison
        What belongs into the table.
    details : dict of list of list of str
        What stands behind it: further tables, head and rows, by title.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    details: dict[str, list[list[str]]] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        """Take in what another benchmark has found."""
        self.comparisons.extend(other.comparisons)
        self.details.update(other.details)


HEAD = ["measured", "against", "ours", "theirs", "ratio", "spread", "asked", "reached"]


def print_table(comparisons: Sequence[Comparison]) -> None:
    """Print comparisons as a Markdown table."""
    print_rows([HEAD, *(comparison.row() for comparison in comparisons)])


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, the first of them the head, as a Markdown table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
