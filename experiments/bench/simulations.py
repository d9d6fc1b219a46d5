"""Measure the speed of the simulations: ``python experiments/bench/simulations.py [NAME ...]``.

Each simulation runs with its default parameters and with actions in the middle of their range. It runs on one rank and
on two ranks in turn, each time as a separate MPI job. A step includes reading the state and the score. The result of a
run is its median step. Work is counted in the unit that the field uses. ``NAME:parameter=number,...`` measures a
simulation with other parameters. ``--results DIR`` also writes the tables to ``DIR/simulations.md``.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from alchemist_ray.mpi_backend.registry import ENTRY_POINTS, Registry

if TYPE_CHECKING:
    from alchemist_ray.mpi_backend.ali import Simulator

EFFICIENCY = 0.75
"""Two ranks should be at least 2 x 0.75 times as fast as one."""
LATTICE, ASKED_OF_LATTICE = "cylinder_flow", 40.0
"""The lattice Boltzmann simulation, and the MLUPS that it should reach on one rank."""
LARGER = ["kuramoto_sivashinsky:length=2816"]
"""Larger cases of simulations whose defaults are too little work for two ranks."""
WARM_UP = 3
CORES = os.cpu_count()


@functools.cache
def simulations() -> list[str]:
    """Return the names of the simulations of this package: libraries registered from ``sim_libraries``."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return sorted({point.name for point in points if point.value.startswith("alchemist_ray.sim_libraries.")})


def class_of(name: str) -> type[Simulator]:
    """Return the class of a simulation: the one simulator that its library defines."""
    from alchemist_ray.mpi_backend.ali.library import import_library
    from alchemist_ray.mpi_backend.ali.simulations.calls import simulator_of

    kind = simulator_of(name, import_library(name, Registry({}).resolve(name, None)))
    if kind is None:
        raise LookupError(f"the library {name} has no simulator")
    return kind


def name_and_parameters(case: str) -> tuple[str, dict[str, float]]:
    """Split ``NAME:parameter=number,...`` into the name and the parameters."""
    name, _, rest = case.partition(":")
    pairs = (pair.partition("=") for pair in rest.split(",") if pair)
    return name, {key: int(value) if value.isdigit() else float(value) for key, _, value in pairs}


# --- on the ranks of a job --------------------------------------------------------------------------------------------


def run_on_ranks(case: str, seconds: float) -> None:
    """Step one simulation for about `seconds`. Rank 0 prints the time of each step. Collective."""
    from mpi4py import MPI

    from alchemist_ray.mpi_backend.ali import TaskContext

    comm = MPI.COMM_WORLD
    name, parameters = name_and_parameters(case)
    kind = class_of(name)
    simulation = kind.__new__(kind)
    simulation.context = TaskContext(comm, f"{name}.create")
    simulation.__init__(comm, **parameters)
    low, high = simulation.action_space.bounds()
    action = 0.5 * (low + high)

    def one_step() -> float:
        started = time.perf_counter()
        simulation.step(action)
        simulation.get_state()
        simulation.get_score()
        took = time.perf_counter() - started
        if comm.bcast(simulation.is_finished()):
            simulation.reset(1)
        return took

    simulation.reset(1)
    for _ in range(WARM_UP):
        one_step()
    comm.Barrier()
    took = [one_step()]
    while comm.bcast(sum(took) < seconds):
        took.append(one_step())
    amount, unit = getattr(simulation, "work_per_step", (1.0, "step"))
    if comm.rank == 0:
        print(json.dumps({"seconds": took, "amount": amount, "unit": unit}))
    simulation.close()


# --- around the jobs --------------------------------------------------------------------------------------------------


@dataclass
class Speeds:
    """The speed of a simulation on one rank and on two, for each run.

    Attributes
    ----------
    name, unit : str
        Name of the simulation, and unit of its work.
    step, fastest : dict
        Number of ranks -> seconds of the median step and of the fastest step, one for each run.
    rate : dict
        Number of ranks -> work per second, one for each run.
    """

    name: str
    unit: str = ""
    step: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})
    fastest: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})
    rate: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})

    def measure(self, size: int, seconds: float) -> None:
        """Add a run on `size` ranks."""
        mpiexec = Path(sys.executable).with_name("mpiexec")
        command = [mpiexec, "-n", str(size), sys.executable, "-m", "mpi4py", __file__]
        ran = subprocess.run(
            [*command, "--on-ranks", self.name, "--seconds", str(seconds)],
            check=True,
            capture_output=True,
            text=True,
            timeout=20 * seconds + 120,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        found = json.loads(ran.stdout.splitlines()[-1])
        self.unit = found["unit"]
        self.step[size].append(statistics.median(found["seconds"]))
        self.fastest[size].append(min(found["seconds"]))
        self.rate[size].append(found["amount"] / self.step[size][-1])

    @property
    def efficiencies(self) -> list[float]:
        """Speed on two ranks divided by twice the speed on one, for each pair of runs."""
        return [two / (2 * one) for one, two in zip(self.rate[1], self.rate[2], strict=True)]

    @property
    def efficiency(self) -> float:
        """The median efficiency."""
        return statistics.median(self.efficiencies)

    @property
    def is_default(self) -> bool:
        """Whether it ran with its default parameters. Only these have a target."""
        return ":" not in self.name

    @property
    def falls_short(self) -> bool:
        """Whether two ranks were less efficient than the target."""
        return self.is_default and self.efficiency < EFFICIENCY

    def row(self) -> list[str]:
        """Return the cells of a table row."""
        one, two = (f"{statistics.median(self.rate[size]):.4g}" for size in (1, 2))
        steps = " / ".join(f"{statistics.median(self.step[size]) * 1e3:.3g}" for size in (1, 2))
        worst, best = min(self.efficiencies), max(self.efficiencies)
        return [
            self.name,
            f"{self.unit}/s",
            one,
            two,
            steps,
            f"{self.efficiency:.2f}",
            f"{worst:.2f} - {best:.2f} of {len(self.efficiencies)}",
            f"{min(self.fastest[1]) / (2 * min(self.fastest[2])):.2f}",
            *([f">= {EFFICIENCY}", "NO" if self.falls_short else "yes"] if self.is_default else ["", ""]),
        ]


HEAD = ["simulation", "unit", "1 rank", "2 ranks", "step, ms (1 / 2)", "efficiency", "spread", "of the fastest steps",
        "asked", "reached"]  # fmt: skip


def parameters_of(name: str) -> str:
    """Return the integers among the default parameters of a simulation, which give its size."""
    defaults = {p.name: p.default for p in inspect.signature(class_of(name)).parameters.values()}
    return ", ".join(f"{key} = {value}" for key, value in defaults.items() if type(value) is int)


INTRODUCTION = f"""# Speed of the simulations

Measured by `python experiments/bench/simulations.py` on {CORES} cores, with one thread for each rank. Runs on one rank
and on two ranks alternate, and each run is a separate MPI job. The result of a run is its median step, and each figure
is the median of the runs. The efficiency compares pairs of runs: the speed on two ranks divided by twice the speed on
one. The last efficiency is that of the fastest steps of all runs, which other work on the machine disturbed least.
"""


def table(rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table. The first row of cells is the head."""
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def report(measured: list[Speeds]) -> list[str]:
    """Return the lines under the table: the sizes, and the speed of the lattice Boltzmann kernel with its target."""
    sizes = [f"`{speeds.name}` {parameters_of(speeds.name)}" for speeds in measured if speeds.is_default]
    lines = [f"Defaults: {'; '.join(sizes)}."]
    for speeds in measured:
        if speeds.name == LATTICE:
            rate = statistics.median(speeds.rate[1])
            reached = "reached" if rate >= ASKED_OF_LATTICE else "NOT reached"
            asked = f"the target of {ASKED_OF_LATTICE:g} is {reached}"
            lines += ["", f"Lattice Boltzmann on one core: {rate:.1f} {speeds.unit}/s; {asked}."]
    return lines


def main() -> int:
    """Measure the chosen simulations and print their table."""
    names = simulations()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(names)}, or NAME:parameter=number (default: all)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="stepping time of a run (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="also write the tables to this directory")
    parser.add_argument("--on-ranks", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.on_ranks:
        run_on_ranks(arguments.on_ranks, arguments.seconds)
        return 0
    if unknown := {name_and_parameters(case)[0] for case in arguments.names} - set(names):
        parser.error(f"unknown simulation {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    measured = [Speeds(name) for name in arguments.names or [*names, *LARGER]]
    for number in range(1, arguments.repeats + 1):
        for speeds in measured:
            print(f"{speeds.name}, {number} of {arguments.repeats} ...", file=sys.stderr, flush=True)
            for size in (1, 2):
                speeds.measure(size, arguments.seconds)
    text = "\n".join([*table([HEAD, *(speeds.row() for speeds in measured)]), "", *report(measured)])
    print(text)
    if arguments.results is not None:
        arguments.results.mkdir(parents=True, exist_ok=True)
        (arguments.results / "simulations.md").write_text(f"{INTRODUCTION}\n{text}\n")
    slow_lattice = any(s.name == LATTICE and statistics.median(s.rate[1]) < ASKED_OF_LATTICE for s in measured)
    return 1 if slow_lattice or any(speeds.falls_short for speeds in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
