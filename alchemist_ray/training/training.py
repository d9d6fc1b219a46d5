"""Training under Ray Tune: starting, stopping, checkpoints, resuming.

Each training is one of Tune's trials: one for each seed and each sample of a search. RLlib's process adds to each
result the keys that stopping, checkpoints and searches need (:func:`after_iteration`).

Ctrl-C asks the running trials for a checkpoint with their next result, and ends Tune when all have saved. A second
Ctrl-C ends Tune at once. In both cases the experiment can be resumed from the last checkpoints, as after a kill.
"""

from __future__ import annotations

import functools
import math
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import ray.tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.schedulers import ASHAScheduler

from alchemist_ray.errors import AlchemistError, ExperimentError
from alchemist_ray.training.algorithms import algorithm_config, environment_of, register_environment, trainable
from alchemist_ray.training.evaluation import evaluate
from alchemist_ray.training.policies import TrainedPolicy
from alchemist_ray.training.progress import TrainingProgress, stop_conditions
from alchemist_ray.training.ray_runtime import cpus_of_training, running_ray
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.seeds import rllib_seed

TUNE_DIRECTORY = "tune"

LAST_EVALUATION = "last_evaluation_return"

SEARCH_KEYS = {"mean_return": "mean_return", "evaluation_return": LAST_EVALUATION}
"""The keys under which every result has the metrics of a search."""


@dataclass(frozen=True)
class Training:
    """A training that has ended or was stopped.

    Attributes
    ----------
    number, seed : int
    directory : Path
        Tune's directory of the training.
    checkpoint : Path or None
        The checkpoint to evaluate.
    checkpoint_timesteps : int
        Steps of the environment up to this checkpoint; 0 if unknown.
    env_config : dict
        Configuration of the environment, with the values that the search has chosen.
    sampled : dict
        Values that the search has chosen, by path.
    metrics : dict
        RLlib's last result.
    error : str
        Why the training failed; empty if it did not.
    """

    number: int
    seed: int
    directory: Path
    checkpoint: Path | None
    checkpoint_timesteps: int
    env_config: dict[str, Any]
    sampled: dict[str, Any]
    metrics: dict[str, Any]
    error: str


# --- in RLlib's process -----------------------------------------------------------------------------------------------


def with_callbacks(config: AlgorithmConfig, experiment: Experiment) -> AlgorithmConfig:
    """Return RLlib's configuration with the functions that RLlib calls for us in its processes."""
    keys = experiment.model_copy(update={"server": experiment.server.model_copy(update={"token": None})})
    threads = experiment.algorithm.torch_threads
    if threads is None and experiment.server.embedded and experiment.environment.is_ours:
        threads = 1
    config.callbacks(
        on_algorithm_init=functools.partial(_set_threads, threads=threads),
        on_train_result=functools.partial(after_iteration, experiment=keys),
    )
    return config


def _set_threads(*, algorithm: Any, threads: int | None, **_: Any) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def after_iteration(*, algorithm: Any, result: dict[str, Any], experiment: Experiment, **_: Any) -> None:
    """Add ``timesteps, mean_return, mean_steps, checkpoint_score`` and evaluations to a result."""
    sampled = result.get("env_runners", {})
    result["timesteps"] = int(result.get("num_env_steps_sampled_lifetime", 0))
    result["mean_return"] = float(sampled.get("episode_return_mean", math.nan))
    result["mean_steps"] = float(sampled.get("episode_len_mean", math.nan))
    keys = experiment.evaluation
    result["checkpoint_score"] = result["mean_return"] if keys.interval is None else math.nan
    result[LAST_EVALUATION] = getattr(algorithm, LAST_EVALUATION, math.nan)
    if keys.interval is not None and result["training_iteration"] % keys.interval == 0:
        _evaluate_now(algorithm, result, experiment)


def _evaluate_now(algorithm: Any, result: dict[str, Any], experiment: Experiment) -> None:
    keys = experiment.evaluation
    with closing(environment_of(algorithm)) as environment:
        found = evaluate(
            environment,
            TrainedPolicy.of(algorithm).episode,
            keys.during_training,
            info=keys.info,
            skip_steps=keys.skip_steps,
            max_steps=keys.max_steps,
        )
    result["evaluation_return"], result["evaluation_failed"] = found.total.mean, len(found.failed)
    score = math.nan if found.failed else found.total.mean  # do not choose a policy by the other episodes
    result["checkpoint_score"] = result[LAST_EVALUATION] = score
    setattr(algorithm, LAST_EVALUATION, score)
    result["evaluation_info"] = {name: statistics.mean for name, statistics in found.info.items()}
    if keys.checkpoint == "best":
        result["should_checkpoint"] = True


# --- in the process of the command ------------------------------------------------------------------------------------


def train(
    experiment: Experiment, directory: Path, *, resume: bool, say: Callable[[str], None]
) -> tuple[list[Training], bool]:
    """Train; return the trainings, and whether they were interrupted.

    Parameters
    ----------
    experiment : Experiment
    directory : Path
        Directory of the results.
    resume : bool
        Whether to continue from the last checkpoints.
    say : callable
        Is called with one line of the progress at a time.

    Raises
    ------
    ExperimentError
        If Ray has too few CPUs, there is nothing to resume, or a training failed.
    """
    config = with_callbacks(algorithm_config(experiment), experiment)
    progress = TrainingProgress(experiment, say)
    with running_ray(experiment, cpus_of_training(experiment, config)), stoppable(progress):
        register_environment(experiment)
        tuner = _restored(experiment, directory, config) if resume else _new(experiment, directory, config, progress)
        if resume:
            set_callbacks(tuner, progress)
        grid = tuner.fit()
    trainings = _trainings(experiment, grid)
    failed = [
        f"training {training.number} failed: {training.error} (see {training.directory}/error.txt)"
        for training in trainings
        if training.error
    ]
    if failed and not progress.ended:
        raise ExperimentError(experiment.name, failed)
    return trainings, progress.ended


def find_trainings(experiment: Experiment, directory: Path) -> list[Training]:
    """Return the trainings of an earlier run without continuing them.

    Raises
    ------
    ExperimentError
        If there are none.
    """
    config = with_callbacks(algorithm_config(experiment), experiment)
    return _trainings(experiment, _restored(experiment, directory, config).get_results())


def _new(
    experiment: Experiment, directory: Path, config: AlgorithmConfig, progress: TrainingProgress
) -> ray.tune.Tuner:
    keys, search = experiment.checkpoints, experiment.search
    best = experiment.evaluation.checkpoint == "best"
    return ray.tune.Tuner(
        trainable(experiment),
        param_space=config,
        tune_config=ray.tune.TuneConfig(
            num_samples=search.num_samples if search is not None else 1,
            scheduler=_scheduler(experiment),
            max_concurrent_trials=search.concurrent if search is not None else 1,
            trial_dirname_creator=_directory_name,
            trial_name_creator=_directory_name,
        ),
        run_config=ray.tune.RunConfig(
            name=TUNE_DIRECTORY,
            storage_path=str(directory.resolve()),
            stop=stop_conditions(experiment.stop),
            verbose=0,
            callbacks=[progress],
            checkpoint_config=ray.tune.CheckpointConfig(
                checkpoint_frequency=keys.interval,
                checkpoint_at_end=True,
                num_to_keep=keys.keep,
                checkpoint_score_attribute="checkpoint_score" if best else None,
                checkpoint_score_order="max",
            ),
        ),
    )


def _restored(experiment: Experiment, directory: Path, config: AlgorithmConfig) -> ray.tune.Tuner:
    path = directory.resolve() / TUNE_DIRECTORY
    if not ray.tune.Tuner.can_restore(str(path)):
        raise ExperimentError(
            experiment.name, [f"{directory} has nothing to resume: run the experiment without --resume"]
        )
    restore = functools.partial(ray.tune.Tuner.restore, str(path), trainable(experiment), param_space=config)
    before = restore()
    finished = _Resume.RESUME if _have_grown(experiment, before.get_results()) else _Resume.SKIP
    return restore(_resume_config=ray.tune.ResumeConfig(finished, _Resume.RESUME, _Resume.RESUME))


_Resume = ray.tune.ResumeConfig.ResumeType


def _have_grown(experiment: Experiment, grid: Any) -> bool:
    """Whether a training ended at a limit that has been raised since."""
    if experiment.search is not None and experiment.search.scheduler == "asha":
        return False  # asha ends trainings as well
    wanted = stop_conditions(experiment.stop)
    ended = [result.metrics for result in grid if result.metrics and result.metrics.get("done")]
    return any(not any(last.get(key, -math.inf) >= value for key, value in wanted.items()) for last in ended)


def set_callbacks(tuner: ray.tune.Tuner, progress: TrainingProgress) -> None:
    """Give a restored tuner this process' callback: the earlier one ended with its process."""
    run_config = tuner._local_tuner.get_run_config()
    run_config.callbacks = [progress]


def _scheduler(experiment: Experiment) -> ASHAScheduler | None:
    search = experiment.search
    if search is None or search.scheduler == "fifo":
        return None
    longest = experiment.stop.iterations or 10**9
    return ASHAScheduler(
        time_attr="training_iteration",
        metric=SEARCH_KEYS[search.metric],
        mode="max",
        grace_period=min(search.grace_iterations, longest),
        max_t=longest,
    )


def _directory_name(trial: Any) -> str:
    return f"training_{int(trial.trial_id.rpartition('_')[2]):03d}"


def _trainings(experiment: Experiment, grid: Any) -> list[Training]:
    trainings, seeds = [], {rllib_seed(seed): seed for seed in experiment.seeds}
    for number, result in enumerate(grid):
        config = result.config or {}
        checkpoint, at_checkpoint = _checkpoint(experiment, result)
        trainings.append(
            Training(
                number=number,
                seed=seeds.get(config.get("seed", 0), experiment.seeds[0]),
                directory=Path(result.path),
                checkpoint=checkpoint,
                checkpoint_timesteps=int(at_checkpoint.get("timesteps", 0)),
                env_config=dict(config.get("env_config", {})),
                sampled=_sampled(experiment, config),
                metrics=dict(result.metrics or {}),
                error=_reason(result.error, _text(Path(result.path) / "error.txt")) if result.error is not None else "",
            )
        )
    return trainings


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _reason(error: BaseException, text: str) -> str:
    """Return the cause of a training's failure, without Ray's own layers."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    if isinstance(error, AlchemistError):
        return str(error)
    ours = re.findall(r"^alchemist_ray\.errors\.\w+: (.+)$", text, re.MULTILINE)  # RLlib wraps it
    return ours[-1] if ours else f"{type(error).__name__}: {error}"


def _checkpoint(experiment: Experiment, result: Any) -> tuple[Path | None, dict[str, Any]]:
    """Return the checkpoint to evaluate, and RLlib's result at that time."""
    if experiment.evaluation.checkpoint == "best" and result.best_checkpoints:
        scored = [(found.get("checkpoint_score", math.nan), kept, found) for kept, found in result.best_checkpoints]
        known = [candidate for candidate in scored if not math.isnan(candidate[0])]
        if known:
            _, best, found = max(known, key=lambda candidate: candidate[0])
            return Path(best.path), found
    if result.checkpoint is None:
        return None, {}
    return Path(result.checkpoint.path), dict(result.metrics or {})


def _sampled(experiment: Experiment, config: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a search has chosen, by path."""
    if experiment.search is None:
        return {}
    places = {
        "algorithm.training": config,
        "algorithm.model": config.get("_model_config", {}),
        "environment.params": config.get("env_config", {}).get("params", {}),
    }
    chosen = {}
    for path in experiment.search.space:
        section, _, name = path.rpartition(".")
        chosen[path] = places[section].get(name)
    return chosen


@contextmanager
def stoppable(progress: TrainingProgress) -> Iterator[None]:
    """Stop the trainings with a checkpoint on Ctrl-C or SIGTERM; stop them at once on a second one."""

    def stop(number: int, frame: FrameType | None) -> None:
        if progress.stopping:
            progress.end_now()
        else:
            progress.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
