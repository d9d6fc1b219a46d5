"""The Ray in which an experiment runs: the one that is there, or one with enough CPUs that is started for it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.algorithms import one_sample, trainable
from alchemist_ray.training.environments import ranks_on_ray
from alchemist_ray.training.schema import Experiment

START_ATTEMPTS = 3


@dataclass(frozen=True)
class Cpus:
    """How many of Ray's logical CPUs an experiment takes at least.

    Attributes
    ----------
    processes : int
        Those of RLlib's processes in one training: learner, runners and others.
    ranks : int
        Those of the MPI ranks of one training; 0 if the ranks are not on the nodes of Ray.
    trainings : int
        Trainings at the same time.
    """

    processes: int
    ranks: int
    trainings: int = 1

    @property
    def together(self) -> int:
        """For all trainings at the same time."""
        return self.trainings * (self.processes + self.ranks)

    @property
    def least(self) -> int:
        """So that no training waits in vain: Tune begins one whose processes fit, and its ranks must fit as well."""
        return self.together if self.ranks else self.processes


def cpus_of_training(experiment: Experiment, config: AlgorithmConfig) -> Cpus:
    """Return what the trainings of an experiment take."""
    algorithm: Any = trainable(experiment)
    processes: float = algorithm.default_resource_request(one_sample(config)).required_resources.get("CPU", 0)
    concurrent = experiment.search.concurrent if experiment.search is not None else 1
    return Cpus(math.ceil(processes), ranks_on_ray(experiment), concurrent)


def cpus_of_evaluation(experiment: Experiment) -> Cpus:
    """Return what one environment takes, without a training."""
    return Cpus(0, experiment.environment.num_workers if ranks_on_ray(experiment) else 0)


@contextmanager
def running_ray(experiment: Experiment, cpus: Cpus) -> Iterator[None]:
    """Run Ray with as many logical CPUs as the experiment takes, which may be more than the machine has.

    Raises
    ------
    ExperimentError
        If Ray does not start, or the one that runs has too few CPUs.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # we report failures; error.txt has the details
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # stoppable() has one
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # TrainingProgress prints its own lines
    if ray.is_initialized():
        _check_cpus(experiment, cpus)
        yield
        return
    started: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if experiment.ray.address is not None:
        started["address"] = experiment.ray.address
    else:
        started |= {"num_cpus": max(os.cpu_count() or 1, cpus.together), "include_dashboard": False}
    _start_ray(experiment, started)
    try:
        _check_cpus(experiment, cpus)
        yield
    finally:
        ray.shutdown()


def _start_ray(experiment: Experiment, started: dict[str, Any]) -> None:
    """Start Ray or connect to it. Ray gives up after 30 s, which is too short on a busy machine: try again."""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(**started)
        except Exception as failure:  # Ray raises plain ones
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise ExperimentError(
                    experiment.name, [f"Ray did not start, or could not be reached: {failure}"]
                ) from failure
        else:
            return


def _check_cpus(experiment: Experiment, cpus: Cpus) -> None:
    """Raise if Ray has too few CPUs: the trainings would never start, or their ranks would never get a place."""
    there = int(ray.cluster_resources().get("CPU", 0))
    if there >= cpus.least:
        return
    each = cpus.processes + cpus.ranks
    what = "a training" if cpus.processes else "an evaluation"
    both = cpus.processes and cpus.ranks
    parts = f" ({cpus.processes} for RLlib's processes, {cpus.ranks} for MPI ranks)" if both else ""
    several = f", and {cpus.trainings} run at the same time" if cpus.least > each else ""
    counted = "" if cpus.ranks else " (MPI ranks do not count, unless environment.cluster is ray)"
    keys = ["runners.num_env_runners"] * bool(cpus.processes) + ["environment.num_workers"] * bool(cpus.ranks)
    raise ExperimentError(
        experiment.name,
        [f"{what} takes {each} of Ray's CPUs{parts}{several}, but the running Ray has {there}: start it with "
         f"num_cpus={cpus.least} or more{counted}, or lower {' or '.join(keys)}"],
    )  # fmt: skip
