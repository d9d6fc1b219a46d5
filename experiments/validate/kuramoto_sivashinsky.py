"""Compare the Kuramoto-Sivashinsky simulation with known results, in a Markdown table.

``python experiments/validate/kuramoto_sivashinsky.py`` takes a minute on one core. ``--results DIR`` also writes the
table to ``DIR/validation_kuramoto_sivashinsky.md``. The waves for L = 22 are from Cvitanovic, Davidchack & Siminos,
SIAM J. Appl. Dyn. Syst. 9, 1 (2010).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from validation import arguments_of, publish, table_lines

from alchemist_ray.sim_libraries.kuramoto_sivashinsky.simulator import KuramotoSivashinsky
from alchemist_ray.sim_libraries.kuramoto_sivashinsky.waves import Wave, find_wave

Array = npt.NDArray[Any]
REST = np.zeros(4)
PUBLISHED = {
    "E1": (0.2609, 0.0, 0.1308, 0.3341),
    "E2": (0.4382, 0.0, 0.1390, 0.2384),
    "E3": (1.5876, 0.0, 0.0933, 0.0),
    "TW1": (0.4649, 0.73699, 0.1156, 0.8173),
    "TW2": (0.6048, 0.34954, 0.3370, 0.0),
}
"""Energy and speed of each wave, and growth rate and frequency of its fastest-growing disturbance."""
SHAPES = {
    "E1": ([0.5j], 0.0),
    "E2": ([0, 1j], 0.0),
    "E3": ([0, 0, 1.25j], 0.0),
    "TW1": ([0.435, 0.356 - 0.037j, 0.266 - 0.123j, 0.09 - 0.2j, -0.051 - 0.094j], 0.7),
    "TW2": ([0.419, 0.178 + 0.146j, -0.287 - 0.422j, -0.093 + 0.32j], -0.35),
}
"""Rough Fourier coefficients and speeds, from which Newton's method finds the waves."""


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield the rows of the table."""
    yield from growth_rates()
    yield from order_in_time()
    yield from convergence_in_space()
    yield from conservation()
    yield from waves()
    yield from patches()
    yield from attractor()


def begin(u: Array, **parameters: Any) -> KuramotoSivashinsky:
    """Return a simulation that starts from the samples `u`."""
    simulation = KuramotoSivashinsky(MPI.COMM_SELF, points=u.size, burn_in=0.0, **parameters)
    simulation.reset(0)
    simulation.set_solution(u)
    return simulation


def run(simulation: KuramotoSivashinsky, steps: int, action: Array = REST) -> Array:
    """Take some steps and return the solution."""
    for _ in range(steps):
        simulation.step(action)
    return solution(simulation)


def solution(simulation: KuramotoSivashinsky) -> Array:
    """Return the solution of a simulation on one rank."""
    u = simulation.get_solution()
    assert u is not None
    return u


def on_the_attractor(points: int, length: float = 22.0, seed: int = 1) -> Array:
    """Return a state on the attractor, interpolated to `points`."""
    simulation = KuramotoSivashinsky(MPI.COMM_SELF, length=length, patches=1)
    simulation.reset(seed)
    u = solution(simulation)
    return np.fft.irfft(np.fft.rfft(u), points) * points / u.size


def growth_rates() -> Iterator[tuple[str, str, str]]:
    """Compare the growth rates of small waves with k^2 - k^4."""
    x = np.arange(64) * 22 / 64
    for mode in (1, 2, 3, 4, 6):
        k = 2 * np.pi * mode / 22
        wave = np.cos(k * x)
        rate = np.log(2 * np.mean(run(begin(1e-8 * wave), 2) * wave) / 1e-8) / 0.5
        yield f"growth rate of mode {mode}", f"{k**2 - k**4:.10f}", f"{rate:.10f}"


def order_in_time() -> Iterator[tuple[str, str, str]]:
    """Measure errors after one unit of time. The order shows once the step is below the damped modes' time scales."""
    u, steps = on_the_attractor(96), (0.05, 1 / 32, 1 / 64, 1 / 128, 1 / 256)
    for what, action in (("free", REST), ("actuated", np.array([1.0, -1.0, 0.5, -0.5]))):
        exact = run(begin(u, time_step=0.0005), 4, action)
        first, *errors = (np.abs(run(begin(u, time_step=dt), 4, action) - exact).max() for dt in steps)
        orders = np.log2(np.array(errors[:-1]) / errors[1:])
        yield f"{what}: largest error at t = 1 with the time step 0.05", "small", f"{first:.1e}"
        found = ", ".join(f"{order:.2f}" for order in orders)
        yield f"{what}: order between time steps 1/32, 1/64, 1/128, 1/256", "4 in the limit", found


def convergence_in_space() -> Iterator[tuple[str, str, str]]:
    """Measure errors after two units of time. The reference has 192 points."""
    action = np.array([1.0, -1.0, 0.5, -0.5])
    for what, actions in (("free", REST), ("actuated", action)):
        exact = run(begin(on_the_attractor(192)), 8, actions)[::6]
        errors = [np.abs(run(begin(on_the_attractor(n)), 8, actions)[:: n // 32] - exact).max() for n in (64, 96, 128)]
        yield (
            f"{what}: largest error at t = 2 with 64, 96, 128 points",
            "spectral",
            ", ".join(f"{e:.1e}" for e in errors),
        )


def conservation() -> Iterator[tuple[str, str, str]]:
    """Check the balances of the mean and the energy of u."""
    simulation = KuramotoSivashinsky(MPI.COMM_SELF)
    simulation.reset(1)
    mean = abs(np.mean(run(simulation, 400)))
    yield "mean of u after t = 100 without forcing", "0", f"{mean:.1e}"
    worst = 0.0
    for _ in range(200):
        before = simulation.get_info()["energy"]
        simulation.step(np.array([0.5, -0.5, 0.5, -0.5]))
        info = simulation.get_info()
        worst = max(worst, abs((info["energy"] - before) / 0.25 - info["power"] + info["dissipation"]))
    yield "largest of energy change - power + dissipation over t = 50, actuated", "0", f"{worst:.1e}"


def waves() -> Iterator[tuple[str, str, str]]:
    """Compare equilibria and travelling waves for L = 22 with published ones."""
    for name, (energy, speed, rate, frequency) in PUBLISHED.items():
        coefficients, guess = SHAPES[name]
        wave = find_wave(np.fft.irfft(64 * np.array([0, *coefficients]), 64), 22.0, guess)
        value = wave.eigenvalues[0]
        yield f"{name}: energy, speed", f"{energy:.4f}, {speed:.5f}", f"{wave.energy:.4f}, {abs(wave.speed):.5f}"
        found = f"{value.real:.4f} ± {abs(value.imag):.4f}i"
        yield f"{name}: leading eigenvalue", f"{rate:.4f} ± {frequency:.4f}i", found
        off_course, growth = followed(wave)
        yield f"{name} in the simulation: largest deviation after t = 2", "0", f"{off_course:.1e}"
        what = f"{name} in the simulation: relative error of the growth of a disturbance over t = 2"
        yield what, "0", f"{growth:.1e}"


def followed(wave: Wave) -> tuple[float, float]:
    """Return how far a simulation deviates from a wave, and the relative error of its fastest disturbance's growth."""
    value, mode = wave.eigenvalues[0], wave.modes[:, 0]
    shift = np.exp(-2j * np.pi / 22 * np.arange(33) * wave.speed * 2.0)
    kept, disturbed = (run(begin(u), 8) for u in (wave.u, wave.u + 1e-6 * mode.real))
    expected = np.fft.irfft(np.fft.rfft((mode * np.exp(2.0 * value)).real) * shift, 64)
    growth = np.linalg.norm((disturbed - kept) / 1e-6 - expected) / np.linalg.norm(expected)
    return float(np.abs(kept - np.fft.irfft(np.fft.rfft(wave.u) * shift, 64)).max()), float(growth)


def patches() -> Iterator[tuple[str, str, str]]:
    """Compare two patches with one transform over the whole domain."""
    for points in (768, 1536):
        u = on_the_attractor(points, 256.0)
        ends = [run(begin(u, length=256.0, patches=count), 40, np.array([1.0, -1.0, 0.5, -0.5])) for count in (1, 2)]
        difference = f"{np.abs(ends[0] - ends[1]).max():.1e}"
        what = f"L = 256, {points} points: difference between 2 patches and 1, t = 10"
        yield what, "0 to truncation error", difference


def attractor() -> Iterator[tuple[str, str, str]]:
    """Measure statistics of the attractor for L = 22."""
    simulation, scores = KuramotoSivashinsky(MPI.COMM_SELF), []
    for seed in range(40):
        simulation.reset(seed)
        for _ in range(400):
            simulation.step(REST)
            scores.append(simulation.get_score())
    yield "mean score without control, 40 episodes of t = 100", "about -1.8", f"{np.mean(scores):.3f}"
    yield "largest Lyapunov exponent over t = 20000", "0.043 to 0.048", f"{lyapunov_exponent(20000.0):.4f}"


def lyapunov_exponent(time: float) -> float:
    """Return the mean growth rate of a small disturbance that is rescaled at each unit of time (Benettin's method)."""
    u = on_the_attractor(64)
    pair = begin(u), begin(u + 1e-7 * np.cos(2 * np.pi * np.arange(64) / 64))
    total = 0.0
    for unit in range(int(time) + 50):
        one, other = (run(each, 4) for each in pair)
        difference = other - one
        size = np.sqrt(np.mean(difference**2))
        total += np.log(size / 1e-7) if unit >= 50 else 0.0
        pair[1].set_solution(one + difference * (1e-7 / size))
    return total / int(time)


if __name__ == "__main__":
    lines = table_lines(["quantity", "expected", "found"], rows())
    publish("kuramoto_sivashinsky", lines, arguments_of(__doc__).parse_args().results)
