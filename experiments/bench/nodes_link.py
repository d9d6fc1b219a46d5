"""Measure a client on one host and workers on another: transfers, and the steps of a simulation.

The client runs on h1, the workers and the far ends of the raw streams on h2, the driver outside of both.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import Comparison, Findings
from nodes_hosts import Host, Hosts, cluster, ended, program_environment, run_client

WORKERS = 2
LAYOUTS = ("VC_STAR", "MC_MR")
"""Rows in turn, and the default."""
NOTHING = Path(__file__).parents[2] / "tests" / "libraries" / "nothing.py"
EMPTY = "nothing"
SIMULATIONS: dict[str, dict[str, int]] = {EMPTY: {}, "heat": {"n": 16, "supersteps": 1}}
"""A simulation that does nothing, which has the bound, and a small one. A step of heat's default size takes 30 ms."""


@dataclass(frozen=True)
class Link:
    """A kind of link between two hosts.

    Attributes
    ----------
    name : str
        What it is, for the table.
    megabytes : int
        Size of the matrix to move.
    steps : int
        Steps in each measurement; 0: steps are not measured.
    options : dict
        Options of :class:`.Hosts`.
    """

    name: str
    megabytes: int
    steps: int
    options: dict[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size of the matrix in bytes."""
        return self.megabytes * 10**6

    @property
    def is_lossy(self) -> bool:
        """Whether the link drops packets."""
        return "loss" in self.options


LINKS = (
    Link("bare veth", 512, 2_000),
    Link("1 ms each way", 256, 200, {"delay": 1e-3}),
    Link("1 % loss", 256, 0, {"loss": 0.01}),
)


def bench_transfer(repeats: int) -> Findings:
    """Move a matrix between two hosts. Baseline: as many raw TCP streams between the same hosts."""
    found = Findings()
    spreads = [["moved", "our GB/s: lowest, median, highest", "raw GB/s: lowest, median, highest"]]
    for link in LINKS:
        with _far_workers(link.options, link.nbytes) as (near, order):
            order |= {"kind": "transfer", "nbytes": link.nbytes, "layouts": LAYOUTS, "repeats": repeats}
            measured = run_client(near, order, 600)
        for name, times in measured.items():
            what = f"{name}, {link.megabytes} MB, {link.name}"
            row = Comparison.of_rates(what, f"{WORKERS} raw TCP streams", link.nbytes, times, _asked(link, times[1]))
            found.comparisons.append(row)
            if link.is_lossy:
                spreads.append([what, _spread(row.ours), _spread(row.theirs)])
    found.details["Spreads on the link that loses packets; ours must reach the raw streams' lowest rate"] = spreads
    return found


def _asked(link: Link, raw_seconds: list[float]) -> str:
    """Return the bound: 0.95 of the raw streams, or their own spread where packets are lost."""
    if not link.is_lossy:
        return ">= 0.95"
    return f">= {statistics.median(raw_seconds) / max(raw_seconds):.2f}"


def _spread(rates: Any) -> str:
    return ", ".join(f"{rate * 1e-9:.3g}" for rate in (min(rates), statistics.median(rates), max(rates)))


def bench_step(repeats: int) -> Findings:
    """Step a simulation whose ranks are on another host. Baseline: two raw round trips over the same link."""
    found = Findings()
    for link in LINKS:
        if link.steps:
            with _far_workers(link.options, 1, libraries={EMPTY: str(NOTHING)}) as (near, order):
                order |= {"kind": "step", "simulations": SIMULATIONS, "steps": link.steps, "repeats": repeats}
                measured = run_client(near, order, 600)
            for name, (ours, theirs) in measured.items():
                what = f"HPCSimulator.step, {name}, {WORKERS} ranks, {link.name}, p50"
                baseline = f"{WORKERS} raw TCP round trips"
                asked = "<= 3" if name == EMPTY else ""
                found.comparisons.append(Comparison(what, baseline, ours, theirs, asked, (1e6, "us")))
    return found


@contextlib.contextmanager
def _far_workers(options: dict[str, float], nbytes: int, **server: Any) -> Iterator[tuple[Host, dict[str, Any]]]:
    """Make two hosts with a node agent and raw streams on the second; yield the first, and the start of an order."""
    with Hosts(2, **options) as hosts:
        near, far = hosts
        with cluster(hosts, [far], **server) as driver, contextlib.ExitStack() as opened:
            ports = [opened.enter_context(_stream_end(far, nbytes // WORKERS + 1)) for _ in range(WORKERS)]
            address = [driver.hostname, driver.port, driver.token]
            yield near, {"server": address, "streams": [(far.address, port) for port in ports]}


@contextlib.contextmanager
def _stream_end(host: Host, nbytes: int) -> Iterator[int]:
    """Start the far end of a raw stream on a host; yield its port."""
    program = Path(__file__).with_name("nodes_streams.py")
    command = [sys.executable, program, host.address, str(nbytes)]
    process = host.popen(command, stdout=subprocess.PIPE, env=program_environment())
    with ended(process):
        yield int(process.stdout.readline())
