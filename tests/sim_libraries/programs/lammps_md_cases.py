"""Run the LAMMPS simulation on all ranks of the world. test_lammps_md.py checks the results."""

import numpy as np
from cases import case, comm, continues, episode, make, refusal, repeats_itself, run
from mpi4py import MPI

from alchemist_ray.errors import SimulationDivergedError
from alchemist_ray.sim_libraries.lammps_md.simulator import LammpsMD
from alchemist_ray.sim_libraries.lammps_md.structures import icosahedron, script_of, truncated_octahedron

CLUSTER = {
    "system": "cluster",
    "atoms": 38,
    "melt_steps": 100,
    "temperature_low": 0.05,
    "temperature_high": 0.6,
    "actions": 60,
}
MELT = {"atoms": 256, "melt_steps": 100, "actions": 60}
TEMPERATURES = np.random.default_rng(7).uniform(0.1, 0.6, (42, 1))

SQUARE_LATTICE = """
units lj
dimension 2
boundary p p p
lattice sq 0.7
region box block 0 12 0 12 -0.1 0.1
create_box 2 box
create_atoms 1 box
set group all type/fraction 2 0.3 ${seed}
mass * ${mass}
pair_style lj/cut 2.5
pair_coeff * * 1.0 1.0
fix flat all enforce2d
timestep 0.005
"""


def quenched(points):
    """Return the energy of the minimum that is closest to these points."""
    simulation = make(
        LammpsMD, script=script_of(points), temperature_low=1e-3, start_temperature=1e-3, steps_per_action=20,
        melt_steps=20, actions=1, shell_radius=1.4, force_tolerance=1e-8,
    )  # fmt: skip
    simulation.reset(1)
    simulation.step([1e-3])
    return simulation.get_info()["final_energy"]


@case
def ground_states():
    return {"13": quenched(icosahedron()), "38": quenched(truncated_octahedron())}


@case
def the_same_on_any_number_of_ranks():
    simulation = make(LammpsMD, **MELT, steps_per_action=10)
    return episode(simulation, TEMPERATURES[:4])


@case
def the_same_seed_is_the_same_episode():
    cluster = make(LammpsMD, **CLUSTER, steps_per_action=10)
    langevin = make(LammpsMD, **CLUSTER, steps_per_action=10, thermostat="langevin")
    return [repeats_itself(each, TEMPERATURES[:10]) for each in (cluster, langevin)]


@case
def snapshots_continue():
    found = []
    for parameters in ({**CLUSTER, "depth_ratio": 4.0}, {**CLUSTER, "thermostat": "langevin"}, MELT):
        pair = [make(LammpsMD, **parameters, steps_per_action=5) for _ in range(2)]
        found.append(continues(*pair, TEMPERATURES))
    return found


@case
def simulations_side_by_side():
    alone = make(LammpsMD, MPI.COMM_SELF, **CLUSTER, steps_per_action=10)
    both = make(LammpsMD, **CLUSTER, steps_per_action=10)
    rows = [episode(alone, TEMPERATURES[:3], seed=5)]
    episode(both, TEMPERATURES[:2])
    alone.reset(5)
    for action in TEMPERATURES[:3]:
        both.step(action)
        alone.step(action)
    return bool(np.array_equal(rows[0][-1, :-1], alone.get_state()))


@case
def energy_without_a_bath():
    simulation = make(LammpsMD, **MELT, damping=1e12, steps_per_action=100)
    simulation.reset(3)
    lammps, ctx, energies = simulation._running, simulation._ctx, []
    for _ in range(8):
        simulation.step([0.5])
        kinetic = 1.5 * (256 - 1) * lammps.compute(ctx, "alchemist_temperature")
        energies.append((lammps.compute(ctx, "thermo_pe") + kinetic) / 256)
    return energies


@case
def canonical():
    """Sample the kinetic energy of 3 N - 3 degrees of freedom at temperature 1."""
    simulation = make(LammpsMD, **{**MELT, "actions": 400}, start_temperature=1.0, steps_per_action=16)
    simulation.reset(4)
    temperatures = []
    for step in range(200):
        simulation.step([1.0])
        if step >= 40:
            temperatures.append(simulation._running.compute(simulation._ctx, "alchemist_temperature"))
    return {"mean": np.mean(temperatures), "variance": np.var(temperatures) * (3 * 256 - 3) / 2}


@case
def scores():
    """Return the scores with and without shaping. Their sums differ by the first Phi only."""
    found = []
    for shaping in (True, False):
        options = {"steps_per_action": 50, "score_scale": 38.0, "depth_ratio": 4.0, "shaping": shaping}
        simulation = make(LammpsMD, **{**CLUSTER, "actions": 6}, **options)
        rows = episode(simulation, np.linspace(0.3, 0.1, 6)[:, None], seed=2)
        info = simulation.get_info()
        reference = 38 * simulation._reference
        found.append({"rows": rows, "final": info["final_energy"], "reference": reference, "depth": info["depth"]})
        finished = simulation.is_finished()
        after = refusal(lambda simulation=simulation: simulation.step([0.1]))
    return {"episodes": found, "finished": finished, "after": after}


@case
def a_script_of_the_user():
    simulation = make(
        LammpsMD, script=SQUARE_LATTICE, variables={"mass": 1.5}, temperature_low=0.05, steps_per_action=25,
        melt_steps=60,
    )  # fmt: skip
    rows = episode(simulation, TEMPERATURES[:4])
    field = simulation.get_field()
    space = simulation.observation_space
    values = field.values if comm.rank == 0 else np.zeros((1, 1))
    return {
        "rows": rows,
        "names": list(space.names),
        "units": list(space.units),
        "work": simulation.work_per_step,
        "covered": np.isfinite(values).mean(),
        "range": [np.nanmin(values), np.nanmax(values)],
        "continues": continues(simulation, simulation, TEMPERATURES[:4]),
    }


@case
def refusals():
    def of(**parameters):
        return refusal(lambda: make(LammpsMD, **parameters))

    nve, melt = SQUARE_LATTICE + "fix own all nvt temp 1 1 1\n", SQUARE_LATTICE.replace("${mass}", "1")
    return {
        "nonsense": of(script=melt.replace("pair_style lj/cut 2.5", "pair_style nonsense 2.5")),
        "no atoms": of(script="units lj\nregion box block 0 4 0 4 0 4\ncreate_box 1 box"),
        "no box": of(script="units lj"),
        "integrates": of(script=nve.replace("${mass}", "1")),
        "group": of(script=melt, group="liquid"),
        "shell": refusal(lambda: make(LammpsMD, **MELT, shell_radius=4.0).reset(1)),
        "depth": of(script=melt, depth_ratio=2.0),
        "atoms": of(atoms=1000),
        "system": of(system="glass"),
        "both": of(script=melt, path="melt.in"),
        "missing file": of(path="/nowhere/melt.in"),
        "seed": of(script=melt, variables={"seed": 3}),
        "temperatures": of(temperature_low=1.0, temperature_high=0.5),
        "actions": of(actions=0),
        "damping": of(damping=float("nan")),
    }


@case
def too_hot():
    """Let atoms fly through the fixed walls of the box. All ranks raise the same error, and a reset repairs it."""
    simulation = make(LammpsMD, script=script_of(icosahedron()), shell_radius=1.4, temperature_high=1e3,
                      start_temperature=0.1, steps_per_action=100, damping=0.01)  # fmt: skip
    simulation.reset(1)
    text, kind = "", ""
    try:
        for _ in range(20):
            simulation.step([1e3])
    except SimulationDivergedError as lost:
        text, kind = str(lost), type(lost).__name__
    said = comm.allgather((kind, text))
    before = refusal(lambda: simulation.step([0.1]))
    simulation.reset(1)
    simulation.step([0.1])
    return {"same": len(set(said)) == 1, "text": text, "before reset": before}


run()
