"""An experiment from its file to its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from alchemist_ray.training import results
from alchemist_ray.training.after_training import evaluate_and_draw
from alchemist_ray.training.algorithms import algorithm_config, validate
from alchemist_ray.training.environments import (
    env_config,
    make_environment,
    offer_workers,
    server_token,
    workers_wanted,
)
from alchemist_ray.training.evaluation import Evaluation
from alchemist_ray.training.policies import PolicyMaker, baseline
from alchemist_ray.training.ray_runtime import cpus_of_evaluation, cpus_of_training, running_ray
from alchemist_ray.training.report import PAGE, write_page
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.tables import differences_table, policies_table, spread_table
from alchemist_ray.training.training import Training, find_trainings, train

Say = Callable[[str], None]


@dataclass
class Outcome:
    """The outcome of an experiment.

    Attributes
    ----------
    directory : Path
        Directory of the results.
    trainings : list of Training
    evaluations : dict
        Name of a policy -> its evaluation, the trained ones first; empty if the training was interrupted.
    interrupted : bool
    """

    directory: Path
    trainings: list[Training]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    interrupted: bool = False


def check(experiment: Experiment, file: Path | None = None) -> dict[str, PolicyMaker]:
    """Check an experiment against gymnasium and RLlib without starting anything; return its baselines.

    Raises
    ------
    ExperimentError
        If gymnasium or RLlib would refuse it, or a baseline cannot be made.
    """
    validate(experiment, algorithm_config(experiment))
    directory = file.resolve().parent if file is not None else None
    return {name: baseline(experiment.name, name, keys, directory) for name, keys in experiment.baselines.items()}


def run_experiment(
    experiment: Experiment,
    *,
    file: Path | None = None,
    resume: bool = False,
    evaluate_only: bool = False,
    command: str = "",
    say: Say = print,
) -> Outcome:
    """Train, evaluate, and write the results.

    Parameters
    ----------
    experiment : Experiment
    file : Path, optional
        Its YAML file. Baselines may be functions of modules in the same directory.
    resume : bool
        Whether to continue from the checkpoints of the last run.
    evaluate_only : bool
        Whether to evaluate the existing checkpoints without training.
    command : str, optional
        The command that the report shows, without the options for these two.
    say : callable
        Is called with one line of text at a time.

    Raises
    ------
    ExperimentError
        If gymnasium or RLlib refuses the experiment, its results belong to another one, or a training failed.
    AlchemistError
        If the simulation cannot be made: no server, not enough workers, no such library or parameter.
    """
    directory = Path(experiment.results or Path("results") / experiment.name)
    baselines = check(experiment, file)
    if resume or evaluate_only:
        results.check_same(experiment, directory, resume=resume)
    else:
        results.check_fresh(experiment, directory)
    offer_workers(workers_wanted(experiment))
    by = command or f"alchemist run {file.name if file is not None else 'experiment.yaml'}"
    flags = f"{' --resume' if resume else ''}{' --evaluate-only' if evaluate_only else ''}"
    with _ray_for_ranks(experiment, evaluate_only):
        _try_out(experiment, baselines)
        results.write_experiment(experiment, directory, f"{by}{flags}", resume=resume, evaluate_only=evaluate_only)
        return _train_and_evaluate(experiment, directory, baselines, resume, evaluate_only, say)


def _ray_for_ranks(experiment: Experiment, evaluate_only: bool) -> AbstractContextManager[None]:
    """Run Ray for the whole experiment if the ranks are on its nodes; otherwise only the training needs it."""
    if experiment.environment.cluster is None:
        return nullcontext()
    if evaluate_only:
        return running_ray(experiment, cpus_of_evaluation(experiment))
    return running_ray(experiment, cpus_of_training(experiment, algorithm_config(experiment)))


def _train_and_evaluate(
    experiment: Experiment,
    directory: Path,
    baselines: Mapping[str, PolicyMaker],
    resume: bool,
    evaluate_only: bool,
    say: Say,
) -> Outcome:
    if evaluate_only:
        trainings, interrupted = find_trainings(experiment, directory), False
    else:
        trainings, interrupted = train(experiment, directory, resume=resume, say=say)
    rows = [row for training in trainings for row in results.curve_of(training)]
    results.write_csv(directory / "curve.csv", results.CURVE, rows)
    if interrupted:
        return Outcome(directory, trainings, interrupted=True)
    found = evaluate_and_draw(experiment, directory, trainings, rows, baselines, say)
    write_page(directory / PAGE, experiment, trainings, found)
    for table in (
        policies_table(found.evaluations),
        spread_table(experiment.algorithm.name, found.trained),
        differences_table(found.evaluations, found.reference),
    ):
        say(f"{table}\n" if table else "")
    return Outcome(directory, trainings, found.evaluations)


def _try_out(experiment: Experiment, baselines: Mapping[str, PolicyMaker]) -> None:
    """Begin an episode with each baseline, so that errors of the simulation or a baseline come before the training."""
    with closing(make_environment(env_config(experiment), token=server_token(experiment.server))) as environment:
        observation, _ = environment.reset(seed=experiment.seeds[0])
        for maker in baselines.values():
            environment.step(maker(environment, 0)(observation, 0))
            environment.reset(seed=experiment.seeds[0])
