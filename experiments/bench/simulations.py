"""How fast the simulations are: ``python experiments/bench/simulations.py [NAME ...]``.

Each simulation runs at its default parameters, its actions in the middle of their range, on one rank and on two in
turn, every time in an MPI job of its own. What a step costs includes the state and the score. A run counts as its
median step; work is in the unit of the field. ``NAME:parameter=number,...`` measures it at other parameters.
``--results DIR`` also writes the tables to ``DIR/simulations.md``.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EFFICIENCY = 0.75
"""What is asked of two ranks: a speed of at least 2 x 0.75 times that of one."""
LATTICE, ASKED_OF_LATTICE = "cylinder_flow", 40.0
"""The lattice Boltzmann simulation, and the MLUPS that are asked of it on one rank."""
CLASSES = {
    "heat": "Heat",
    "kuramoto_sivashinsky": "KuramotoSivashinsky",
    "cylinder_flow": "CylinderFlow",
    "lammps_md": "LammpsMD",
    "shallow_water": "ShallowWater",
    "acoustics": "Acoustics",
}
LARGER = ["kuramoto_sivashinsky:length=2816"]
"""Measured as well: what by default is too little work for two ranks."""
WARM_UP = 3


def _module_of(name: str) -> str:
    """Return the module that has the class of a simulation; that of a simulation in C is made by its package."""
    return f"alchemist_ray.sim_libraries.{name}" + ("" if name == "acoustics" else ".simulator")


def name_and_parameters(case: str) -> tuple[str, dict[str, float]]:
    """Return what ``NAME:parameter=number,...`` says."""
    name, _, rest = case.partition(":")
    pairs = (pair.partition("=") for pair in rest.split(",") if pair)
    return name, {key: int(value) if value.isdigit() else float(value) for key, _, value in pairs}


# --- on the ranks of a job --------------------------------------------------------------------------------------------


def run_on_ranks(case: str, seconds: float) -> None:
    """Step through one simulation for about `seconds`; rank 0 prints how long its steps took. Collective."""
    from mpi4py import MPI

    from alchemist_ray.mpi_backend.ali import TaskContext

    comm = MPI.COMM_WORLD
    name, parameters = name_and_parameters(case)
    kind = getattr(importlib.import_module(_module_of(name)), CLASSES[name])
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
    """How fast a simulation was on one rank and on two, in work per second, by run.

    Attributes
    ----------
    name, unit : str
        Of the simulation, and of its work.
    step, fastest : dict
        Number of ranks -> seconds of the median and the fastest step, of each run.
    rate : dict
        Number of ranks -> work per second, of each run.
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
        """Speed on two ranks over twice that on one, of each pair of runs."""
        return [two / (2 * one) for one, two in zip(self.rate[1], self.rate[2], strict=True)]

    @property
    def efficiency(self) -> float:
        """The median efficiency."""
        return statistics.median(self.efficiencies)

    @property
    def is_default(self) -> bool:
        """Whether it ran at its default parameters, of which something is asked."""
        return ":" not in self.name

    @property
    def falls_short(self) -> bool:
        """Whether two ranks were less efficient than is asked."""
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
    """Return the whole numbers among the default parameters of a simulation: its size."""
    kind: Any = getattr(importlib.import_module(_module_of(name)), CLASSES[name])
    defaults = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    return ", ".join(f"{key} = {value}" for key, value in defaults.items() if type(value) is int)


INTRODUCTION = f"""# Simulations: a run

`python experiments/bench/simulations.py` on {os.cpu_count()} cores, each rank with one thread. One rank and two take
turns, each run in an MPI job of its own; a run counts as its median step, a figure is the median of the runs. The
efficiency is that of pairs of runs: the speed on two ranks over twice that on one. Beside it stands that of the fastest
steps of all runs, which other work on the machine has disturbed least.
"""


def table(rows: list[list[str]]) -> list[str]:
    """Return rows of cells, the first of them the head, as the lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def report(measured: list[Speeds]) -> list[str]:
    """Return the lines under the table: the sizes, and the lattice Boltzmann kernel against what is asked of it."""
    sizes = [f"`{speeds.name}` {parameters_of(speeds.name)}" for speeds in measured if speeds.is_default]
    lines = [f"Defaults: {'; '.join(sizes)}."]
    for speeds in measured:
        if speeds.name == LATTICE:
            rate = statistics.median(speeds.rate[1])
            reached = "reached" if rate >= ASKED_OF_LATTICE else "NOT reached"
            asked = f"{ASKED_OF_LATTICE:g} asked, {reached}"
            lines += ["", f"Lattice Boltzmann on one core: {rate:.1f} {speeds.unit}/s; {asked}."]
    return lines


def main() -> int:
    """Measure the simulations that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CLASSES)}, or NAME:parameter=number")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of stepping in each run (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="directory to write the tables to as well")
    parser.add_argument("--on-ranks", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.on_ranks:
        run_on_ranks(arguments.on_ranks, arguments.seconds)
        return 0
    if unknown := {name_and_parameters(case)[0] for case in arguments.names} - set(CLASSES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(CLASSES)}")
    measured = [Speeds(name) for name in arguments.names or [*CLASSES, *LARGER]]
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
