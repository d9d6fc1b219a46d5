"""Compare two things in one run: measure them alternately, and take the median and the spread of their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self


def seconds(action: Callable[[], object]) -> float:
    """Return the seconds that one call of `action` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def alternate(repeats: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measure two things in turn, `repeats` times each, after one uncounted measurement of each.

    Parameters
    ----------
    repeats : int
        Pairs of measurements.
    ours, theirs : callable
        Each does one measurement and returns its seconds, or its value in another unit.
    """
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    return [a for a, _ in pairs], [b for _, b in pairs]


@dataclass(frozen=True)
class Comparison:
    """A measurement and its baseline from the same run.

    Attributes
    ----------
    what, baseline : str
        Names of the measurement and of its baseline.
    ours, theirs : sequence of float
        Seconds, or another unit that both share. The values of a pair were measured one right after the other.
    asked : str
        Target of the ratio, e.g. ``"<= 3"``; empty if there is none.
    unit : float, str
        Factor by which values are multiplied for the table, and the unit after that.
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
        """Return a comparison of rates, given `nbytes` and the seconds of moves as :func:`alternate` returns them."""
        ours, theirs = ([nbytes / seconds for seconds in side] for side in times)
        return cls(what, baseline, ours, theirs, asked, (1e-9, "GB/s"))

    @property
    def ratios(self) -> list[float]:
        """Ours divided by theirs, for each pair."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool:
        """Whether the median ratio meets the target."""
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
    """The results of a benchmark.

    Attributes
    ----------
    comparisons : list of Comparison
        Rows of the main table.
    details : dict of list of list of str
        Further tables, by title. Each is a list of rows, of which the first is the head.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    details: dict[str, list[list[str]]] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        """Add the results of another benchmark."""
        self.comparisons.extend(other.comparisons)
        self.details.update(other.details)


HEAD = ["measured", "against", "ours", "theirs", "ratio", "spread", "asked", "reached"]


def print_table(comparisons: Sequence[Comparison]) -> None:
    """Print comparisons as a Markdown table."""
    print_rows([HEAD, *(comparison.row() for comparison in comparisons)])


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells as a Markdown table. The first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
