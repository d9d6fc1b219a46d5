"""Measure the cost of an environment apart from its simulation: ``python experiments/bench/environments.py``.

The simulation does nothing. Each figure compares two things that are measured alternately in one run: the median of
their ratios, with its spread. ``--results DIR`` also writes the table to ``DIR/environments.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from measure import Comparison, print_table
from raw_round_trips import echoes, median_of_calls, round_trips

import alchemist_ray as alchemist

NOTHING = Path(__file__).parents[2] / "tests" / "libraries" / "nothing.py"
STEPS = 2_000
SIMULATIONS = 16
VECTOR_STEPS = 500
ASKED_RATE = 20_000.0
SLOWEST = 0.5
"""Seconds of a step in 2019."""
SAMPLES = 4_000


@contextlib.contextmanager
def _server() -> Iterator[dict[str, Any]]:
    """Yield the `env_config` of a simulation that does nothing, on two ranks of a server."""
    with alchemist.start_server(num_workers=4, memory_per_worker=2**26, libraries={"nothing": str(NOTHING)}) as server:
        address = {"hostname": server.hostname, "port": server.port, "token": server.token}
        yield {**address, "lib_name": "nothing", "num_workers": 2}


def bench_step(repeats: int) -> list[Comparison]:
    """Step one environment on two ranks. Baselines: two socket round trips, and half a second."""
    with _server() as config, echoes(socket.AF_UNIX, 2) as sockets:
        env = alchemist.HPCSimulator(config)
        env.reset(seed=0)
        action = env.action_space.sample()
        median_of_calls(lambda: env.step(action), 500)
        pairs = [
            (median_of_calls(lambda: env.step(action), STEPS), median_of_calls(lambda: round_trips(sockets), STEPS))
            for _ in range(repeats)
        ]
        env.close()
    ours, theirs = zip(*pairs, strict=True)
    what = "HPCSimulator.step, 2 ranks, p50"
    return [
        Comparison(what, "2 raw Unix-socket round trips", ours, theirs, "<= 4", (1e6, "us")),
        Comparison(what, "a step of 0.5 s", ours, [SLOWEST] * repeats, "<= 0.001", (1e6, "us")),
    ]


def bench_vector(repeats: int) -> list[Comparison]:
    """Step 16 simulations on two ranks with one call. These are rates: higher is better."""
    from alchemist_ray.envs import HPCVectorEnv

    with _server() as config:
        envs = HPCVectorEnv(config, num_envs=SIMULATIONS)
        envs.reset(seed=0)
        actions = envs.action_space.sample()
        median_of_calls(lambda: envs.step(actions), 200)
        rates = [SIMULATIONS / median_of_calls(lambda: envs.step(actions), VECTOR_STEPS) for _ in range(repeats)]
        envs.close()
    what = f"HPCVectorEnv of {SIMULATIONS} simulations, 2 ranks"
    return [Comparison(what, "20,000 simulation steps/s", rates, [ASKED_RATE] * repeats, ">= 1", (1.0, "steps/s"))]


class InProcess(gymnasium.Env[Any, Any]):
    """An environment that has spaces of the same kind, runs in the caller's process and does nothing."""

    def __init__(self, env_config: Any = None) -> None:
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,))
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count the step."""
        self._steps += 1
        return np.zeros(4, np.float32), 0.0, False, self._steps == 200, {}


def bench_ppo(repeats: int) -> list[Comparison]:
    """Train with PPO on one environment, in samples a second. Baseline: the same on an environment in the process."""
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig

    def build(env: type, config: dict[str, Any]) -> Any:
        settings = PPOConfig().environment(env, env_config=config).env_runners(num_env_runners=0)
        return settings.training(train_batch_size_per_learner=SAMPLES).build_algo()

    def rate(algorithm: Any) -> float:
        started = time.perf_counter()
        algorithm.train()
        return SAMPLES / (time.perf_counter() - started)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with _server() as config, contextlib.redirect_stderr(io.StringIO()):
        ours = build(alchemist.HPCSimulator, {**config, "max_episode_steps": 200})
        theirs = build(InProcess, {})
        rate(ours), rate(theirs)
        pairs = [(rate(ours), rate(theirs)) for _ in range(repeats)]
        ours.stop()
        theirs.stop()
    ray.shutdown()
    what = "PPO of RLlib on HPCSimulator, 2 ranks"
    baseline = "the same on an environment in the process"
    return [Comparison(what, baseline, *zip(*pairs, strict=True), ">= 0.8", (1.0, "samples/s"))]


BENCHES = {"step": bench_step, "vector": bench_vector, "ppo": bench_ppo}


def main() -> int:
    """Run the chosen benchmarks and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*BENCHES, []], help="which figures (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="directory for environments.md")
    arguments = parser.parse_args()
    head = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(head, flush=True)
    table = []
    for name in arguments.what or BENCHES:
        table.extend(BENCHES[name](arguments.repeats))
    print_table(table)
    if arguments.results:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            print_table(table)
        page = f"# Speed of the environments\n\nMedians from `make bench-environments` on {head}.\n\n{text.getvalue()}"
        (arguments.results / "environments.md").write_text(page)
    return 0 if all(comparison.reached for comparison in table) else 1


if __name__ == "__main__":
    sys.exit(main())
