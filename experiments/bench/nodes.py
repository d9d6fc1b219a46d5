"""Measure workers on other hosts, and servers with many nodes: ``python experiments/bench/nodes.py``.

The hosts are network namespaces of this machine; that needs root. Each figure compares two things that are measured
alternately in one run: the median of their ratios, with its spread. A figure of a driver alone is compared with a fixed
limit. ``--results DIR`` also writes the tables to ``DIR/nodes.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import core
from measure import Comparison, Findings, print_rows, print_table
from nodes_hosts import TUNED, why_impossible
from nodes_link import bench_step, bench_transfer
from nodes_mpi import bench_mpi
from nodes_scale import bench_nodes, bench_status


def bench_open(repeats: int) -> Findings:
    """Open a session with two workers, as ``core.py`` does, without and with a server of its own."""
    return Findings(_asking(core.bench_open(repeats), "<= 0.5", "<= 1.5"))


def bench_noop(repeats: int) -> Findings:
    """Run a task that does nothing, as ``core.py`` does."""
    return Findings(core.bench_noop(repeats))


def _asking(comparisons: list[Comparison], *bounds: str) -> list[Comparison]:
    """Return comparisons with other bounds."""
    return [replace(comparison, asked=bound) for comparison, bound in zip(comparisons, bounds, strict=True)]


BENCHES: dict[str, Callable[[int], Findings]] = {
    "open": bench_open,
    "noop": bench_noop,
    "transfer": bench_transfer,
    "step": bench_step,
    "mpi": bench_mpi,
    "scale": bench_nodes,
    "status": bench_status,
}
NEED_HOSTS = {"transfer", "step", "mpi"}


def print_all(found: Findings) -> None:
    """Print all tables."""
    print_table(found.comparisons)
    for title, rows in found.details.items():
        print(f"\n{title}:\n")
        print_rows(rows)


def main() -> int:
    """Run the chosen benchmarks and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*BENCHES, []], help="which figures (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="directory for nodes.md")
    arguments = parser.parse_args()
    chosen = arguments.what or list(BENCHES)
    if NEED_HOSTS.intersection(chosen) and (reason := why_impossible()):
        parser.error(f"this machine cannot make hosts: {reason}")
    for name in TUNED:
        os.environ.pop(name, None)
    head = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(head, flush=True)
    found = Findings()
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found.add(BENCHES[name](arguments.repeats))
    print_all(found)
    if arguments.results:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            print_all(found)
        page = f"# Speed across hosts\n\nMedians from `make bench-nodes` on {head}.\n\n{text.getvalue()}"
        (arguments.results / "nodes.md").write_text(page)
    return 0 if all(comparison.reached for comparison in found.comparisons) else 1


if __name__ == "__main__":
    sys.exit(main())
