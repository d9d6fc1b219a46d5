"""Compare sound in a room under MPI with analytic solutions, the scheme's theory, and itself (test_acoustics.py)."""

import hashlib

import numpy as np
from cases import case, comm, continues, make, play, refusal, repeats_itself, run
from mpi4py import MPI

from alchemist_ray.errors import SimulationDivergedError
from alchemist_ray.sim_libraries.acoustics import Acoustics

C, RHO, WIDTH, HEIGHT = 343.0, 1.2, 6.0, 4.5
RIGID = {"absorption": [0.0] * 4, "obstacles": [], "radius": 0.1}
STILL = np.zeros(4)
ACTIONS = np.random.default_rng(3).uniform(-1, 1, (60, 4))


def field(room):
    """Return the pressure on all ranks. The first row is at the floor."""
    seen = room.get_field()
    return comm.bcast(None if seen is None else seen.values[::-1])


def info(room):
    return comm.bcast(room.get_info())


def middles(nx):
    h = WIDTH / nx
    return (np.arange(nx) + 0.5) * h, (np.arange(round(HEIGHT / h)) + 0.5)[:, None] * h, h


def shape_of_mode(nx, m, n):
    x, y, _ = middles(nx)
    return np.cos(np.pi * m * x / WIDTH) * np.cos(np.pi * n * y / HEIGHT)


@case
def dispersion():
    """Return the largest difference of modes of the rigid room from the dispersion relation of the scheme."""
    worst = 0.0
    for nx, courant, m, n in ((40, 0.95, 3, 2), (40, 1.0, 7, 5), (64, 0.3, 1, 0), (40, 0.9, 30, 20)):
        room = make(Acoustics, nx=nx, courant=courant, substeps=7, noise="mode", mode=[m, n], pressure=0.5, **RIGID)
        room.reset(0)
        h, step = WIDTH / nx, courant / np.sqrt(2)
        half = step * np.hypot(np.sin(np.pi * m * h / (2 * WIDTH)), np.sin(np.pi * n * h / (2 * HEIGHT)))
        omega_dt = 2 * np.arcsin(half)
        for steps in range(1, 16):
            room.step(STILL)
            truth = 0.5 * np.cos(omega_dt * 7 * steps) * shape_of_mode(nx, m, n)
            worst = max(worst, np.abs(field(room) - truth).max())
    return worst


@case
def convergence():
    """Return the errors of a mode of the rigid room compared with the wave equation, doubling the cells each time."""
    errors, m, n = [], 2, 1
    omega = np.pi * C * np.hypot(m / WIDTH, n / HEIGHT)
    for nx in (24, 48, 96):
        room = make(Acoustics, nx=nx, courant=0.9, substeps=nx, noise="mode", mode=[m, n], **RIGID)
        room.reset(0)
        play(room, [STILL] * 2)
        truth = np.cos(omega * info(room)["time"]) * shape_of_mode(nx, m, n)
        errors.append(np.abs(field(room) - truth).max())
    return errors


@case
def energy():
    """Return the drift of the energy of a pulse in a rigid room with obstacles, and the error of a mode's energy."""
    room = make(Acoustics, nx=64, height=4.5, noise="pulse", absorption=[0.0] * 4, radius=0.1)
    room.reset(5)
    first = info(room)["energy"]
    drift = 0.0
    for _ in range(40):
        room.step(STILL)
        drift = max(drift, abs(info(room)["energy"] / first - 1))
    nx, courant = 32, 0.95
    room = make(Acoustics, nx=nx, courant=courant, noise="mode", mode=[1, 0], pressure=2.0, **RIGID)
    room.reset(0)
    truth = 2.0**2 * WIDTH * HEIGHT / (4 * RHO * C**2) * (1 - courant**2 / 2 * np.sin(np.pi / (2 * nx)) ** 2)
    return drift, info(room)["energy"] / truth - 1


@case
def absorption():
    """Return the share of energy left in plane pulses after a round trip in a duct, by absorption and resolution."""
    left = {}
    for share in (0.3, 0.9, 1.0):
        for nx in (24, 48, 96):
            h = WIDTH / nx
            duct = make(
                Acoustics,
                MPI.COMM_SELF,
                nx=nx,
                height=2 * h,
                courant=np.sqrt(0.5),  # one cell in two substeps, so that a round trip takes 24 steps
                substeps=nx // 6,
                absorption=[share, 0, 0, 0],
                obstacles=[],
                noise="silence",
                loudspeakers=[[WIDTH / 2, h]],
                radius=0.3,
                microphones=[[1.0, h]],
                quiet_zone=[1.0, 0.0, 2.0, 2 * h],
            )
            duct.reset(0)
            duct.step([1.0])
            first = duct.get_info()["energy"]
            for _ in range(24):
                duct.step([0.0])
            left.setdefault(str(share), []).append(duct.get_info()["energy"] / first)
    return left


@case
def quarters():
    """Return the share of energy left after a round trip, for each wall as the only one that absorbs."""
    left = []
    for wall in range(4):
        room = make(
            Acoustics,
            nx=48,
            height=6.0,
            courant=np.sqrt(0.5),
            substeps=4 * 48,
            noise="mode",
            mode=[1, 0] if wall < 2 else [0, 1],
            absorption=[0.4 * (k == wall) for k in range(4)],
            obstacles=[],
        )
        room.reset(0)
        first = info(room)["energy"]
        room.step(STILL)
        left.append(info(room)["energy"] / first)
    return left


@case
def loudspeakers():
    """Return the relative error of the mean pressure that three loudspeakers raise, one of them next to the wall."""
    places = [[3.0, 2.0], [0.1, 4.4], [5.0, 1.0]]
    room = make(Acoustics, nx=64, noise="silence", loudspeakers=places, drive=0.02, **RIGID)
    room.reset(0)
    play(room, [[1.0, 0.5, -0.25]] * 20)
    flow = 0.02 * (1.0 + 0.5 - 0.25)
    return np.mean(field(room)) / (RHO * C**2 * flow * info(room)["time"] / (WIDTH * HEIGHT)) - 1


@case
def observations():
    """Return the differences of microphones, score, sound level and solid cells from the field."""
    microphones = [[1.23, 0.77], [5.99, 4.49], [0.01, 0.01], [3.0, 2.25], [3.05, 2.2]]
    room = make(Acoustics, nx=60, substeps=1, microphones=microphones, history=3, quiet_zone=[3.0, 1.0, 4.0, 2.5])
    room.reset(1)
    fields, states = [], []
    for action in ACTIONS[:20]:
        room.step(action)
        fields.append(field(room))
        states.append(comm.bcast(room.get_state()))
    x, y, _ = middles(60)
    heard = []
    for across, up in microphones:
        column = np.array([np.interp(across, x, row) for row in np.nan_to_num(fields[-1])])
        heard.append(np.interp(up, y[:, 0], column))
    zone = fields[-1][10:25, 30:40]
    solid = np.isnan(fields[-1])
    expected = (x > 2.4) & (x < 2.5) & (y > 2.0)
    return {
        "microphones": np.abs(states[-1][:5] - heard).max() / np.abs(heard).max(),
        "history": bool(np.array_equal(states[-1], np.concatenate([s[:5] for s in states[:-4:-1]]))),
        "score": abs(comm.bcast(room.get_score()) / -np.mean(zone**2) - 1),
        "level": info(room)["sound_level"] - 10 * np.log10(np.mean(zone**2) / 4e-10),
        "solid": bool(np.array_equal(solid, expected)),
        "wavelength": np.abs(zone).max() > 1e-3,
    }


@case
def episode():
    """Return a digest of all observations of an episode. Equal bits have equal digests."""
    digest = hashlib.sha256()
    for noise in ("tones", "pulse"):
        room = make(Acoustics, nx=60, noise=noise, settle=0.01)
        room.reset(9)
        for action in ACTIONS[:25]:
            room.step(action)
            if comm.rank == 0:
                digest.update(np.array([*room.get_state(), room.get_score(), *room.get_info().values()]).tobytes())
        digest.update(field(room).tobytes())
    return digest.hexdigest()


@case
def repeats():
    return all(repeats_itself(make(Acoustics, nx=40, noise=noise), ACTIONS[:10]) for noise in ("tones", "pulse"))


@case
def snapshots():
    return continues(make(Acoustics, nx=60), make(Acoustics, nx=60), ACTIONS)


@case
def other_snapshot():
    kept = make(Acoustics, nx=40)
    kept.reset(0)
    part = kept.snapshot()
    return refusal(lambda: make(Acoustics, nx=48).restore(part))


@case
def without_a_seed():
    """Return whether episodes without a seed differ, and whether the ranks agree on them."""
    room = make(Acoustics, nx=40, noise="pulse")
    states = []
    for _ in range(3):
        room.reset(None)
        room.step(STILL)
        states.append(field(room))
    return not np.array_equal(states[0], states[1]) and not np.array_equal(states[1], states[2])


@case
def apart():
    """Return whether simulations on single ranks, and one on all ranks, each behave as if they were alone."""
    together, alone = make(Acoustics, nx=40), make(Acoustics, MPI.COMM_SELF, nx=40)
    together.reset(4)
    alone.reset(4)
    for action in ACTIONS[:10]:
        together.step(action)
        alone.step(action)
    one = together.get_score()
    return bool(np.array_equal(comm.bcast(one), alone.get_score()))


@case
def divergence():
    room = make(Acoustics, nx=40, drive=1e300)
    room.reset(0)
    try:
        room.step(np.ones(4))
    except SimulationDivergedError as failure:
        told = str(failure)
    else:
        told = ""
    room.reset(0)
    room.step(STILL)
    return told if all(comm.allgather(told)) else ""


@case
def size():
    return comm.size


@case
def refusals():
    """Return the error texts for wrong parameters."""
    wrong = {
        "nx": {"nx": 3},
        "rows": {"nx": 301},
        "rows_of_ranks": {"width": 4.0 / comm.size, "height": 1.0, "nx": 4},
        "courant": {"courant": 1.01},
        "density": {"density": -1.0},
        "substeps": {"substeps": 0},
        "settle": {"settle": float("nan")},
        "absorption": {"absorption": [0.0, 0.0, 0.0, 1.5]},
        "walls": {"absorption": [0.1]},
        "obstacle": {"obstacles": [[5.0, 4.0, 7.0, 4.2]]},
        "empty": {"obstacles": [[5.0, 4.0, 5.0, 4.2]]},
        "obstacles": {"obstacles": [1.0, 2.0]},
        "loudspeaker": {"loudspeakers": [[1.0, 1.0], [6.5, 1.0]]},
        "reach": {"loudspeakers": [[2.3, 3.0]]},
        "loudspeakers": {"loudspeakers": []},
        "many": {"microphones": [[1.0, 1.0]] * 33},
        "microphone": {"microphones": [[2.45, 3.0]]},
        "nan": {"microphones": [[float("nan"), 3.0]]},
        "zone": {"quiet_zone": [5.0, 1.0, 6.5, 2.0]},
        "blocked": {"quiet_zone": [2.0, 2.0, 3.0, 3.0]},
        "radius": {"radius": 0.001},
        "noise": {"noise": "music"},
        "tones": {"tones": 17},
        "band": {"band": [100.0, 5000.0]},
        "pressure": {"pressure": 0.0},
    }
    return {name: refusal(lambda given=given: make(Acoustics, **given)) for name, given in wrong.items()}


run()
