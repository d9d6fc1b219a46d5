"""Compare the Kuramoto-Sivashinsky equation under MPI with linear theory, known waves, and itself, on three ranks.

The ranks are one group, a pair and a single rank, or three single ranks.
"""

import numpy as np
from cases import case, comm, continues, episode, make, play, refusal, repeats_itself, run
from mpi4py import MPI

from alchemist_ray.sim_libraries.kuramoto_sivashinsky.simulator import KuramotoSivashinsky
from alchemist_ray.sim_libraries.kuramoto_sivashinsky.waves import find_wave

PAIR = comm.Split(comm.rank // 2)
GROUPS = (comm, PAIR, MPI.COMM_SELF)
ACTIONS = np.random.default_rng(5).uniform(-1, 1, (44, 4))
LONG = {"length": 400.0, "burn_in": 5.0}
"""Three patches."""
REST = np.zeros(4)


def begin(on=MPI.COMM_SELF, *, u, **parameters):
    """Return a simulation that starts from the samples `u`."""
    simulation = make(KuramotoSivashinsky, on, burn_in=0.0, points=u.size, **parameters)
    simulation.reset(0)
    simulation.set_solution(u)
    return simulation


def solution(simulation):
    return simulation.comm.bcast(simulation.get_solution())


def grid(points, length=22.0):
    return np.arange(points) * length / points


def rough(points, length=22.0, seed=1):
    """Return a state on the attractor, interpolated to `points`."""
    simulation = make(KuramotoSivashinsky, MPI.COMM_SELF, length=length, patches=1)
    simulation.reset(seed)
    coefficients = np.fft.rfft(simulation.get_solution())
    return np.fft.irfft(coefficients, points) * points / simulation.grid.points


def same_values(one, other):
    return np.array_equal(one, other, equal_nan=True)


@case
def groupings():
    """Return whether each grouping gives the same episode bit for bit, for a long and a short interval."""
    found = []
    for parameters in (LONG, {"burn_in": 5.0}):
        episodes = []
        for on in GROUPS:
            simulation = make(KuramotoSivashinsky, on, **parameters)
            rows = episode(simulation, ACTIONS[:20], 3)
            u, picture = solution(simulation), simulation.get_field()
            episodes.append((rows, u, picture.values) if picture is not None else None)
        alike = (all(map(same_values, one, episodes[-1])) for one in episodes if one is not None)
        found.append(all(comm.allgather(all(alike))))
    return found


@case
def snapshots():
    return [
        continues(make(KuramotoSivashinsky, on, **each), make(KuramotoSivashinsky, on, **each), ACTIONS)
        for on in (comm, MPI.COMM_SELF)
        for each in (LONG, {"burn_in": 5.0})
    ]


@case
def repeats():
    return [repeats_itself(make(KuramotoSivashinsky, comm, **each), ACTIONS[:10]) for each in (LONG, {"burn_in": 5.0})]


@case
def ranks_agree():
    """Return whether, without a seed, the ranks begin with parts of one solution, and with a new one each time."""
    simulation = make(KuramotoSivashinsky, comm, **LONG)
    seen = []
    for _ in range(2):
        simulation.reset(None)
        seen.append(simulation.get_score())
        seen.append(float(np.abs(solution(simulation)[:: simulation.grid.points // 8] - simulation.get_state()).max()))
    return comm.allgather(seen) == [seen] * comm.size and seen[0] != seen[2] and seen[1] == seen[3] == 0.0


@case
def growth_rates():
    """Return the largest error of the growth rate of small waves, on one patch and on three."""
    errors = []
    for length, patches, on, modes in ((22.0, 1, MPI.COMM_SELF, (1, 2, 3, 4, 6)), (400.0, 3, comm, (5, 40, 63, 80))):
        points = round(length * 64 / 22 / 8) * 8 if patches > 1 else 64
        x, worst = grid(points, length), 0.0
        for mode in modes:
            k = 2 * np.pi * mode / length
            wave = np.cos(k * x + 0.3)
            simulation = begin(on, u=1e-8 * wave, length=length, patches=patches)
            play(simulation, [REST] * 2)
            amplitude = 2 * np.mean(solution(simulation) * wave) / 1e-8
            worst = max(worst, abs(np.log(amplitude) / 0.5 - (k**2 - k**4)))
        errors.append(worst)
    return errors


@case
def patches_against_one():
    """Return the largest difference between solutions on two patches and on one, after 20 intervals on a fine grid."""
    u = rough(1536, 256.0)
    simulations = [begin(on, u=u, length=256.0, patches=count) for on, count in ((comm, 2), (MPI.COMM_SELF, 1))]
    for simulation in simulations:
        play(simulation, ACTIONS[:20])
    scores = [simulation.get_score() for simulation in simulations]
    return [float(np.abs(solution(simulations[0]) - solution(simulations[1])).max()), abs(scores[0] - scores[1])]


def published():
    """Yield the waves for L = 22 of Cvitanovic, Davidchack & Siminos (2010), found from their rough shapes."""
    shapes = {
        "E1": ([0.5j], 0.0),
        "E2": ([0, 1j], 0.0),
        "E3": ([0, 0, 1.25j], 0.0),
        "TW1": ([0.435, 0.356 - 0.037j, 0.266 - 0.123j, 0.09 - 0.2j, -0.051 - 0.094j], 0.7),
        "TW2": ([0.419, 0.178 + 0.146j, -0.287 - 0.422j, -0.093 + 0.32j], -0.35),
    }
    for name, (coefficients, speed) in shapes.items():
        yield name, find_wave(np.fft.irfft(64 * np.array([0, *coefficients]), 64), 22.0, speed)


@case
def waves():
    """Return for each wave: energy, speed, leading eigenvalue, deviation in the simulation, and error of the growth."""
    found = {}
    for name, wave in published():
        value, mode = wave.eigenvalues[0], wave.modes[:, 0]
        pushed = wave.u + 1e-6 * mode.real
        kept, disturbed = begin(u=wave.u, time_step=0.025), begin(u=pushed, time_step=0.025)
        for simulation in (kept, disturbed):
            play(simulation, [REST] * 8)
        k = 2 * np.pi / 22 * np.arange(33)
        course = np.fft.irfft(np.fft.rfft(wave.u) * np.exp(-1j * k * wave.speed * 2.0), 64)
        expected = np.fft.irfft(np.fft.rfft((mode * np.exp(value * 2.0)).real) * np.exp(-1j * k * wave.speed * 2.0), 64)
        difference = (disturbed.get_solution() - kept.get_solution()) / 1e-6
        found[name] = {
            "energy": wave.energy,
            "speed": abs(wave.speed),
            "rate": value.real,
            "frequency": abs(value.imag),
            "off course": float(np.abs(kept.get_solution() - course).max()),
            "growth": float(np.linalg.norm(difference - expected) / np.linalg.norm(expected)),
        }
    return found


@case
def time_errors():
    """Return the error after one unit of time for the time steps 0.25, 1/32, 1/64 and 1/128."""
    u, ends = rough(96), []
    for dt in (0.25, 1 / 32, 1 / 64, 1 / 128, 0.001):
        simulation = begin(u=u, time_step=dt)
        play(simulation, [REST] * 4)
        ends.append(simulation.get_solution())
    return [float(np.abs(end - ends[-1]).max()) for end in ends[:-1]]


@case
def energy_balance():
    """Return the largest error of the energy balance (change = power - dissipation) for the steps 0.05 and 0.025."""
    worst = []
    for dt in (0.05, 0.025):
        simulation = begin(u=rough(64), time_step=dt)
        simulation.step(ACTIONS[0])
        errors = []
        for _ in range(12):
            before = simulation.get_info()["energy"]
            simulation.step(ACTIONS[0])
            info = simulation.get_info()
            errors.append(abs((info["energy"] - before) / 0.25 - info["power"] + info["dissipation"]))
        worst.append(max(errors))
    return worst


@case
def score():
    """Return the difference of the score from its parts, and of the parts from sums over the grid at one instant."""
    simulation = make(KuramotoSivashinsky, MPI.COMM_SELF)
    simulation.reset(2)
    u = simulation.get_solution()
    ik = 2j * np.pi / 22 * np.arange(33)
    u_x, u_xx = (np.fft.irfft(ik**order * np.fft.rfft(u), 64) for order in (1, 2))
    info = simulation.get_info()
    made = [
        info["dissipation"] - np.mean(u_xx**2),
        info["production"] - np.mean(u_x**2),
        info["energy"] - np.mean(u**2) / 2,
    ]
    simulation.step(ACTIONS[1])
    info = simulation.get_info()
    made.append(simulation.get_score() + info["dissipation"] + info["production"] + info["actuation_power"])
    return float(np.abs(made).max())


@case
def mean_of_u():
    """Return the largest difference of the mean of u from the integrated forcing, on one patch and on three."""
    found = []
    for on, parameters in ((MPI.COMM_SELF, {"points": 96}), (comm, {**LONG, "points": 4800})):
        simulation = make(KuramotoSivashinsky, on, **parameters)
        simulation.reset(1)
        expected, worst = 0.0, 0.0
        for action in ACTIONS[:20]:
            simulation.step(action)
            expected += 0.25 * np.sum(action) * 0.4 * np.sqrt(2 * np.pi) / simulation.grid.length
            worst = max(worst, abs(np.mean(solution(simulation)) - expected))
        found.append(worst)
    return found


@case
def symmetries():
    """Return how far the solution is from its Galilean transform and from its reflection after one unit of time."""
    u = rough(96)
    ends = []
    for start in (u, u + 4 * 22 / 96, -np.roll(u[::-1], 1)):
        simulation = begin(u=start, time_step=0.0125)
        play(simulation, [REST] * 4)
        ends.append(simulation.get_solution())
    moved = np.abs(ends[1] - np.roll(ends[0], 4) - 4 * 22 / 96).max()
    return [float(moved), float(np.abs(ends[2] + np.roll(ends[0][::-1], 1)).max())]


@case
def uncontrolled():
    """Return the mean score without control over episodes of 100 units of time with different seeds, and max |u|."""
    simulation = make(KuramotoSivashinsky, MPI.COMM_SELF)
    scores, largest = [], 0.0
    for seed in range(comm.rank, 9, comm.size):
        rows = episode(simulation, [REST] * 400, seed)
        scores.append(rows[1:, -1].mean())
        largest = max(largest, np.abs(rows[:, :-1]).max())
    return [float(np.mean(comm.allreduce(scores))), comm.allreduce(largest, MPI.MAX)]


@case
def pictures():
    simulation = make(KuramotoSivashinsky, comm, **LONG)
    simulation.reset(4)
    play(simulation, ACTIONS[:3])
    u, field = solution(simulation), simulation.get_field()
    if field is None:
        return None
    before, filled = field.values[:, :-4], field.values[:, -4:]
    stride = -(-u.size // len(field.values))
    return {
        "shape": list(field.values.shape),
        "nothing before": bool(np.isnan(before).all()),
        "filled": bool(np.isfinite(filled).all()),
        "now": bool(np.allclose(field.values[::-1, -1], u[::stride], rtol=1e-6)),
        "extent": [*field.extent, simulation.time, simulation.hold, simulation.grid.length],
    }


@case
def refusals():
    wrong = [
        {"length": -1.0}, {"points": 100}, {"points": 36}, {"time_step": 0.0}, {"hold": float("nan")}, {"sensors": 0},
        {"actuators": 0}, {"burn_in": -1.0}, {"patches": 2}, {"actuator_width": 0.0}, {"sensors": 7},
    ]  # fmt: skip
    return [[next(iter(each)), refusal(lambda each=each: make(KuramotoSivashinsky, **each))] for each in wrong]


@case
def divergence():
    """Return the error for a solution that is not finite on one rank. All ranks raise it, and a reset repairs it."""
    simulation = make(KuramotoSivashinsky, comm, **LONG)
    simulation.reset(0)
    if comm.rank == comm.size - 1:
        simulation.grid.own_of(simulation._u)[5] = np.nan
    text = refusal(lambda: simulation.step(REST))
    simulation.reset(0)
    simulation.step(REST)
    return text if np.isfinite(simulation.get_score()) else ""


run()
