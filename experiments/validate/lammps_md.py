"""Compare LAMMPS under its thermostat with published numbers: ``python experiments/validate/lammps_md.py``.

Prints tables in Markdown, which takes about two minutes on one core. ``--results DIR`` also writes them to
``DIR/validation_lammps_md.md``.

``--search`` instead finds the best linear cooling schedules for ``experiments/ppo_lammps_md.yaml``. It tries a grid of
starts and ends, then the best of them on more seeds, in two minutes. ``--compare DIR`` instead compares the policies of
that experiment, whose results are in DIR: the energies that they reach, in depths of the potential.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from mpi4py import MPI
from validation import arguments_of, lines_of, publish, table_lines

from alchemist_ray.sim_libraries.lammps_md import systems
from alchemist_ray.sim_libraries.lammps_md.controller import linear_temperature, scale_by_energy
from alchemist_ray.sim_libraries.lammps_md.simulator import LammpsMD
from alchemist_ray.sim_libraries.lammps_md.structures import (
    LEAST_ENERGIES,
    icosahedron,
    script_of,
    truncated_octahedron,
)

Array = npt.NDArray[Any]
Row = list[str]

EXPERIMENT = Path(__file__).parents[1] / "ppo_lammps_md.yaml"
SEARCH_SEEDS, REFINE_SEEDS, KEPT = range(30001, 30041), range(31001, 31201), 4
"""Seeds of the two rounds, disjoint from those of training and evaluation, and how many schedules reach round two."""
SCHEDULES: dict[str, tuple[Callable[[Array], float], Sequence[float], Sequence[float]]] = {
    "absolute": (lambda state: 1.0, (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "of the first state": (scale_by_energy, (0.5, 0.65, 0.8, 0.95, 1.1, 1.3, 1.6), (0.1, 0.2, 0.35, 0.5, 0.65)),
}
"""Kind of schedule -> unit of its temperatures as a function of the first state, starts to try, ends to try."""

FLUID = """
units lj
lattice fcc {density}
region box block 0 6 0 6 0 6
create_box 1 box
create_atoms 1 box
mass 1 1.0
pair_style lj/cut 3.0
pair_coeff 1 1 1.0 1.0
pair_modify tail yes
timestep 0.004
"""
PUBLISHED = {0.776: (-5.5121, 0.0067714), 0.86: (-6.0305, None)}
"""Density -> energy per atom and pressure at T = 0.85. From NIST's Monte Carlo, cutoff 3 with tail corrections."""


def simulation(**parameters: Any) -> LammpsMD:
    """Return a simulation on one rank."""
    return LammpsMD(MPI.COMM_SELF, **parameters)


# --- the tables -------------------------------------------------------------------------------------------------------


def minima() -> Iterator[Row]:
    """Quench the clusters of least energy."""
    for points in (icosahedron(), truncated_octahedron()):
        quenched = simulation(
            script=script_of(points), temperature_low=1e-3, start_temperature=1e-3, steps_per_action=20, melt_steps=20,
            actions=1, shell_radius=1.4, force_tolerance=1e-8,
        )  # fmt: skip
        quenched.reset(1)
        quenched.step(np.array([1e-3]))
        found, exact = quenched.get_info()["final_energy"], LEAST_ENERGIES[len(points)]
        yield [f"{len(points)} atoms", f"{exact:.6f}", f"{found:.6f}", f"{found - exact:+.1e}"]


def conserved() -> Iterator[Row]:
    """Follow the energy of a liquid of 500 atoms over 20 units of time. The damping is so large that no bath acts."""
    before = 0.0
    for timestep in (0.01, 0.005, 0.0025):
        script = systems.melt(500, 0.8442).replace("timestep 0.01", f"timestep {timestep}")
        liquid = simulation(script=script, damping=1e12, start_temperature=2.0, melt_steps=1, actions=100,
                            steps_per_action=round(0.5 / timestep))  # fmt: skip
        liquid.reset(3)
        energies = []
        for _ in range(40):
            liquid.step(np.array([1.0]))
            energies.append(total_energy(liquid))
        error = float(np.std(energies[4:]))
        order = f"{math.log2(before / error):.1f}" if before else ""
        yield [f"{timestep}", f"{error:.1e}", f"{energies[-1] - energies[4]:+.1e}", order]
        before = error


def total_energy(liquid: LammpsMD) -> float:
    """Return the sum of potential and kinetic energy per atom."""
    lammps, ctx, atoms = liquid._running, liquid._ctx, liquid._natoms
    kinetic = 1.5 * (atoms - 1) * lammps.compute(ctx, "alchemist_temperature")
    return float(lammps.compute(ctx, "thermo_pe") + kinetic) / atoms


def canonical() -> Iterator[Row]:
    """Sample the kinetic temperature of 256 atoms at T = 1, and compare with the canonical ensemble."""
    freedoms = 3 * 256 - 3
    for thermostat in ("csvr", "langevin"):
        liquid = simulation(atoms=256, thermostat=thermostat, start_temperature=1.0, steps_per_action=20, actions=2000)
        liquid.reset(4)
        temperatures = []
        for step in range(1000):
            liquid.step(np.array([1.0]))
            if step >= 50:
                temperatures.append(liquid._running.compute(liquid._ctx, "alchemist_temperature"))
        mean, variance = float(np.mean(temperatures)), float(np.var(temperatures)) * freedoms / 2
        yield [thermostat, f"{mean:.4f}", f"{variance:.3f}"]


def fluid() -> Iterator[Row]:
    """Compare energy and pressure of the Lennard-Jones fluid with NIST's values."""
    for density, (energy, pressure) in PUBLISHED.items():
        liquid = simulation(script=FLUID.format(density=density), start_temperature=1.5, steps_per_action=100,
                            melt_steps=1000, actions=1000)  # fmt: skip
        liquid.reset(5)
        energies, pressures = [], []
        for step in range(160):
            liquid.step(np.array([0.85]))
            if step >= 30:
                info = liquid.get_info()
                energies.append(info["potential_energy"])
                pressures.append(info["pressure"])
        yield [f"{density}", "U/N", f"{energy:.4f}", with_error(energies)]
        if pressure is not None:
            yield [f"{density}", "p", f"{pressure:.4f}", with_error(pressures)]


def with_error(samples: list[float]) -> str:
    """Return the mean and its standard error, estimated from ten blocks."""
    blocks = [np.mean(block) for block in np.array_split(samples, 10)]
    return f"{np.mean(samples):.4f} ± {np.std(blocks, ddof=1) / math.sqrt(10):.4f}"


# --- the best linear schedules ----------------------------------------------------------------------------------------


class Annealing:
    """The learning problem of the experiment."""

    def __init__(self) -> None:
        parameters = yaml.safe_load(EXPERIMENT.read_text())["environment"]["params"]
        self.simulation, self.actions = simulation(**parameters), parameters["actions"]
        self.low, self.high = (float(bound[0]) for bound in self.simulation.action_space.bounds())

    def excesses(self, scale: Callable[[Array], float], start: float, end: float, seeds: Iterable[int]) -> Array:
        """Return the final energy of a linear schedule above the ground state for each seed, in depths."""
        return np.array([self._excess(scale, start, end, seed) for seed in seeds])

    def _excess(self, scale: Callable[[Array], float], start: float, end: float, seed: int) -> float:
        self.simulation.reset(seed)
        unit = scale(np.asarray(self.simulation.get_state()))
        for step in range(self.actions):
            temperature = unit * linear_temperature(step, self.actions, start, end)
            self.simulation.step(np.array([min(max(temperature, self.low), self.high)]))
        info = self.simulation.get_info() or {}
        return excess_in_depths(info["final_energy"], info["depth"])


def excess_in_depths(final_energy: float, depth: float) -> float:
    """Return the energy of 13 atoms above their ground state, in depths of the potential."""
    return final_energy / depth - LEAST_ENERGIES[13]


def search() -> Iterator[Row]:
    """Try linear schedules of each kind: a grid, then the best of them on more seeds. The best comes last."""
    annealing = Annealing()
    for kind, (scale, starts, ends) in SCHEDULES.items():
        pairs = [(start, end) for start, end in itertools.product(starts, ends) if start >= end]
        for seeds, stage in ((SEARCH_SEEDS, kind), (REFINE_SEEDS, f"{kind}, again")):
            found = {pair: annealing.excesses(scale, *pair, seeds) for pair in pairs}
            pairs = sorted(pairs, key=lambda pair: -float(found[pair].mean()))
            for pair in pairs:
                yield [stage, *map(str, pair), str(len(seeds)), mean_of(found[pair])]
            pairs = pairs[-KEPT:]


def mean_of(values: Array) -> str:
    """Return the mean and its standard error."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.3f}"


def compare(results: Path) -> Iterator[Row]:
    """Compare each policy of an evaluation with the trained one, episode by episode."""
    evaluations = json.loads((results / "evaluation.json").read_text())["policies"]
    found = {
        name: np.array([
            excess_in_depths(info["final_energy"], info["depth"]) for info in (each["info"] for each in one["episodes"])
        ])
        for name, one in evaluations.items()
    }  # fmt: skip
    trained = next(iter(found.values()))
    for name, excess in found.items():
        ground = f"{100 * np.mean(excess < 1e-3):.0f} %"
        yield [name, mean_of(excess), ground, "" if excess is trained else mean_of(excess - trained)]


# --- printing ---------------------------------------------------------------------------------------------------------

TABLES = (
    (
        "Least energy of a cluster, compared with the Cambridge Cluster Database",
        ["cluster", "published", "found", "difference"],
        minima,
    ),
    (
        "Energy per atom without a heat bath: fluctuation and drift over 18 units of time",
        ["time step", "fluctuation", "drift", "order"],
        conserved,
    ),
    (
        "Kinetic temperature at T = 1: mean, and variance as a multiple of 2 T²/(3N - 3)",
        ["thermostat", "mean", "variance"],
        canonical,
    ),
    ("Lennard-Jones fluid at T = 0.85, compared with NIST", ["density", "quantity", "published", "found"], fluid),
)
TRIED = ["temperatures", "start", "end", "seeds", "(energy - ground state) / depth"]
COMPARED = [
    "policy",
    "(energy - ground state) / depth",
    "in the ground state",
    "difference from the first, on the same seeds",
]


def main() -> None:
    """Print the validation tables, or one of the tables about the experiment."""
    parser = arguments_of(__doc__)
    parser.add_argument("--search", action="store_true", help="find the best linear cooling schedules")
    parser.add_argument("--compare", type=Path, metavar="DIR", help="compare the policies of an evaluation")
    arguments = parser.parse_args()
    if arguments.compare is not None:
        print("\n".join(table_lines(COMPARED, compare(arguments.compare))))
    elif arguments.search:
        search_to(arguments.results)
    else:
        publish("lammps_md", lines_of(TABLES), arguments.results)


def search_to(directory: Path | None) -> None:
    """Print the table of the search row by row, and write it to `directory` unless that is None."""
    lines = []
    for line in table_lines(TRIED, search()):
        print(line, flush=True)
        lines.append(line)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        heading = "# Linear cooling schedules\n\nPrinted by `python experiments/validate/lammps_md.py --search`.\n"
        (directory / "linear_schedules_lammps_md.md").write_text("\n".join([heading, *lines]) + "\n")


if __name__ == "__main__":
    main()
