"""The picture of the README: a truncated SVD, here and in other libraries, as measured in docs/results/core.md.

    python experiments/pictures/svd_comparison.py           writes docs/pictures/svd_comparison.png

Nothing is measured here. ``make bench`` measures and writes the table from which the bars are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs" / "results" / "core.md"
TARGET = ROOT / "docs" / "pictures" / "svd_comparison.png"

TASK = "alchemist.svd.remote(A, 20), A 100000 x 1000, arrays in and out"

NAMES = {
    "NumPy in-process": "NumPy, in process\neigh(A.T @ A), U formed",
    "dask svd_compressed, 2 power iterations, 2 workers": "Dask svd_compressed\n2 worker processes",
    "dask svd_compressed, 2 power iterations, 2 threads": "Dask svd_compressed\n2 threads in process",
}
"""How the peers in the table begin -> the label of their bar."""


@dataclass(frozen=True)
class SvdTimes:
    """A row of the table: seconds of both, measured alternately."""

    peer: str
    ours: float
    theirs: float


def comparisons(text: str) -> list[SvdTimes]:
    """Return the rows of the SVD in the table.

    Raises
    ------
    ValueError
        If the table has no such rows: it was written by another version of the benchmark.
    """
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) > 3 and cells[0] == TASK:
            peer = next((label for begin, label in NAMES.items() if cells[1].startswith(begin)), cells[1])
            found.append(SvdTimes(peer, seconds(cells[2]), seconds(cells[3])))
    if not found:
        raise ValueError(f"{SOURCE} has no row of {TASK!r}: run make bench, or adapt TASK in {__file__}")
    return found


def seconds(cell: str) -> float:
    """Return a time of the table in seconds."""
    number, unit = re.fullmatch(r"([\d.]+) (s|ms|us)", cell).groups()  # type: ignore[union-attr]  # the table has no others
    return float(number) * {"s": 1.0, "ms": 1e-3, "us": 1e-6}[unit]


def main() -> None:
    """Draw the bars, a pair for each peer."""
    rows = comparisons(SOURCE.read_text(encoding="utf-8"))
    figure = Figure(figsize=(7, 3.2), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="time (s), arrays in and out; shorter is better")
    for place, row in enumerate(rows):
        for offset, value, colour, label in (
            (-0.19, row.ours, "C0", "alchemist.svd.remote from Ray, 2 MPI ranks"),
            (0.19, row.theirs, "0.6", "the other library"),
        ):
            bar = axes.barh(place + offset, value, 0.36, color=colour, label=label if place == 0 else None)
            axes.bar_label(bar, [f"{value:.2f} s"], padding=3, fontsize="small")
    axes.set_yticks(range(len(rows)), [row.peer for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("20 largest singular triplets of a 100,000 x 1,000 matrix, 2 cores", fontsize="medium")
    figure.legend(fontsize="small", loc="outside lower center", ncols=2, frameon=False)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
