"""How fast matrices move: ``python experiments/bench/transfer.py``.

Prints one table of everything that was asked for and a second one of each of the fourteen layouts with a block size of
1, and writes the rates by layout and size, with their plot, into a directory. Each figure is a ratio of two things
measured alternately in one run, of which the first pair does not count: so both find their pages touched. Rates are
those of the bytes of the matrix, each element counted once, as one process sends it to, or fetches it from, two workers
on one host.
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
    """Run the benchmarks that were asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*BENCHES, SWEEP, []], help="which figures (default: all)")
    parser.add_argument("--megabytes", type=int, default=800, help="size of the matrix (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="8 MB, twice: to see whether everything runs")
    parser.add_argument("--results", type=Path, default=Path("output"), help="where the plot goes (default: output)")
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
    """Measure rates by layout and size; write them, and their plot, into `results`."""
    print(f"{SWEEP} ...", file=sys.stderr, flush=True)
    measured = sweep(scale)
    results.mkdir(parents=True, exist_ok=True)
    save(measured, results / "transfer.json")
    plot(measured, results / "transfer-rates.svg")


if __name__ == "__main__":
    sys.exit(main())
