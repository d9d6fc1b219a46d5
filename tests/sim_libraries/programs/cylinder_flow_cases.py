"""Compare the flow past a cylinder under MPI with exact solutions, the benchmark, and itself (test_cylinder_flow.py).

Cases that test the code use a short channel and hardly wait for the vortex street. Cases of the benchmark use the whole
channel.
"""

import functools

import numpy as np
from cases import case, comm, continues, episode, make, refusal, repeats_itself, run
from mpi4py import MPI

from alchemist_ray.sim_libraries.cylinder_flow import lattice
from alchemist_ray.sim_libraries.cylinder_flow.flow import ChannelFlow
from alchemist_ray.sim_libraries.cylinder_flow.geometry import ChannelGeometry
from alchemist_ray.sim_libraries.cylinder_flow.simulator import CylinderFlow

SHORT = {"length": 8.0, "u_max": 0.15, "start_time": 1.0, "action_time": 0.1}
ACTIONS = np.random.default_rng(5).uniform(-0.5, 0.5, (40, 1))


@case
def rotating():
    return episode(make(CylinderFlow, **SHORT), ACTIONS[:20])


@case
def blowing():
    """Return an episode with jets, the field after it, and the info of the last action."""
    simulation = make(CylinderFlow, actuation="jets", **SHORT)
    rows = episode(simulation, ACTIONS[:10])
    seen = simulation.get_field()
    solid = None if seen is None else np.isnan(seen.values).sum()
    return [rows, None if seen is None else np.nan_to_num(seen.values[::7, ::7]), solid, simulation.get_info()]


@case
def repeats():
    return repeats_itself(make(CylinderFlow, **SHORT), ACTIONS[:10])


@case
def snapshots():
    return continues(make(CylinderFlow, **SHORT), make(CylinderFlow, **SHORT), ACTIONS)


@case
def ranks_agree():
    """Return whether all ranks begin at the same phase without a seed: equal scores, and a flow without jumps."""
    simulation = make(CylinderFlow, **SHORT)
    simulation.reset(None)
    simulation.step(np.array([0.3]))
    seen = [simulation.get_score(), *simulation.get_info().values()]
    moments = simulation._flow.gather()
    jump = 0.0 if moments is None else np.abs(np.diff(moments[0, 60], axis=0)).max()
    return [comm.allgather(seen) == [seen] * comm.size, jump]


@case
def apart():
    """Return whether simultaneous simulations on single ranks equal the simulation on all ranks."""
    alone, together = make(CylinderFlow, MPI.COMM_SELF, **SHORT), make(CylinderFlow, **SHORT)
    for simulation in (alone, together):
        simulation.reset(3)
    for action in ACTIONS[:3]:
        together.step(action)
        alone.step(action)
    ours, theirs = together.get_state(), alone.get_state()
    return None if ours is None else float(np.abs(ours - theirs).max())


@case
def divergence():
    """Return the error text for a flow on a lattice that is too coarse."""
    return refusal(lambda: make(CylinderFlow, reynolds=400.0, **{**SHORT, "start_time": 3.0}).reset(1))


@case
def refusals():
    wrong = {
        "resolution": 25,
        "reynolds": 0.0,
        "length": 3.0,
        "u_max": 0.3,
        "actuation": "magic",
        "amplitude": -1.0,
        "action_time": 0.0,
        "lift_penalty": float("nan"),
        "start_time": -1.0,
    }
    return {name: refusal(functools.partial(make, CylinderFlow, **{name: value})) for name, value in wrong.items()}


@case
def poiseuille():
    """Return the largest error of Poiseuille flow for two resolutions, relative to the largest velocity."""
    errors = []
    for resolution in (10, 20):
        flow = ChannelFlow(comm, ChannelGeometry(resolution, 8.0, cylinder=False), 10.0, 0.1)
        flow.advance(np.zeros(100 * resolution))
        _, ux, uy = flow.gather()
        errors.append(max(np.abs(ux - flow.channel.inflow(0.1)[1::2, None]).max(), np.abs(uy).max()) / 0.1)
    return errors


@case
def shear_decay():
    """Return the decay error of u = sin(pi y / H) between plates and the change of mass, at three resolutions."""
    found = []
    for ny in (8, 16, 32):
        viscosity, steps = 0.1, ny * ny
        y = (np.arange(ny) + 0.5) / ny
        u = 0.01 * np.sin(np.pi * y)
        f = np.zeros((2, 9, ny + 2, 12))
        for i in range(9):
            f[0, i, 1:-1] = (lattice.WEIGHT[i] * 3 * lattice.CX[i] * u)[:, None]
        spans = np.array([(row, 0, 12) for row in range(1, ny + 1)])
        nothing = np.zeros((0, 6), int), np.zeros((0, 4)), np.zeros(2 * ny + 1)
        mass = f[0, :, 1:-1, 1:-1].sum()
        for t in range(steps):
            f[t % 2, :, :, 0], f[t % 2, :, :, -1] = f[t % 2, :, :, -2], f[t % 2, :, :, 1]
            lattice.advance(f, t % 2, spans, *nothing, (1, 11), (True, True), lattice.relaxation_rates(viscosity),
                            (0.6, 0.0), np.zeros(1), np.zeros((1, 3)))  # fmt: skip
        f = f[steps % 2, :, 1:-1, 1:-1]
        left = np.tensordot(lattice.CX, f, 1).mean(axis=1)
        exact = u * np.exp(-viscosity * (np.pi / ny) ** 2 * steps)
        found.append([np.abs(left / exact - 1).max(), abs(f.sum() - mass)])
    return found


@case
def steady():
    """Return the coefficients of drag and lift of the benchmark 2D-1."""
    flow = ChannelFlow(comm, ChannelGeometry(20, 8.0), 20.0, 0.1)
    flow.advance(np.zeros(8000))
    return flow.coefficients(flow.advance(np.zeros(1)))[0, :2]


@case
def street():
    """Return drag, lift and frequency of the developed flow of the benchmark 2D-2, and means over 14 idle steps."""
    simulation = make(CylinderFlow, start_time=20.0)
    simulation.reset(1)
    street = simulation._develop()
    simulation.reset(1)
    scores = []
    for _ in range(14):
        simulation.step(np.zeros(1))
        scores.append([simulation.get_info()["drag"], simulation.get_info()["lift"]])
    return [street.drag, street.lift_amplitude, simulation._flow.time_unit / street.period, np.mean(scores, axis=0)]


run()
