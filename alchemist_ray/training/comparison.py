"""Evaluations compared: a policy with a baseline, and the trainings of several seeds with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alchemist_ray.training.evaluation import Evaluation, reward_of, statistics_of
from alchemist_ray.training.statistics import Spread, Statistics


@dataclass(frozen=True)
class Differences:
    """How a policy differs from another on the same seeds: means and standard errors of the differences, seed by seed.

    The part that depends on the seed only cancels. So the errors are smaller than those of two means, which include
    the choice of the seeds.
    """

    total: Statistics
    reward: Statistics
    info: dict[str, Statistics]

    @classmethod
    def of(cls, found: Evaluation, base: Evaluation) -> Differences:
        """Return the differences of one evaluation from another, over the seeds whose episodes succeeded in both."""
        others = {episode.seed: episode for episode in base.whole}
        pairs = [(episode, others[episode.seed]) for episode in found.whole if episode.seed in others]
        return cls(
            Statistics.of([one.total - other.total for one, other in pairs]),
            Statistics.of([reward_of(one) - reward_of(other) for one, other in pairs]),
            statistics_of([_less(one.info, other.info) for one, other in pairs]),
        )

    def to_row(self) -> dict[str, Any]:
        """Return the differences as plain values."""
        return _plain(self.total, self.reward, self.info)


@dataclass(frozen=True)
class TrainingSpread:
    """What trainings with different seeds have come to: the mean of their means, and the standard deviation.

    Every training was evaluated on the same seeds, so the spread is due to the seeds of the trainings.
    """

    total: Spread
    reward: Spread
    info: dict[str, Spread]

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation]) -> TrainingSpread:
        """Return the spread of the evaluations of some trainings; those without a whole episode do not count."""
        known = [found for found in evaluations if found.whole]
        names = dict.fromkeys(name for found in known for name in found.info)
        return cls(
            Spread.of([found.total.mean for found in known]),
            Spread.of([found.reward.mean for found in known]),
            {name: Spread.of([found.info[name].mean for found in known if name in found.info]) for name in names},
        )

    def to_row(self) -> dict[str, Any]:
        """Return the spread as plain values."""
        return _plain(self.total, self.reward, self.info)


@dataclass(frozen=True)
class Assessment:
    """The outcome of the evaluation after the training.

    Attributes
    ----------
    trained, baselines : dict
        Name of a policy -> its evaluation, in the order of the tables.
    reference : str or None
        The baseline that the others are compared with.
    notes : list of str
        Remarks for the page, such as the pictures that are missing and why.
    """

    trained: dict[str, Evaluation]
    baselines: dict[str, Evaluation]
    reference: str | None
    notes: list[str] = field(default_factory=list)

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """All evaluations, the trained policies first."""
        return {**self.trained, **self.baselines}


def differences_from(evaluations: Mapping[str, Evaluation], reference: str | None) -> dict[str, Differences]:
    """Return the differences of all other policies from the reference."""
    base = evaluations.get(reference) if reference is not None else None
    if base is None:
        return {}
    return {name: Differences.of(found, base) for name, found in evaluations.items() if name != reference}


def _less(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: value - other[name] for name, value in one.items() if name in other}


def _plain(total: Any, reward: Any, info: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "return": vars(total),
        "reward_per_step": vars(reward),
        "info": {name: vars(found) for name, found in info.items()},
    }
