"""How a policy fares: one episode for each seed, stepped as gymnasium says; means with their standard errors.

An episode in which the simulation fails (it diverges, or raises) would fail again: the same seed and the same policy
lead there. It is kept as a failed one, counted, and left out of the means. If the workers are lost, which may have been
the machine's fault, it is played again, and has failed if that does not help. So the environment must raise its
failures rather than restart (:func:`~alchemist_ray.training.environments.raising`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alchemist_ray.envs.simulation_group import GROUP_IS_LOST
from alchemist_ray.errors import ExperimentError, TaskError
from alchemist_ray.training.policies import Environment, PolicyMaker

Real = int | float
MAX_ATTEMPTS = 3
"""How often an episode is begun in which the workers are lost."""

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
    def of(cls, values: Sequence[Real]) -> Statistics:
        """Return those of some values; NaN if there are none."""
        n = len(values)
        spread = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        return cls(float(np.mean(values)) if n else math.nan, spread)

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
        Means over the steps, but for those that are to be left out, of the numbers in the environment's `info`.
    whole_info : dict
        The same over all steps.
    simulation_seed : int or None
        The seed that the environment has given the simulation, if it says so.
    failure : str
        Why the simulation failed, and so the episode; empty if it did not.
    series : list of dict
        For each step its reward, the components of the action and the numbers in `info`; empty if not asked for.
    """

    seed: int
    steps: int = 0
    total: float = 0.0
    terminated: bool = False
    info: dict[str, float] = field(default_factory=dict)
    whole_info: dict[str, float] = field(default_factory=dict)
    simulation_seed: int | None = None
    failure: str = ""
    series: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Evaluation:
    """How a policy fares on some seeds. Statistics are over the episodes that have not failed."""

    episodes: list[Episode]

    @property
    def whole(self) -> list[Episode]:
        """The episodes that have not failed."""
        return [episode for episode in self.episodes if not episode.failure]

    @property
    def failed(self) -> list[Episode]:
        """Those that have."""
        return [episode for episode in self.episodes if episode.failure]

    @property
    def total(self) -> Statistics:
        """Of the returns."""
        return Statistics.of([episode.total for episode in self.whole])

    @property
    def reward(self) -> Statistics:
        """Of the mean reward a step."""
        return Statistics.of([reward_of(episode) for episode in self.whole])

    @property
    def info(self) -> dict[str, Statistics]:
        """Of the means of what the environment says in `info`."""
        return _statistics([episode.info for episode in self.whole])

    @property
    def whole_info(self) -> dict[str, Statistics]:
        """Of these means over all steps."""
        return _statistics([episode.whole_info for episode in self.whole])

    def to_row(self) -> dict[str, Any]:
        """Return the evaluation as plain values."""
        return {
            "return": vars(self.total),
            "reward_per_step": vars(self.reward),
            "info": {name: vars(statistics) for name, statistics in self.info.items()},
            "info_all_steps": {name: vars(statistics) for name, statistics in self.whole_info.items()},
            "failed": len(self.failed),
            "episodes": [
                {
                    "seed": episode.seed,
                    "simulation_seed": episode.simulation_seed,
                    "return": episode.total,
                    "steps": episode.steps,
                    "terminated": episode.terminated,
                    "info": episode.info,
                    "info_all_steps": episode.whole_info,
                    "failure": episode.failure or None,
                }
                for episode in self.episodes
            ],
        }


@dataclass(frozen=True)
class Differences:
    """How a policy differs from another on the same seeds: means and standard errors of the differences, seed by seed.

    What the seeds have in common cancels, so that the errors are those of the comparison; of two means they would be
    those of the sample of seeds as well.
    """

    total: Statistics
    reward: Statistics
    info: dict[str, Statistics]

    @classmethod
    def of(cls, found: Evaluation, base: Evaluation) -> Differences:
        """Return those of one evaluation from another, over the seeds of which both have whole episodes."""
        others = {episode.seed: episode for episode in base.whole}
        pairs = [(episode, others[episode.seed]) for episode in found.whole if episode.seed in others]
        return cls(
            Statistics.of([one.total - other.total for one, other in pairs]),
            Statistics.of([reward_of(one) - reward_of(other) for one, other in pairs]),
            _statistics([_less(one.info, other.info) for one, other in pairs]),
        )

    def to_row(self) -> dict[str, Any]:
        """Return the differences as plain values."""
        return {
            "return": vars(self.total),
            "reward_per_step": vars(self.reward),
            "info": {name: vars(statistics) for name, statistics in self.info.items()},
        }


def reward_of(episode: Episode) -> float:
    """Return the mean reward of a step."""
    return episode.total / max(1, episode.steps)


def _statistics(rows: Sequence[Mapping[str, float]]) -> dict[str, Statistics]:
    """Return the statistics of named numbers, each over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: Statistics.of([row[name] for row in rows if name in row]) for name in names}


def _less(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: value - other[name] for name, value in one.items() if name in other}


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
        Raises an error if its simulation fails.
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
        If `info` lacks a key.
    AlchemistError
        If the simulation cannot be reset.
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
    """Return an episode; begin it again if its workers are lost."""
    attempts = MAX_ATTEMPTS
    while True:
        episode, lost = _one_episode(environment, maker, seed, info, skip_steps, max_steps, watch)
        attempts -= 1
        if not lost or attempts == 0:
            return episode


def _one_episode(
    environment: Environment,
    maker: PolicyMaker,
    seed: int,
    wanted: Sequence[str] | None,
    skip_steps: int,
    max_steps: int | None,
    watch: Watcher | None,
) -> tuple[Episode, bool]:
    """Return an episode, and whether it has failed since the workers were lost."""
    episode, sums, all_sums = Episode(seed), _Means(wanted), _Means(wanted)
    observation, begun = environment.reset(seed=seed)
    episode.simulation_seed = begun.get("seed")
    policy = maker(environment, seed)
    if watch is not None:
        watch(environment, 0)
    over = False
    while not over:
        action = policy(observation, episode.steps)
        try:
            observation, reward, terminated, truncated, said = environment.step(action)
        except (TaskError, *GROUP_IS_LOST) as failure:
            episode.failure = str(failure)
            return episode, not isinstance(failure, TaskError)
        episode.steps += 1
        episode.total += float(reward)
        numbers = numbers_in(said)
        all_sums.add(numbers)
        if episode.steps > skip_steps:
            sums.add(numbers)
        over = terminated or truncated or episode.steps == max_steps
        if watch is not None:
            episode.series.append({"reward": float(reward), **_components(environment, action), **numbers})
            watch(environment, episode.steps)
    episode.terminated = bool(terminated)
    episode.info, episode.whole_info = sums.means(), all_sums.means()
    return episode, False


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
