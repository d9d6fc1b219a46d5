"""Compare the room with acoustics and with the properties of its scheme: ``python experiments/validate/acoustics.py``.

Prints tables in Markdown, which takes about a minute on one core. ``--results DIR`` also writes them to
``DIR/validation_acoustics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from mpi4py import MPI
from validation import arguments_of, lines_of, publish

from alchemist_ray.mpi_backend.ali import Simulator
from alchemist_ray.sim_libraries.acoustics import Acoustics

Row = list[str]

C, RHO, WIDTH, HEIGHT = 343.0, 1.2, 6.0, 4.5
HEARING = 20e-6
"""Reference of sound levels [Pa]."""
RIGID: dict[str, Any] = {"absorption": [0.0] * 4, "obstacles": [], "radius": 0.1}
CONTROLLED: dict[str, Any] = {"nx": 160, "substeps": 5}
"""The room in which control is tried: its interval is that of the default room, and it has fewer cells."""
STEPS = 600
"""Steps of an episode with control, 0.22 s. The last third is taken as the steady state."""


def room(**parameters: Any) -> Simulator:
    """Return a simulation on one rank at the start of an episode."""
    made = Acoustics(MPI.COMM_SELF, **parameters)
    made.reset(1)
    return made


def pressure(simulation: Simulator) -> np.ndarray:
    """Return the pressure [Pa]. The first row is at the floor."""
    return simulation.get_field().values[::-1]


def run(simulation: Simulator, steps: int) -> Simulator:
    """Step a simulation with silent loudspeakers, and return it."""
    for _ in range(steps):
        simulation.step(np.zeros(simulation.action_space.bounds()[0].shape))
    return simulation


def mode(nx: int, m: int, n: int) -> np.ndarray:
    """Return the values of a mode of the rigid room at the cell centres."""
    h = WIDTH / nx
    x, y = (np.arange(nx) + 0.5) * h, (np.arange(round(HEIGHT / h)) + 0.5)[:, None] * h
    return np.cos(math.pi * m * x / WIDTH) * np.cos(math.pi * n * y / HEIGHT)


# --- the scheme -----------------------------------------------------------------------------------------------------


def frequencies() -> Iterator[Row]:
    """Measure frequencies of modes by projecting the field. Compare them with the wave equation and the scheme."""
    nx, courant = 60, 0.95
    h = WIDTH / nx
    for m, n in ((1, 0), (1, 1), (4, 3), (12, 9), (30, 20)):
        simulation = room(nx=nx, courant=courant, substeps=1, noise="mode", mode=[m, n], **RIGID)
        shape, amplitudes = mode(nx, m, n), []
        for _ in range(200):
            run(simulation, 1)
            amplitudes.append(np.vdot(shape, pressure(simulation)) / np.vdot(shape, shape))
        a = np.array([1.0, *amplitudes])  # a(k + 1) + a(k - 1) = 2 cos(omega dt) a(k)
        angle = math.acos(0.5 * np.vdot(a[1:-1], a[2:] + a[:-2]) / np.vdot(a[1:-1], a[1:-1]))
        per_second = C / (courant / math.sqrt(2) * h) / (2 * math.pi)
        half = math.hypot(math.sin(math.pi * m * h / (2 * WIDTH)), math.sin(math.pi * n * h / (2 * HEIGHT)))
        scheme = 2 * math.asin(courant / math.sqrt(2) * half)
        exact = 0.5 * C * math.hypot(m / WIDTH, n / HEIGHT)
        relation = f"{angle / scheme - 1:+.1e}"
        yield [
            f"({m}, {n})",
            f"{exact:.3f}",
            f"{angle * per_second:.3f}",
            relation,
            f"{angle * per_second / exact - 1:+.1e}",
        ]


def convergence() -> Iterator[Row]:
    """Refine the grid. The exact solution is a standing wave of the wave equation, after about 2.4 periods."""
    m, n = 3, 2
    omega = math.pi * C * math.hypot(m / WIDTH, n / HEIGHT)
    before = math.nan
    for nx in (24, 48, 96, 192, 384):
        simulation = run(room(nx=nx, substeps=nx // 4, noise="mode", mode=[m, n], **RIGID), 8)
        truth = math.cos(omega * simulation.get_info()["time"]) * mode(nx, m, n)
        error = float(np.abs(pressure(simulation) - truth).max())
        yield [f"{nx} x {nx * 3 // 4}", f"{error:.2e}", f"{math.log2(before / error):.2f}" if nx > 24 else ""]
        before = error


def duct(nx: int, share: float) -> float:
    """Return the share of energy left in two plane pulses after each was reflected once by the left wall of a duct."""
    h = WIDTH / nx
    simulation = room(
        nx=nx,
        height=2 * h,
        courant=math.sqrt(0.5),
        substeps=nx // 6,
        absorption=[share, 0.0, 0.0, 0.0],
        obstacles=[],
        noise="silence",
        loudspeakers=[[WIDTH / 2, h]],
        radius=0.3,
        microphones=[[1.0, h]],
        quiet_zone=[1.0, 0.0, 2.0, 2 * h],
    )
    simulation.step(np.ones(1))
    before = simulation.get_info()["energy"]
    return run(simulation, 24).get_info()["energy"] / before


def absorbed() -> Iterator[Row]:
    """Let a wall absorb a share of plane pulses, and refine the grid."""
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        yield [f"{share}", f"{1 - share:.1f}", *(f"{duct(nx, share):.6f}" for nx in (24, 48, 96, 192))]


def conserved() -> Iterator[Row]:
    """Check the energy of a pulse in a rigid room with a screen, the air that loudspeakers add, and a mode's energy."""
    simulation = room(absorption=[0.0] * 4, noise="pulse")
    first, worst = simulation.get_info()["energy"], 0.0
    for _ in range(1000):
        worst = max(worst, abs(run(simulation, 1).get_info()["energy"] / first - 1))
    yield ["energy of a pulse between rigid walls and a screen, over 12,000 time steps", f"{worst:.1e}"]
    simulation = room(noise="silence", drive=0.01, **RIGID)
    for _ in range(100):
        simulation.step(np.array([1.0, 0.5, -0.25, 0.0]))
    brought = RHO * C**2 * 0.01 * 1.25 * simulation.get_info()["time"] / (WIDTH * HEIGHT)
    yield [
        "mean pressure raised by the loudspeakers, compared with rho c^2 q t / A",
        f"{abs(pressure(simulation).mean() / brought - 1):.1e}",
    ]
    nx, courant = 300, 0.95
    truth = WIDTH * HEIGHT / (4 * RHO * C**2) * (1 - courant**2 / 2 * math.sin(math.pi / (2 * nx)) ** 2)
    found = room(nx=nx, courant=courant, noise="mode", **RIGID).get_info()["energy"]
    compared = "compared with A / (4 rho c^2) cos^2(omega dt / 2)"
    yield [f"energy of a mode of 1 Pa, {compared}", f"{abs(found / truth - 1):.1e}"]


# --- control --------------------------------------------------------------------------------------------------------


def heard(simulation: Simulator, actions: np.ndarray) -> np.ndarray:
    """Return the pressure in the quiet zone during the last third of an episode, one row for each step."""
    rows = []
    for number, action in enumerate(actions):
        simulation.step(action)
        if number >= len(actions) * 2 // 3:
            rows.append(simulation.get_field().values[59:85, 104:130].ravel())
    return np.array(rows)


def level(pressures: np.ndarray) -> float:
    """Return a sound level [dB]."""
    return 10 * math.log10(float(np.mean(pressures**2)) / HEARING**2)


def controlled() -> Iterator[Row]:
    """Find the loudspeakers' amplitudes and phases that cancel one tone best (least squares), and play them."""
    for frequency in (100.0, 150.0, 200.0):
        noisy: dict[str, Any] = {**CONTROLLED, "tones": 1, "band": [frequency, frequency]}
        interval = run(room(noise="silence", **CONTROLLED), 1).get_info()["time"]
        angle = 2 * math.pi * frequency * interval * np.arange(STEPS)
        columns = []
        for loudspeaker in range(4):
            for wave in (np.cos(angle), np.sin(angle)):
                actions = np.zeros((STEPS, 4))
                actions[:, loudspeaker] = wave
                columns.append(heard(room(noise="silence", **CONTROLLED), actions).ravel())
        alone = heard(room(**noisy), np.zeros((STEPS, 4)))
        best, *_ = np.linalg.lstsq(np.array(columns).T, -alone.ravel(), rcond=None)
        actions = np.array([best[0::2] * math.cos(a) + best[1::2] * math.sin(a) for a in angle])
        quiet = heard(room(**noisy), actions)
        levels = level(alone), level(quiet)
        greatest = np.hypot(best[0::2], best[1::2]).max()
        yield [
            f"{frequency:g}",
            *(f"{found:.1f}" for found in levels),
            f"{levels[0] - levels[1]:.1f}",
            f"{greatest:.2f}",
        ]


# --- the tables -----------------------------------------------------------------------------------------------------

TABLES = (
    (
        "Frequencies of modes at 60 x 45 cells",
        [
            "mode",
            "analytic [Hz]",
            "simulated [Hz]",
            "difference from the scheme's dispersion relation",
            "difference from analytic",
        ],
        frequencies,
    ),
    (
        "Error of mode (3, 2) with an amplitude of 1 Pa, by number of cells",
        ["cells", "largest error [Pa]", "order"],
        convergence,
    ),
    (
        "Energy of plane pulses after one reflection at a wall, by number of cells in 6 m",
        ["absorption", "exact", "24", "48", "96", "192"],
        absorbed,
    ),
    ("Balances", ["balance", "relative difference"], conserved),
    (
        "The best steady control of one tone, 160 x 120 cells",
        ["tone [Hz]", "no control [dB]", "controlled [dB]", "reduction [dB]", "largest amplitude of an action"],
        controlled,
    ),
)


if __name__ == "__main__":
    publish("acoustics", lines_of(TABLES), arguments_of(__doc__).parse_args().results)
