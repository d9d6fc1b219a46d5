"""Run the shallow-water simulation on all ranks of the world. test_shallow_water.py checks the results."""

import math

import numpy as np
from cases import case, comm, continues, episode, make, refusal, repeats_itself, run
from mpi4py import MPI

from alchemist_ray.errors import SimulationDivergedError
from alchemist_ray.sim_libraries.shallow_water.exact import Bowl, dam_break
from alchemist_ray.sim_libraries.shallow_water.simulator import ShallowWater
from alchemist_ray.sim_libraries.shallow_water.solver import INSIDE, CellGrid, Solver

SMALL = {"nx": 64, "ny": 32}
ACTIONS = np.random.default_rng(7).uniform(-1, 1, (40, 4))


def flat(depth):
    return lambda x, y: np.full(np.broadcast_shapes(x.shape, y.shape), -depth)


def islands(x, y):
    return -1.0 + np.sin(x / 7) * np.cos(y / 5) + 0.7 * np.sin(x / 1.7 + y) + 0.3 * np.cos(9 * y)


@case
def the_same_on_any_number_of_ranks():
    simulation = make(ShallowWater, **SMALL)
    rows = episode(simulation, ACTIONS)
    field = simulation.get_field()
    info = simulation.get_info()
    return {"rows": rows, "field": np.nan_to_num(field.values, nan=99.0), "info": info} if comm.rank == 0 else None


@case
def the_same_seed_is_the_same_episode():
    return repeats_itself(make(ShallowWater, **SMALL), ACTIONS[:10])


@case
def a_snapshot_continues():
    return continues(make(ShallowWater, **SMALL), make(ShallowWater, **SMALL), ACTIONS)


@case
def each_rank_may_have_its_own():
    """Run simulations on sub-communicators while another one exists on all ranks."""
    whole = make(ShallowWater, **SMALL)
    whole.reset(1)
    alone = make(ShallowWater, on=MPI.COMM_SELF, **SMALL)
    rows = episode(alone, ACTIONS[: 5 + comm.rank], seed=1)
    whole.step(ACTIONS[0])
    state = whole.get_state()
    return {"alone": rows[1, :-1], "whole": state} if comm.rank == 0 else None


@case
def water_at_rest():
    solver = Solver(comm, CellGrid(48, 40, 1.0, 1.0), islands)
    h = np.maximum(0.3 - solver.bed[INSIDE], 0.0)
    solver.begin(h)
    solver.advance(10.0)
    moved = comm.allreduce(float(np.abs(solver.state[1:, *INSIDE]).max()), MPI.MAX)
    changed = comm.allreduce(float(np.abs(solver.state[0][INSIDE] - h).max()), MPI.MAX)
    dry = comm.allreduce(int((h == 0).sum()))
    return {"dry": dry, "speed": moved, "change": changed}


def _dam_break(n, right):
    solver = Solver(comm, CellGrid(n, 6, 50 / n, 50 / n), flat(0.0))
    x = solver.places()[0] - 25.0
    h = np.broadcast_to(np.where(x < 0, 1.0, right), solver.rectangle.shape)
    solver.begin(h)
    before = solver.total(h)
    solver.advance(3.5)
    got = solver.state[0][INSIDE]
    expected, _ = dam_break(x, 3.5, 1.0, right)
    error, volume = solver.total(np.abs(got - expected)), solver.total(got)
    return [error / before, abs(volume / before - 1)] if comm.rank == 0 else None


@case
def dams_break():
    return {name: [_dam_break(n, right) for n in (100, 200)] for name, right in (("wet", 0.1), ("dry", 0.0))}


@case
def a_standing_wave():
    """Return the delay of a wave after five periods, as a fraction of these, at two resolutions."""
    found = []
    for n in (12, 24):
        length, depth = 1000.0, 10.0
        solver = Solver(comm, CellGrid(n, 6, length / n, length / n), flat(depth))
        omega = math.pi / length * math.sqrt(9.81 * depth)
        mode = np.cos(np.pi * solver.places()[0] / length)
        solver.begin(np.broadcast_to(depth + 1e-4 * mode, solver.rectangle.shape))
        # A quarter of a period earlier the surface passes zero. Its value there, over its slope, is the delay.
        solver.advance((5 - 0.25) * 2 * math.pi / omega)
        first = solver.total((solver.state[0][INSIDE] - depth) * mode)
        solver.advance(0.01 * 2 * math.pi / omega)
        second = solver.total((solver.state[0][INSIDE] - depth) * mode)
        found.append(-first / (second - first) * 0.01 / 4.75 if comm.rank == 0 else None)
    return found


@case
def thackers_bowl():
    bowl, n = Bowl(), 64
    solver = Solver(comm, CellGrid(n, n, 4 / n, 4 / n), bowl.bed)
    x, y = solver.places()
    h, u, v = bowl.flow(x, y, 0.0)
    solver.begin(h, u, v)
    before = solver.total(h)
    quarter = 0.5 * math.pi / bowl.omega
    solver.advance(quarter)
    expected, _, _ = bowl.flow(x, y, quarter)
    got = solver.state[0][INSIDE]
    error, volume = solver.total(np.abs(got - expected)), solver.total(got)
    lowest = comm.allreduce(float(got.min()), MPI.MIN)
    return {"error": error / before, "volume": abs(volume / before - 1), "lowest": lowest} if comm.rank == 0 else None


@case
def waves_leave_through_the_west():
    """Return the energy that remains after a hump has left through the western end of a sea without incoming waves."""
    solver = Solver(comm, CellGrid(64, 16, 10.0, 10.0), flat(10.0))
    solver.incoming = lambda t: (np.zeros(solver.rectangle.shape[0]),) * 3
    x, _ = solver.places()
    hump = 0.1 * np.exp(-(((x - 250.0) / 40.0) ** 2))
    # A wave to the west has u = -sqrt(g/H) eta.
    solver.begin(np.broadcast_to(10.0 + hump, solver.rectangle.shape), -math.sqrt(9.81 / 10.0) * hump)

    def energy():
        h, u, v = (field[INSIDE] for field in solver.state)
        return solver.total(9.81 * (h - 10.0) ** 2 + h * (u * u + v * v))

    first = energy()
    solver.advance(50.0)
    last = energy()
    return last / first if comm.rank == 0 else None


@case
def calmer_with_absorbers():
    """Return the mean energy in the basin without control, and when each wave maker pushes against its local flow."""
    means = []
    simulation = make(ShallowWater, **SMALL)
    for gain in (0.0, 4.0):
        simulation.reset(3)
        total = 0.0
        for _ in range(100):
            state = comm.bcast(simulation.get_state())
            simulation.step(np.clip(-gain * state[12:24].reshape(4, 3)[:, 1], -1, 1))
            total += simulation.get_info()["basin_energy_share"] if comm.rank == 0 else 0.0
        means.append(total / 100)
    return means


@case
def what_is_refused():
    simulation = make(ShallowWater, **SMALL)
    return {
        "nx": refusal(lambda: make(ShallowWater, nx=8)),
        "ny": refusal(lambda: Solver(comm, CellGrid(2, 2, 1.0, 1.0), flat(1.0))) if comm.size > 1 else "ny",
        "cfl": refusal(lambda: make(ShallowWater, cfl=0.9)),
        "wave_height": refusal(lambda: make(ShallowWater, wave_height=-1.0)),
        "seed": refusal(lambda: simulation.reset(-1)),
    }


@case
def divergence():
    """Spoil the flow of one rank. All ranks raise the error, and a reset repairs the simulation."""
    simulation = make(ShallowWater, **SMALL)
    told = []
    for spoilt in (math.nan, 1e9):
        simulation.reset(1)
        if comm.rank == comm.size - 1:
            simulation.solver.state[1, 5, 5] = spoilt
        try:
            simulation.step(np.zeros(4))
            told.append(False)
        except SimulationDivergedError:
            told.append(True)
    fine = episode(simulation, ACTIONS[:2])
    everywhere = comm.allreduce(all(told), MPI.LAND)
    return {"told": everywhere, "again": bool(np.isfinite(fine).all())}


run()
