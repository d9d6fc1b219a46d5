"""Hold LAMMPS under its thermostat against published numbers: ``python experiments/validate_lammps_md.py``.

Prints tables in Markdown; it takes some two minutes on one core. ``--results DIR`` also writes them to
``DIR/validation_lammps_md.md``. ``--search`` finds the best linear cooling schedule for
``experiments/ppo_lammps_md.yaml`` instead: all starts and ends of a grid, then the best of them on more seeds.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mpi4py import MPI

from alchemist_ray.envs.controllers.lammps_md import linear_temperature
from alchemist_ray.sim_libraries.lammps_md import LammpsMD, systems
from alchemist_ray.sim_libraries.lammps_md.structures import (
    LEAST_ENERGIES,
    icosahedron,
    script_of,
    truncated_octahedron,
)

Row = list[str]

EXPERIMENT = Path(__file__).with_name("ppo_lammps_md.yaml")
SEARCH_SEEDS, REFINE_SEEDS = range(30001, 30041), range(31001, 31201)
"""Of the search for the linear schedule: neither trained nor evaluated on."""
STARTS, ENDS, KEPT = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), (0.05, 0.1, 0.15, 0.2, 0.3), 4

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
"""Density: energy per atom and pressure at T = 0.85; NIST's Monte Carlo, cut at 3 with long-range corrections."""


def simulation(**parameters: Any) -> LammpsMD:
    """Return a simulation on one rank."""
    return LammpsMD(MPI.COMM_SELF, **parameters)


# --- the tables -------------------------------------------------------------------------------------------------------


def minima() -> Iterator[Row]:
    """Quench the structures of least energy."""
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
    """Follow the energy of a liquid of 500 atoms whose bath takes for ever: over 20 units of time."""
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
    """Return potential and kinetic energy per atom."""
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
    """Compare energy and pressure of the Lennard-Jones fluid with NIST's."""
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
    """Return the mean, and its standard error from ten blocks."""
    blocks = [np.mean(block) for block in np.array_split(samples, 10)]
    return f"{np.mean(samples):.4f} ± {np.std(blocks, ddof=1) / math.sqrt(10):.4f}"


# --- the best linear schedule -----------------------------------------------------------------------------------------


def energies_of(annealed: LammpsMD, actions: int, start: float, end: float, seeds: Iterable[int]) -> np.ndarray:
    """Return the energy that a linear schedule reaches with each seed, above that of the ground state."""
    low, high = (float(bound[0]) for bound in annealed.action_space.bounds())
    found = []
    for seed in seeds:
        annealed.reset(seed)
        for step in range(actions):
            temperature = linear_temperature(step, actions, start, end)
            annealed.step(np.array([min(max(temperature, low), high)]))
        info = annealed.get_info()
        found.append(info["final_energy"] - info["depth"] * LEAST_ENERGIES[13])
    return np.array(found)


def search() -> Iterator[Row]:
    """Try linear schedules: a grid, then the best of them on more seeds. The last row is the best."""
    parameters = yaml.safe_load(EXPERIMENT.read_text())["environment"]["params"]
    annealed, actions = simulation(**parameters), parameters["actions"]
    tried = {
        (start, end): energies_of(annealed, actions, start, end, SEARCH_SEEDS)
        for start, end in itertools.product(STARTS, ENDS)
        if start >= end
    }
    first = sorted(tried, key=lambda pair: float(tried[pair].mean()))
    again = {pair: energies_of(annealed, actions, *pair, REFINE_SEEDS) for pair in first[:KEPT]}
    for stage, energies, pairs in (("grid", tried, first[::-1]), ("best again", again, first[:KEPT])):
        for pair in sorted(pairs, key=lambda pair: -float(energies[pair].mean())):
            values = energies[pair]
            error = values.std(ddof=1) / math.sqrt(len(values))
            yield [stage, f"{pair[0]}", f"{pair[1]}", str(len(values)), f"{values.mean():.3f} ± {error:.3f}"]


# --- printing ---------------------------------------------------------------------------------------------------------

TABLES = {
    "Energy of the minimum of a cluster, against the Cambridge Cluster Database": (
        ["cluster", "published", "found", "difference"], minima
    ),
    "Energy per atom without a bath: fluctuation and drift over 18 units of time": (
        ["time step", "fluctuation", "drift", "order"], conserved
    ),
    "Kinetic temperature at T = 1: mean, and variance in terms of 2 T²/(3N - 3)": (
        ["thermostat", "mean", "variance"], canonical
    ),
    "Lennard-Jones fluid at T = 0.85, against NIST": (["density", "", "published", "found"], fluid),
}  # fmt: skip
SEARCH = {
    "Linear cooling schedules: energy above the ground state": (["", "start", "end", "seeds", "energy"], search),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, metavar="DIR", help="also write the tables there")
    parser.add_argument("--search", action="store_true", help="find the best linear cooling schedule")
    arguments = parser.parse_args()
    lines: list[str] = []
    for title, (heading, rows) in (SEARCH if arguments.search else TABLES).items():
        table = [f"**{title}**", "", row_of(heading), row_of(["---"] * len(heading)), *map(row_of, rows()), ""]
        print("\n".join(table), flush=True)
        lines += table
    if arguments.results is not None:
        arguments.results.mkdir(parents=True, exist_ok=True)
        name = "linear_schedules_lammps_md.md" if arguments.search else "validation_lammps_md.md"
        (arguments.results / name).write_text("\n".join(lines))


def row_of(cells: list[str]) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
