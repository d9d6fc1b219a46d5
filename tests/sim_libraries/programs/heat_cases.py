"""Compare the heated plate under MPI with its own modes, analytic solutions, and itself (test_heat.py, on four ranks).

The ranks form one grid of two by two, or a strip of three and a single rank, or two pairs, or four single ranks.
"""

import numpy as np
from cases import case, comm, continues, make, play, refusal, repeats_itself, run
from mpi4py import MPI

from alchemist_ray.sim_libraries.heat.controller import Controller, Regulator
from alchemist_ray.sim_libraries.heat.model import Integrator, Plate
from alchemist_ray.sim_libraries.heat.simulator import Heat

rng = np.random.default_rng(5)
ACTIONS = rng.uniform(-3, 3, (40, 8))
GROUPS = (comm, comm.Split(comm.rank // 3), comm.Split(comm.rank // 2), MPI.COMM_SELF)


def field(plate, on=MPI.COMM_SELF):
    """Return the temperature on all ranks of the simulation. Rows go upwards."""
    seen = plate.get_field()
    return on.bcast(None if seen is None else seen.values[::-1])


def amplitudes_of(values, plate):
    cosines = plate.cosines(plate.n)
    return (cosines @ values @ cosines.T / plate.n**2).ravel()


def difference_from_modal_system(on, n, halo, supersteps, actuators_per_side):
    """Return the largest difference of field, state and score from the linear system of all modes."""
    plate = make(Heat, on, n=n, halo=halo, supersteps=supersteps, actuators_per_side=actuators_per_side)
    plate.reset(7)
    x = amplitudes_of(field(plate, on), plate.plate)
    a, B = plate.integrator.modal_system(n)
    cosines = plate.plate.cosines(n)
    worst = 0.0
    for action in rng.uniform(-3, 3, (5, plate.plate.actuators)):
        action = on.bcast(action)
        plate.step(action)
        x = a * x + B @ action
        worst = max(
            worst,
            np.abs(field(plate, on) - cosines.T @ x.reshape(n, n) @ cosines).max(),
            np.abs(plate.get_state() - x.reshape(n, n)[:4, :4].ravel()).max(),
            abs(plate.get_score() + x @ x + 0.1 * np.mean(action**2)),
        )
    return worst


@case
def all_modes():
    """Return the largest difference from the modal system over a few plates, for each grouping of the ranks."""
    plates = ((24, 3, 2, 2), (31, 8, 1, 3), (20, 1, 3, 1))
    return [max(difference_from_modal_system(on, *plate) for plate in plates) for on in GROUPS]


@case
def episode():
    """Return the largest difference between fields of a grouping and of simultaneous plates on single ranks."""
    plates = [make(Heat, on, n=33) for on in GROUPS]
    for plate in plates:
        plate.reset(11)
    for action in ACTIONS[:10]:
        for plate in plates:
            plate.step(action)
    fields = [field(plate, on) for plate, on in zip(plates, GROUPS, strict=True)]
    return [float(np.abs(each - fields[-1]).max()) for each in fields]


@case
def ranks_agree():
    """Return whether, without a seed, all ranks have parts of one temperature, and equal states and scores."""
    plate = make(Heat, n=16)
    plate.reset(None)
    own = amplitudes_of(field(plate, comm), plate.plate).reshape(16, 16)[:4, :4].ravel()
    seen = [*plate.get_state(), plate.get_score()]
    return bool(np.allclose(own, plate.get_state(), atol=1e-13) and comm.allgather(seen) == [seen] * comm.size)


@case
def repeats():
    return [repeats_itself(make(Heat, on, n=26), ACTIONS[:10]) for on in GROUPS]


@case
def snapshots():
    return [continues(make(Heat, on, n=26), make(Heat, on, n=26), ACTIONS) for on in GROUPS]


@case
def heat_balance():
    """Return the relative difference between the heat in the plate and the heat from the actuators."""
    plate = make(Heat, MPI.COMM_SELF, n=40, side=0.5)
    plate.reset(2)
    capacity = 401.0 / 1.17e-4 * 0.5**2 / 1000
    heat = before = capacity * plate.get_info()["mean_temperature"]
    for action in ACTIONS[:10]:
        plate.step(action + 1)
        heat += plate.get_info()["heat"]
    return abs(capacity * plate.get_info()["mean_temperature"] - heat) / abs(heat - before)


@case
def steady_state():
    """Return the largest relative difference from T = q (L/2 - x) / k if q flows in at the west and out at the east."""
    plate = make(Heat, MPI.COMM_SELF, n=24, interval=6000.0, supersteps=50)
    plate.reset(1)
    action = np.array([2.0, 2.0, -2.0, -2.0, 0.0, 0.0, 0.0, 0.0])
    for _ in range(6):
        plate.step(action)
    x = (np.arange(24) + 0.5) / 24
    expected = 2000.0 / 401.0 * (0.5 - x)
    found = field(plate)
    return np.abs(found - found.mean() - expected).max() / np.abs(expected).max()


@case
def decay_errors():
    """Return the relative error of the decay rate of the mode (2 of y, 1 of x) for increasing n."""
    errors = []
    for n in (16, 32, 64):
        plate = make(Heat, MPI.COMM_SELF, n=n, supersteps=16)
        amplitudes = np.zeros((3, 3))
        amplitudes[2, 1] = 1.0
        plate.set_amplitudes(amplitudes)
        play(plate, np.zeros((3, 8)))
        rate = -np.log(plate.get_state()[2 * 4 + 1]) / 180.0
        errors.append(rate / (1.17e-4 * 5 * np.pi**2) - 1)
    return errors


@case
def time_errors():
    """Return the error of the observed modes after a driven episode with 1, 2, 4 and 8 supersteps, on the same grid."""
    errors = []
    a, B = Integrator(Plate(n=16)).exact_modal_system(4)
    for supersteps in (1, 2, 4, 8):
        plate = make(Heat, MPI.COMM_SELF, n=16, supersteps=supersteps)
        plate.reset(4)
        x = plate.get_state()
        play(plate, ACTIONS[:6])
        for action in ACTIONS[:6]:
            x = a * x + B @ action
        errors.append(np.linalg.norm(plate.get_state() - x))
    return errors


@case
def costs():
    """Return, for one seed on each rank, the controller's cost, the cost by Riccati, and the cost without control."""
    plate = make(Heat, MPI.COMM_SELF, n=32)
    regulator = Regulator.of({"n": 32}, 12)
    bound = np.full(8, 6.0)
    controller = Controller(regulator, 4, -bound, bound)
    plate.reset(comm.rank)
    x = amplitudes_of(field(plate), plate.plate).reshape(32, 32)[:12, :12].ravel()
    cost = 0.0
    for step in range(40):
        plate.step(controller(plate.get_state(), step))
        cost -= plate.get_score()
    plate.reset(comm.rank)
    idle = -play(plate, np.zeros((40, 8)))[:, -1].sum()
    return comm.allgather([cost, regulator.cost(x, regulator.horizon(40)), idle])


@case
def refusals():
    wrong = [
        {"n": 3},
        {"supersteps": 0},
        {"interval": -1.0},
        {"max_flux": float("nan")},
        {"halo": 0},
        {"flux_weight": -1.0},
        {"observed_modes": 600},
    ]
    return {f"{next(iter(each))}": refusal(lambda each=each: make(Heat, **each)) for each in wrong}


@case
def divergence():
    """Return the error for a temperature that is not finite on one rank. All ranks raise it, and a reset repairs it."""
    plate = make(Heat, n=16)
    plate.reset(0)
    if comm.rank == comm.size - 1:
        plate.temperature[0, 0] = np.nan
    text = refusal(lambda: plate.step(np.zeros(8)))
    plate.reset(0)
    plate.step(np.zeros(8))
    return text if np.isfinite(plate.get_score()) else ""


run()
