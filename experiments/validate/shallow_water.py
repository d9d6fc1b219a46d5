"""Compare the shallow-water solver with exact solutions: ``python experiments/validate/shallow_water.py``.

Prints a table in Markdown, which takes about a minute on one core. ``--results DIR`` also writes it to
``DIR/validation_shallow_water.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from mpi4py import MPI
from validation import arguments_of, publish, table_lines

from alchemist_ray.sim_libraries.shallow_water.exact import Bowl, dam_break
from alchemist_ray.sim_libraries.shallow_water.kernels import GRAVITY
from alchemist_ray.sim_libraries.shallow_water.solver import INSIDE, CellGrid, Solver

comm = MPI.COMM_SELF
Row = list[str]


def bumps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return an uneven bed with heights between -3 m and 2 m."""
    return -1.0 + np.sin(x / 7) * np.cos(y / 5) + 0.7 * np.sin(x / 1.7 + y) + 0.3 * np.cos(9 * y)


def lake_at_rest() -> Iterator[Row]:
    """Check that a lake with islands stays at rest."""
    solver = Solver(comm, CellGrid(96, 64, 1.0, 1.0), bumps)
    solver.begin(np.maximum(-0.4 - solver.bed[INSIDE], 0.0))
    h = solver.state[0][INSIDE].copy()
    volume = h.sum()
    steps = solver.advance(100.0)
    moved = np.abs(solver.state[1:, *INSIDE]).max()
    dry = (h == 0).mean()
    yield [f"lake at rest with {dry:.0%} islands, {steps} steps", "96 x 64", "largest speed", f"{moved:.1e} m/s", ""]
    yield ["", "", "largest change of the depth", f"{np.abs(solver.state[0][INSIDE] - h).max():.1e} m", ""]
    yield ["", "", "change of the volume", f"{abs(solver.state[0][INSIDE].sum() - volume) / volume:.1e}", ""]


def dam_break_error(n: int, right: float, t: float) -> tuple[float, float]:
    """Return the relative L1 error of the depth after a dam break, and the relative change of the volume."""
    solver = Solver(
        comm, CellGrid(n, 2, 50.0 / n, 50.0 / n), lambda x, y: np.zeros(np.broadcast_shapes(x.shape, y.shape))
    )
    x = solver.places()[0] - 25.0
    h = np.broadcast_to(np.where(x < 0, 1.0, right), (2, n))
    solver.begin(h)
    solver.advance(t)
    got = solver.state[0][INSIDE]
    expected, _ = dam_break(x, t, 1.0, right)
    return float(np.abs(got - expected).sum() / (2 * expected.sum())), float(abs(got.sum() - h.sum()) / h.sum())


def dam_breaks() -> Iterator[Row]:
    """Compare dam breaks over water and over a dry bed with the exact solutions."""
    for name, right in (("Stoker's dam break, 1 m over 0.1 m", 0.1), ("Ritter's dam break, 1 m over a dry bed", 0.0)):
        errors = {n: dam_break_error(n, right, 3.5) for n in (100, 200, 400, 800)}
        yield from convergence(name, "L1 error of the depth", {n: error for n, (error, _) in errors.items()})
        yield ["", "", "largest change of the volume", f"{max(change for _, change in errors.values()):.1e}", ""]


def standing_wave_error(n: int) -> float:
    """Return the relative error of the frequency of a closed basin's first standing wave, measured over ten periods."""
    length, depth, amplitude = 1000.0, 10.0, 1e-4
    solver = Solver(
        comm,
        CellGrid(n, 4, length / n, length / n),
        lambda x, y: np.full(np.broadcast_shapes(x.shape, y.shape), -depth),
    )
    mode = np.cos(np.pi * solver.places()[0] / length)
    solver.begin(np.broadcast_to(depth + amplitude * mode, (4, n)))
    period = 2 * length / math.sqrt(GRAVITY * depth)
    interval = period / 40
    course = [amplitude]
    for _ in range(400):
        solver.advance(interval)
        course.append(float(2 * ((solver.state[0][INSIDE] - depth) * mode).mean()))
    values = np.array(course)
    down = np.flatnonzero((values[:-1] > 0) & (values[1:] <= 0))
    crossings = interval * (down + values[down] / (values[down] - values[down + 1]))
    measured = (crossings[-1] - crossings[0]) / (len(crossings) - 1)
    return abs(period / measured - 1)


def standing_wave() -> Iterator[Row]:
    """Compare the frequency of a small standing wave with the exact one."""
    errors = {n: standing_wave_error(n) for n in (16, 32, 64)}
    yield from convergence("standing wave in a closed basin, 10 periods", "error of the frequency", errors)


def bowl_error(n: int) -> tuple[float, float]:
    """Return the relative L1 error of the depth in Thacker's bowl after a period, and the change of the volume."""
    bowl = Bowl()
    solver = Solver(comm, CellGrid(n, n, 4.0 / n, 4.0 / n), bowl.bed)
    x, y = solver.places()
    h, u, v = bowl.flow(x, y, 0.0)
    solver.begin(h, u, v)
    solver.advance(2 * math.pi / bowl.omega)
    got = solver.state[0][INSIDE]
    return float(np.abs(got - h).sum() / h.sum()), float(abs(got.sum() - h.sum()) / h.sum())


def bowls() -> Iterator[Row]:
    """Compare water that circles in a bowl with Thacker's exact solution."""
    errors = {n: bowl_error(n) for n in (50, 100, 200)}
    name = "Thacker's planar surface in a paraboloid, one period"
    yield from convergence(name, "L1 error of the depth", {n: error for n, (error, _) in errors.items()})
    yield ["", "", "largest change of the volume", f"{max(change for _, change in errors.values()):.1e}", ""]


def convergence(name: str, what: str, errors: dict[int, float]) -> Iterator[Row]:
    """Yield rows with the errors by number of cells, and the order of convergence between rows."""
    before: tuple[int, float] | None = None
    for n, error in errors.items():
        order = f"{math.log(before[1] / error) / math.log(n / before[0]):.2f}" if before else ""
        yield ["" if before else name, f"{n}", what, f"{error:.2e}", order]
        before = (n, error)


def rows() -> Iterator[Row]:
    """Yield all rows of the table."""
    for part in (lake_at_rest, dam_breaks, standing_wave, bowls):
        yield from part()


if __name__ == "__main__":
    lines = table_lines(["case", "cells", "measured", "value", "order"], rows())
    publish("shallow_water", lines, arguments_of(__doc__).parse_args().results)
