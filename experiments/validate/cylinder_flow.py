"""Compare the flow past a cylinder with its benchmark: ``python experiments/validate/cylinder_flow.py``.

Prints tables in Markdown. ``--results DIR`` also writes them to ``DIR/validation_cylinder_flow.md``. ``--quick`` skips
the finest lattice and takes about two minutes on one core. The program also runs under mpiexec with any number of
ranks.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from validation import arguments_of, publish

from alchemist_ray.sim_libraries.cylinder_flow.flow import ChannelFlow
from alchemist_ray.sim_libraries.cylinder_flow.geometry import ChannelGeometry

comm = MPI.COMM_WORLD


@dataclass(frozen=True)
class Quantity:
    """A quantity for which the benchmark gives an interval."""

    name: str
    low: float
    high: float
    digits: int = 4

    def said(self, value: float) -> str:
        """Return the text for a value: the value, and how far it lies outside the interval."""
        outside = (value - self.high) / self.high if value > self.high else min(value - self.low, 0) / self.low
        return f"{value:.{self.digits}f} ({f'{outside:+.1%}' if outside else 'within'})"


STEADY = [Quantity("C_D", 5.57, 5.59), Quantity("C_L", 0.0104, 0.0110, 5)]
UNSTEADY = [Quantity("C_D max", 3.22, 3.24), Quantity("C_L max", 0.99, 1.01), Quantity("St", 0.295, 0.305)]


def steady(resolution: int, u_max: float) -> list[float]:
    """Return drag and lift coefficients of the benchmark 2D-1 (Re = 20)."""
    flow = ChannelFlow(comm, ChannelGeometry(resolution), 20.0, u_max)
    unit = flow.time_unit
    flow.advance(np.zeros(round(50 * unit)))
    return list(flow.coefficients(flow.advance(np.zeros(round(unit)))).mean(axis=0)[:2])


def unsteady(resolution: int, u_max: float) -> tuple[list[float], list[float]]:
    """Return two lists of results of the benchmark 2D-2 (Re = 100).

    The first has the largest drag, the largest lift and the Strouhal number. The second has the mean drag, the least
    lift, and the relative difference between outflow and inflow over a period.
    """
    flow = ChannelFlow(comm, ChannelGeometry(resolution), 100.0, u_max)
    unit = flow.time_unit
    kick = np.arange(round(3 * unit)) / unit
    flow.advance(flow.u_mean * np.sin(0.6 * np.pi * kick) * np.sin(np.pi * kick / 3))
    flow.advance(np.zeros(round(37 * unit)))
    drag, lift = flow.coefficients(flow.advance(np.zeros(round(15 * unit))))[:, :2].T
    rises = np.flatnonzero((lift[:-1] < 0) & (lift[1:] >= 0))
    times = rises + lift[rises] / (lift[rises] - lift[rises + 1])
    period = (times[-1] - times[0]) / (len(times) - 1)
    whole = slice(rises[0], rises[-1])
    outflow = []
    for _ in range(40):
        flow.advance(np.zeros(round(period / 40)))
        outflow.append(comm.bcast(flow.moments()[1, :, -1].sum(), comm.size - 1))
    balance = np.mean(outflow) / (flow.u_mean * flow.channel.ny) - 1
    return [drag[whole].max(), lift[whole].max(), unit / period], [drag[whole].mean(), lift[whole].min(), balance]


def poiseuille(resolution: int) -> float:
    """Return the largest error of the velocity of Poiseuille flow at Re = 10, relative to the largest velocity."""
    flow = ChannelFlow(comm, ChannelGeometry(resolution, 8.0, cylinder=False), 10.0, 0.1)
    flow.advance(np.zeros(200 * resolution))
    moments = flow.gather()
    if moments is None:
        return 0.0
    exact = flow.channel.inflow(0.1)[1::2, None]
    return float(max(np.abs(moments[1] - exact).max(), np.abs(moments[2]).max()) / 0.1)


def tell(started: float, what: str) -> None:
    """Report progress on standard error."""
    if comm.rank == 0:
        print(f"{time.perf_counter() - started:.0f} s: {what}", file=sys.stderr, flush=True)


def tables(quick: bool) -> list[str]:
    """Return the lines of all tables. *Collective over the world*."""
    started = time.perf_counter()
    lines = ["| case | nodes per D | u_max | quantity | benchmark | simulated |", "|---|---|---|---|---|---|"]
    for resolution, u_max in ((20, 0.1), (40, 0.1)):
        for quantity, value in zip(STEADY, steady(resolution, u_max), strict=True):
            lines.append(_row("2D-1, steady, Re = 20", resolution, u_max, quantity, value))
        tell(started, f"2D-1 at {resolution}")
    others = ["", "| nodes per D | u_max | mean C_D | C_L min | outflow / inflow - 1 |", "|---|---|---|---|---|"]
    for resolution, u_max in ((20, 0.1), (20, 0.05), (40, 0.05), (60, 0.05))[: 3 if quick else 4]:
        asked, more = unsteady(resolution, u_max)
        for quantity, value in zip(UNSTEADY, asked, strict=True):
            lines.append(_row("2D-2, unsteady, Re = 100", resolution, u_max, quantity, value))
        others.append(f"| {resolution} | {u_max} | {more[0]:.4f} | {more[1]:.4f} | {more[2]:+.1e} |")
        tell(started, f"2D-2 at {resolution}, {u_max}")
    lines += ["", "More results of 2D-2, for which the benchmark gives no interval:", *others, ""]
    lines += ["| Poiseuille flow, nodes per D | largest error of the velocity |", "|---|---|"]
    return lines + [f"| {resolution} | {poiseuille(resolution):.1e} |" for resolution in (10, 20, 40)]


def _row(case: str, resolution: int, u_max: float, quantity: Quantity, value: float) -> str:
    interval = f"{quantity.low} - {quantity.high}"
    return f"| {case} | {resolution} | {u_max} | {quantity.name} | {interval} | {quantity.said(value)} |"


if __name__ == "__main__":
    parser = arguments_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="skip the finest lattice")
    arguments = parser.parse_args()
    text = tables(arguments.quick)
    if comm.rank == 0:
        publish("cylinder_flow", text, arguments.results)
