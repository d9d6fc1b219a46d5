"""Evaluation of a policy: one episode for each seed, and means with their standard errors.

An episode in which the simulation fails (it diverges or raises) would fail again, since seed and policy are the same.
Such an episode is counted as failed, and the means skip it. Lost workers may be the machine's fault: the episode is
played again, and counts as failed if the workers are lost again and again. So the environment must raise its failures
rather than restart (:func:`~alchemist_ray.training.environments.raising`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alchemist_ray.envs.simulation_group import GROUP_IS_LOST
from alchemist_ray.errors import ExperimentError, TaskError
from alchemist_ray.training.policies import Environment, PolicyMaker
from alchemist_ray.training.statistics import Statistics

MAX_ATTEMPTS = 3
"""How many times an episode is tried whose workers are lost."""

ACTION = "action "
"""First part of the names of an action's components in a series."""


@dataclass
class Episode:
    """One episode.

    Attributes
    ----------
    seed, steps : int
    total : float
        Undiscounted sum of the rewards.
    terminated : bool
        Whether the environment ended it; otherwise it was cut off.
    info : dict
        Means of the numbers in the environment's `info`, over the steps after those that are skipped.
    whole_info : dict
        The same means over all steps.
    simulation_seed : int or None
        The seed that the environment gave the simulation, if `info` has it.
    failure : str
        Why the simulation failed; empty if it did not.
    series : list of dict
        For each step the reward, the components of the action and the numbers in `info`; empty unless it is watched.
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
    """The episodes of a policy. Statistics are over those that did not fail."""

    episodes: list[Episode]

    @property
    def whole(self) -> list[Episode]:
        """The episodes that did not fail."""
        return [episode for episode in self.episodes if not episode.failure]

    @property
    def failed(self) -> list[Episode]:
        """The episodes that failed."""
        return [episode for episode in self.episodes if episode.failure]

    @property
    def total(self) -> Statistics:
        """Statistics of the returns."""
        return Statistics.of([episode.total for episode in self.whole])

    @property
    def reward(self) -> Statistics:
        """Statistics of the mean reward of a step."""
        return Statistics.of([reward_of(episode) for episode in self.whole])

    @property
    def info(self) -> dict[str, Statistics]:
        """Statistics of the episodes' means of `info`, without the skipped steps."""
        return statistics_of([episode.info for episode in self.whole])

    @property
    def whole_info(self) -> dict[str, Statistics]:
        """Statistics of the episodes' means of `info` over all steps."""
        return statistics_of([episode.whole_info for episode in self.whole])

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


def reward_of(episode: Episode) -> float:
    """Return the mean reward of a step."""
    return episode.total / max(1, episode.steps)


def statistics_of(rows: Sequence[Mapping[str, float]]) -> dict[str, Statistics]:
    """Return the statistics of named numbers, each over the rows that contain it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: Statistics.of([row[name] for row in rows if name in row]) for name in names}


Watcher = Callable[[Environment, int], None]
"""Is called with the environment and the number of steps so far, after the reset and after each step."""


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
        It must raise an error if its simulation fails.
    maker : callable
        Makes the policy of an episode.
    seeds : sequence of int
    info : sequence of str, optional
        Keys of `info` to average; by default all numbers.
    skip_steps : int
        Steps at the start of an episode that the averages of `info` skip.
    max_steps : int, optional
        Steps after which an episode is cut off.
    watch : callable, optional
        Called during the first episode; its series is recorded then.

    Raises
    ------
    ExperimentError
        If the environment's `info` lacks one of the keys.
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
    """Return an episode; try it again if its workers are lost."""
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
    """Return an episode, and whether it failed because the workers were lost."""
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
        """Add the numbers of a step."""
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
    """Return the numbers in an environment's `info`."""
    return {
        name: float(value)
        for name, value in info.items()
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    }


def units_of_actions(environment: Environment) -> dict[str, str]:
    """Return the units of an action's components by name, where the environment declares them."""
    known = getattr(environment.unwrapped, "action_components", None) or []
    return {component.name: component.unit for component in known if component.name and component.unit}


def _components(environment: Environment, action: Any) -> dict[str, float]:
    """Return the components of an action by name."""
    values = np.asarray(action, float).ravel()
    known = getattr(environment.unwrapped, "action_components", None)
    names = [component.name for component in known] if known else []
    return {
        f"{ACTION}{names[place] if place < len(names) and names[place] else place}": float(value)
        for place, value in enumerate(values)
    }
