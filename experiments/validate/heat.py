"""Compare the heated plate with analytic solutions and the Riccati equation: ``python experiments/validate/heat.py``.

Prints tables in Markdown, which takes about a minute on one core. ``--results DIR`` also writes them to
``DIR/validation_heat.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from mpi4py import MPI
from validation import arguments_of, lines_of, publish

from alchemist_ray.sim_libraries.heat.controller import MODES, Controller, Regulator
from alchemist_ray.sim_libraries.heat.model import INITIAL_MODES, Integrator, Plate
from alchemist_ray.sim_libraries.heat.simulator import Heat

Row = list[str]

DEFAULT = Plate(n=256)
STEPS = 40
"""Steps of an episode."""
SEEDS = range(10001, 10011)


def plate(**parameters: float) -> Heat:
    """Return a simulation on one rank."""
    return Heat(MPI.COMM_SELF, **{"n": DEFAULT.n, **parameters})


def driven(seed: int, steps: int) -> np.ndarray:
    """Return random actions [kW/m2]."""
    return np.random.default_rng(seed).uniform(-3, 3, (steps, DEFAULT.actuators))


# --- the plate ------------------------------------------------------------------------------------------------------


def decay() -> Iterator[Row]:
    """Measure how modes decay without control, at 256 x 256 cells."""
    simulation = plate()
    for k, m in ((0, 1), (1, 1), (2, 0), (2, 1), (3, 3)):
        amplitudes = np.zeros((INITIAL_MODES, INITIAL_MODES))
        amplitudes[k, m] = 1.0
        simulation.set_amplitudes(amplitudes)
        for _ in range(5):
            simulation.step(np.zeros(DEFAULT.actuators))
        found = -math.log(simulation.get_state()[4 * k + m]) / (5 * Integrator.interval)
        exact = DEFAULT.diffusivity * (math.pi / DEFAULT.side) ** 2 * (k**2 + m**2)
        yield [f"({k}, {m})", f"{exact:.6e}", f"{found:.6e}", f"{found / exact - 1:+.1e}"]


def error_against(system: tuple[np.ndarray, np.ndarray], simulation: Heat) -> float:
    """Return the root mean square error of the observed modes in a driven episode [K]."""
    a, B = system
    simulation.reset(1)
    x = simulation.get_state()
    squares = []
    for action in driven(2, 10):
        simulation.step(action)
        x = a * x + B @ action
        squares.append(np.sum((simulation.get_state() - x) ** 2))
    return math.sqrt(np.mean(squares))


def in_space() -> Iterator[Row]:
    """Refine the grid. The reference is a grid of 8192 cells in a row, whose error is below 1e-7 K."""
    exact = Integrator(Plate(n=8192)).exact_modal_system(4)
    yield from orders({n: error_against(exact, plate(n=n, supersteps=64)) for n in (16, 32, 64, 128)})


def in_time() -> Iterator[Row]:
    """Refine the time steps. The reference is the exact solution in time on the same grid."""
    exact = Integrator(Plate(n=64)).exact_modal_system(4)
    yield from orders({steps: error_against(exact, plate(n=64, supersteps=steps)) for steps in (1, 2, 4, 8, 16)})


def orders(errors: dict[int, float]) -> Iterator[Row]:
    """Yield rows with the errors by number of cells or steps, and the order of convergence between rows."""
    before: tuple[int, float] | None = None
    for count, error in errors.items():
        order = f"{math.log(before[1] / error) / math.log(count / before[0]):.2f}" if before else ""
        yield [str(count), f"{error:.2e}", order]
        before = (count, error)


def conserved() -> Iterator[Row]:
    """Check the heat balance, all modes against their linear system, and a steady state against a linear profile."""
    simulation = plate()
    capacity = DEFAULT.conductivity / DEFAULT.diffusivity * DEFAULT.side**2 / 1000
    simulation.reset(3)
    x = all_modes(simulation)
    a, B = simulation.integrator.modal_system(DEFAULT.n)
    before, heat = capacity * simulation.get_info()["mean_temperature"], 0.0
    for action in driven(4, 20) + 1:
        simulation.step(action)
        heat += simulation.get_info()["heat"]
        x = a * x + B @ action
    gained = capacity * simulation.get_info()["mean_temperature"] - before
    yield ["heat gained in 20 driven steps, compared with the heat put in", f"{abs(gained - heat) / heat:.1e}"]
    difference = np.abs(all_modes(simulation) - x).max() / np.abs(x).max()
    yield [f"all {DEFAULT.n**2} modes after these steps, compared with x <- a x + B u", f"{difference:.1e}"]
    coarse = plate(n=64, interval=6000.0, supersteps=50)
    coarse.reset(1)
    for _ in range(6):
        coarse.step(np.array([2.0, 2.0, -2.0, -2.0, 0.0, 0.0, 0.0, 0.0]))
    exact = 2000.0 / DEFAULT.conductivity * (0.5 - (np.arange(64) + 0.5) / 64)
    found = coarse.temperature - coarse.temperature.mean()
    steady = "steady state with flux in at the west and out at the east, compared with a linear T"
    yield [steady, f"{relative(found, exact):.1e}"]


def relative(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the largest difference, relative to the largest exact value."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def all_modes(simulation: Heat) -> np.ndarray:
    """Return the amplitudes of all modes of a simulation on one rank."""
    cosines = simulation.plate.cosines(simulation.plate.n)
    return (cosines @ simulation.temperature @ cosines.T / simulation.plate.n**2).ravel()


# --- the controller -------------------------------------------------------------------------------------------------


def episode(simulation: Heat, controller: Controller | None, seed: int) -> tuple[np.ndarray, float, float]:
    """Play an episode. Return the initial modes, the cost, and the largest action [kW/m2]."""
    simulation.reset(seed)
    start, cost, greatest = all_modes(simulation), 0.0, 0.0
    for step in range(STEPS):
        action = np.zeros(DEFAULT.actuators) if controller is None else controller(simulation.get_state(), step)
        simulation.step(action)
        cost -= simulation.get_score()
        greatest = max(greatest, float(np.abs(action).max()))
    return start, cost, greatest


def controller_of(simulation: Heat, modes: int) -> Controller:
    """Return the controller that models this many modes in each direction."""
    low, high = simulation.action_space.bounds()
    return Controller(Regulator(simulation.integrator, modes=modes), 4, low, high)


def lowest(x: np.ndarray, modes: int) -> np.ndarray:
    """Return the amplitudes of the lowest `modes` x `modes` modes."""
    n = math.isqrt(x.size)
    return x.reshape(n, n)[:modes, :modes].ravel()


def by_modes() -> Iterator[Row]:
    """Increase the number of modes in the regulator. The costs are summed over all seeds, on a grid of 64 x 64."""
    simulation = plate(n=64)
    for modes in (4, 6, 8, 12, 16):
        regulator = Regulator(simulation.integrator, modes=modes)
        finite = regulator.horizon(STEPS)
        played = [episode(simulation, controller_of(simulation, modes), seed) for seed in SEEDS]
        starts = [lowest(start, modes) for start, _, _ in played]
        sums = (
            sum(regulator.cost(x) for x in starts),
            sum(regulator.cost(x, finite) for x in starts),
            sum(cost for _, cost, _ in played),
        )
        yield [str(modes), *(f"{total:.5f}" for total in sums)]


def by_seed() -> Iterator[Row]:
    """Play an episode for each seed at 256 x 256 cells."""
    simulation = plate()
    regulator = Regulator(simulation.integrator, modes=16)
    totals = np.zeros(3)
    for seed in SEEDS:
        start, cost, greatest = episode(simulation, controller_of(simulation, MODES), seed)
        _, idle, _ = episode(simulation, None, seed)
        costs = np.array([regulator.cost(lowest(start, 16)), cost, idle])
        totals += costs
        yield [str(seed), *figures(costs), f"{greatest:.2f}"]
    yield ["mean", *figures(totals / len(SEEDS)), ""]


def figures(costs: np.ndarray) -> Row:
    """Return the predicted and the simulated cost, their relative difference, and the uncontrolled cost."""
    predicted, simulated, idle = costs
    return [f"{predicted:.4f}", f"{simulated:.4f}", f"{simulated / predicted - 1:+.2%}", f"{idle:.4f}"]


# --- the tables -----------------------------------------------------------------------------------------------------

TABLES = (
    ("Decay rates at 256 x 256 cells", ["mode", "analytic [1/s]", "simulated [1/s]", "relative error"], decay),
    ("Error by number of cells in a row, 64 supersteps", ["cells", "rms error [K]", "order"], in_space),
    (
        "Error by number of supersteps in an interval of 60 s, 64 x 64 cells",
        ["supersteps", "rms error [K]", "order"],
        in_time,
    ),
    ("Balances", ["balance", "relative difference"], conserved),
    (
        "Cost of ten controlled episodes by number of modes in the regulator, 64 x 64 cells",
        [
            "modes in each direction",
            "predicted, infinite horizon [K2]",
            f"predicted, {STEPS} steps [K2]",
            "simulated [K2]",
        ],
        by_modes,
    ),
    (
        f"Cost of {STEPS} steps at 256 x 256 cells, predicted with 16 x 16 modes, "
        f"controlled with {MODES} x {MODES} modes",
        ["seed", "x0'(P - I)x0 [K2]", "simulated [K2]", "difference", "no control [K2]", "largest flux [kW/m2]"],
        by_seed,
    ),
)


if __name__ == "__main__":
    publish("heat", lines_of(TABLES), arguments_of(__doc__).parse_args().results)
