"""Measure the rates at which matrices move: ``python experiments/bench/transfer.py``.

Prints a table of the chosen benchmarks, and a second table of all fourteen layouts with a block size of 1. Writes the
rates by layout and size, and their plot, to a directory. Each figure compares two things that are measured alternately
in one run. The first pair does not count, so that both sides use pages that have been touched. One process sends the
matrix to two workers on the same host, or fetches it from them. A rate counts the bytes of the matrix, each element
once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from measure import Findings, print_rows, print_table
from plot_transfer import plot
from transfer_memory import bench_memory
from transfer_peers import bench_peers
from transfer_planning import bench_planning
from transfer_rates import bench_layouts, bench_relayout, bench_shared_memory, bench_tcp
from transfer_senders import bench_senders
from transfer_sessions import Scale
from transfer_sweep import save, sweep

BENCHES: dict[str, Callable[[Scale], Findings]] = {
    "shared-memory": bench_shared_memory,
    "tcp": bench_tcp,
    "layouts": bench_layouts,
    "relayout": bench_relayout,
    "peers": bench_peers,
    "memory": bench_memory,
    "senders": bench_senders,
    "planning": bench_planning,
}
SWEEP = "sweep"


def main() -> int:
    """Run the chosen benchmarks and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*BENCHES, SWEEP, []], help="which figures (default: all)")
    parser.add_argument("--megabytes", type=int, default=800, help="size of the matrix (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="move 8 MB twice, to test the benchmarks")
    parser.add_argument("--results", type=Path, default=Path("output"), help="directory for the plot (default: output)")
    arguments = parser.parse_args()
    scale = Scale(8, 2) if arguments.quick else Scale(arguments.megabytes, arguments.repeats)
    chosen = arguments.what or [*BENCHES, SWEEP]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    found = Findings()
    for name in chosen:
        if name in BENCHES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            found.add(BENCHES[name](scale))
    if SWEEP in chosen:
        draw(scale, arguments.results)
    if found.comparisons:
        print_table(found.comparisons)
    for title, rows in found.details.items():
        print(f"\n{title}:\n")
        print_rows(rows)
    return 0 if all(comparison.reached for comparison in found.comparisons) else 1


def draw(scale: Scale, results: Path) -> None:
    """Measure rates by layout and size. Write them and their plot to `results`."""
    print(f"{SWEEP} ...", file=sys.stderr, flush=True)
    measured = sweep(scale)
    results.mkdir(parents=True, exist_ok=True)
    save(measured, results / "transfer.json")
    plot(measured, results / "transfer-rates.svg")


if __name__ == "__main__":
    sys.exit(main())
