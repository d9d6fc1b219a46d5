"""How a policy fares: one episode for each seed, stepped as gymnasium says; means with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alchemist_ray.errors import ExperimentError
from alchemist_ray.experiment.policies import Environment, PolicyMaker

Number = int | float
MAX_ATTEMPTS = 3
"""How often an episode is begun again when the simulation had to be restarted in the middle of it."""

ACTION = "action "
"""How the names of the components of an action begin in a series."""


@dataclass(frozen=True)
class Statistics:
    """Mean of a sample.

    Attributes
    ----------
    mean : float
    standard_error : float
        Sample standard deviation / sqrt(n); NaN for one.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Sequence[Number]) -> Statistics:
        """Return those of some values."""
        n = len(values)
        spread = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        return cls(float(np.mean(values)), spread)

    def __str__(self) -> str:
        if math.isnan(self.standard_error):
            return f"{self.mean:.4g}"
        return f"{self.mean:.4g} ± {self.standard_error:.2g}"


@dataclass
class Episode:
    """One episode.

    Attributes
    ----------
    seed, steps : int
    total : float
        Undiscounted sum of the rewards.
    terminated : bool
        Whether it came to its end, rather than being cut off.
    info : dict
        Means over the steps of the numbers in the environment's `info`.
    series : list of dict
        For each step its reward, the components of the action and the numbers in `info`; empty if not asked for.
    """

    seed: int
    steps: int = 0
    total: float = 0.0
    terminated: bool = False
    info: dict[str, float] = field(default_factory=dict)
    series: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Evaluation:
    """How a policy fares on some seeds."""

    episodes: list[Episode]

    @property
    def total(self) -> Statistics:
        """Of the returns."""
        return Statistics.of([episode.total for episode in self.episodes])

    @property
    def reward(self) -> Statistics:
        """Of the mean reward a step."""
        return Statistics.of([episode.total / max(1, episode.steps) for episode in self.episodes])

    @property
    def info(self) -> dict[str, Statistics]:
        """Of the means of what the environment says in `info`."""
        names = dict.fromkeys(name for episode in self.episodes for name in episode.info)
        return {
            name: Statistics.of([episode.info[name] for episode in self.episodes if name in episode.info])
            for name in names
        }

    def to_row(self) -> dict[str, Any]:
        """Return the evaluation as plain values."""
        return {
            "return": vars(self.total),
            "reward_per_step": vars(self.reward),
            "info": {name: vars(statistics) for name, statistics in self.info.items()},
            "episodes": [
                {
                    "seed": episode.seed,
                    "return": episode.total,
                    "steps": episode.steps,
                    "terminated": episode.terminated,
                    "info": episode.info,
                }
                for episode in self.episodes
            ],
        }


Watcher = Callable[[Environment, int], None]
"""Is shown the environment after each step, the reset included, with the number of steps so far."""


def evaluate(
    environment: Environment,
    maker: PolicyMaker,
    seeds: Sequence[int],
    *,
    info: Sequence[str] | None = None,
    skip_steps: int = 0,
    max_steps: int | None = None,
    watch: Watcher | None = None,
) -> Evaluation:
    """Run one episode for each seed.

    Parameters
    ----------
    environment : gymnasium.Env
    maker : callable
        Makes the policy of an episode.
    seeds : sequence of int
    info : sequence of str, optional
        What of `info` is averaged; by default all that are numbers.
    skip_steps : int
        Steps at the start of an episode that the averages of `info` leave out.
    max_steps : int, optional
        After how many steps an episode is cut off.
    watch : callable, optional
        Watches the first episode, whose series is recorded then.

    Raises
    ------
    ExperimentError
        If `info` lacks a key, or the simulation had to be restarted again and again.
    """
    episodes = []
    for number, seed in enumerate(seeds):
        watching = watch if number == 0 else None
        episodes.append(_whole_episode(environment, maker, seed, info, skip_steps, max_steps, watching))
    return Evaluation(episodes)


def _whole_episode(
    environment: Environment,
    maker: PolicyMaker,
    seed: int,
    info: Sequence[str] | None,
    skip_steps: int,
    max_steps: int | None,
    watch: Watcher | None,
) -> Episode:
    for _ in range(MAX_ATTEMPTS):
        episode = _one_episode(environment, maker, seed, info, skip_steps, max_steps, watch)
        if episode is not None:
            return episode
    raise ExperimentError(
        "evaluation", [f"the simulation had to be restarted {MAX_ATTEMPTS} times in the episode with seed {seed}"]
    )


def _one_episode(
    environment: Environment,
    maker: PolicyMaker,
    seed: int,
    wanted: Sequence[str] | None,
    skip_steps: int,
    max_steps: int | None,
    watch: Watcher | None,
) -> Episode | None:
    """Return an episode, or None if the simulation had to be restarted in the middle of it."""
    episode, sums = Episode(seed), _Means(wanted)
    observation, _ = environment.reset(seed=seed)
    policy = maker(environment, seed)
    if watch is not None:
        watch(environment, 0)
    over = False
    while not over:
        action = policy(observation, episode.steps)
        observation, reward, terminated, truncated, said = environment.step(action)
        if said.get("simulator_restarted"):
            return None
        episode.steps += 1
        episode.total += float(reward)
        numbers = numbers_in(said)
        if episode.steps > skip_steps:
            sums.add(numbers)
        over = terminated or truncated or episode.steps == max_steps
        if watch is not None:
            episode.series.append({"reward": float(reward), **_components(environment, action), **numbers})
            watch(environment, episode.steps)
    episode.terminated = bool(terminated)
    episode.info = sums.means()
    return episode


class _Means:
    """Means of named numbers."""

    def __init__(self, wanted: Sequence[str] | None) -> None:
        self._wanted = wanted
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Take in the numbers of a step."""
        for name in numbers if self._wanted is None else self._wanted:
            if name not in numbers:
                known = ", ".join(numbers) or "no numbers"
                raise ExperimentError("evaluation.info", [f"the environment's info has no {name!r}; it has {known}"])
            self._sums[name] = self._sums.get(name, 0.0) + numbers[name]
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the means."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}


def numbers_in(info: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a number in an environment's `info`."""
    return {
        name: float(value)
        for name, value in info.items()
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    }


def _components(environment: Environment, action: Any) -> dict[str, float]:
    """Return the components of an action under their names."""
    values = np.asarray(action, float).ravel()
    known = getattr(environment.unwrapped, "action_components", None)
    names = [component.name for component in known] if known else []
    return {
        f"{ACTION}{names[place] if place < len(names) and names[place] else place}": float(value)
        for place, value in enumerate(values)
    }
