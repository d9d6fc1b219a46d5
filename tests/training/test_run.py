"""``alchemist run`` to its end: killed, resumed, evaluated; stopped by Ctrl-C; and what it refuses."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml
from conftest import LIBRARIES
from PIL import Image
from ray import tune
from ray.tune.registry import ENV_CREATOR, _global_registry
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray.cli import main
from alchemist_ray.errors import ArgumentError, ExperimentError, NotEnoughWorkersError
from alchemist_ray.training import command, load_experiment, run_experiment
from alchemist_ray.training.algorithms import ENVIRONMENT, algorithm_config, register_environment
from alchemist_ray.training.environments import offer_workers, workers_wanted
from alchemist_ray.training.progress import TrainingProgress
from alchemist_ray.training.ray_runtime import Cpus, cpus_of_training
from alchemist_ray.training.results import seeds_during_training
from alchemist_ray.training.runner import check
from alchemist_ray.training.training import set_callbacks, stoppable

ROOT = Path(__file__).parents[2]

WALK = """\
description: A random walk learns to stay where it began.
algorithm:
  training: {lr: 3e-3, gamma: 0.9, train_batch_size_per_learner: 2e2, minibatch_size: 50, num_epochs: 8}
  model: {fcnet_hiddens: [16], vf_share_layers: false}
  observation_filter: mean_std
  reward_scale: 0.5
runners: {num_envs_per_env_runner: 4, vectorize: hpc}
environment: {lib_name: fragile, num_workers: 2, max_episode_steps: 10}
server: {port: PORT, token_file: token}
seeds: [1, 2]
stop: {iterations: 6}
evaluation: {seeds: [101, 102], interval: 1}
baselines:
  no control: zero
  return: {function: "controllers:make_return", options: {gain: 0.8}}
checkpoints: {interval: 1}
pictures: {frames: 5, width: 60}
"""


@pytest.fixture(scope="module")
def server():
    with alchemist.start_server(
        6, memory_per_worker=2**26, libraries={"fragile": str(LIBRARIES / "fragile.py")}
    ) as own:
        yield own


@pytest.fixture(scope="module")
def directory(tmp_path_factory, server):
    place = tmp_path_factory.mktemp("experiment")
    (place / "walk.yaml").write_text(WALK.replace("PORT", str(server.port)))
    (place / "token").write_text(server.token)
    (place / "token").chmod(0o600)
    (place / "controllers.py").write_text((Path(__file__).parent / "controllers.py").read_text())
    return place


@pytest.fixture(scope="module")
def _ray():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def iterations_in(lines):
    return [int(found[1]) for line in lines if (found := re.match(r" +0 +(\d+) +[\d,]+ ", line))]


def run_and_kill(file, results):
    """Start a run, kill it without warning once it has two checkpoints; return its status."""
    running = subprocess.Popen(
        [sys.executable, "-m", "alchemist_ray.cli", "run", str(file), "--results", str(results)],
        env=os.environ | {"TUNE_GLOBAL_CHECKPOINT_S": "0"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert wait_until(lambda: running.poll() is not None or saved(results), 240)
    finally:
        running.kill()
    return running.wait()


def saved(results):
    """Whether Tune's record of a run, which has pickled objects in hexadecimal, knows the second checkpoint.

    Tune copies the record and then the results, file by file: a run that is killed in between loses these results.
    """
    records = list((results / "tune").glob("experiment_state-*.json"))
    copied = [file.read_text().count("\n") for file in (results / "tune").glob("*/result.json")]
    known = any(b"checkpoint_000001".hex() in record.read_text(errors="replace") for record in records)
    return known and max(copied, default=0) >= 2


@pytest.mark.systems
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_ray")
def test_a_run_that_was_killed_is_resumed_and_evaluated(directory, monkeypatch):
    file, results = directory / "walk.yaml", directory / "results"
    monkeypatch.chdir(directory)
    overrides = [f"results={results}"]

    # killed without warning, once there are two checkpoints
    assert run_and_kill(file, results) == -signal.SIGKILL

    # not begun anew by mistake
    with pytest.raises(ExperimentError, match="has results already: --resume"):
        command.run(str(file), overrides, resume=False, evaluate_only=False, report=None, say=print)
    changed = [*overrides, "algorithm.training.gamma=0.5"]
    with pytest.raises(ExperimentError, match=r"algorithm\.training\.gamma: it was 0\.9, and is 0\.5"):
        command.run(str(file), changed, resume=True, evaluate_only=False, report=None, say=print)

    changed = [*overrides, "evaluation.interval=2", "evaluation.seeds=[103]"]
    with pytest.raises(ExperimentError, match=r"evaluation\.interval: it was 1, and is 2"):
        command.run(str(file), changed, resume=True, evaluate_only=False, report=None, say=print)

    # goes on after its last checkpoint, to its end
    said = []
    status = command.run(
        str(file), overrides, resume=True, evaluate_only=False, report=directory / "report", say=said.append
    )
    assert status == 0
    assert iterations_in(said)[0] > 2
    assert iterations_in(said)[-1] == 6

    check_results(results)
    check_report(directory / "report", results)
    check_evaluation_again(file, overrides, results)


def count_interrupted(tuner_of, place, directory):
    """Run a counter under Tune with Ctrl-C in its first iteration; return what was said, and the progress."""
    said = []

    def say(line):
        said.append(line)
        if line.startswith("training"):
            os.kill(os.getpid(), signal.SIGINT)

    progress = TrainingProgress(load_experiment(directory / "walk.yaml", ["stop.iterations=1e6"]), say)
    with stoppable(progress):
        tuner_of(progress).fit()
    return said, progress


@pytest.mark.usefixtures("_ray")
def test_ctrl_c_stops_a_training_with_a_checkpoint_from_which_it_goes_on(directory, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "1")
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")

    class Counter(tune.Trainable):
        def setup(self, config):
            self.count = 0

        def step(self):
            self.count += 1
            return {"timesteps": 10 * self.count, "mean_return": 0.5}

        def save_checkpoint(self, checkpoint_dir):
            Path(checkpoint_dir, "count").write_text(str(self.count))

        def load_checkpoint(self, checkpoint_dir):
            self.count = int(Path(checkpoint_dir, "count").read_text())

    def begin(progress):
        run_config = tune.RunConfig(
            name="counts",
            storage_path=str(tmp_path),
            callbacks=[progress],
            verbose=0,
        )
        return tune.Tuner(Counter, run_config=run_config)

    def go_on(progress):
        tuner = tune.Tuner.restore(str(tmp_path / "counts"), Counter)
        set_callbacks(tuner, progress)
        return tuner

    reached = 0
    for tuner_of in (begin, go_on):
        said, progress = count_interrupted(tuner_of, tmp_path, directory)
        assert progress.ended
        assert said[1].startswith("Stopping after this iteration, with a checkpoint")
        done = iterations_in(said)
        assert done[0] == reached + 1
        reached = done[-1]
        assert max(int(file.read_text()) for file in tmp_path.glob("counts/*/checkpoint_*/count")) == reached


def check_results(results):
    with (results / "curve.csv").open() as table:
        curve = list(csv.DictReader(table))
    assert [(int(row["seed"]), int(row["iteration"])) for row in curve] == [(s, n) for s in (1, 2) for n in range(1, 7)]
    assert [int(row["timesteps"]) for row in curve] == [200 * n for n in range(1, 7)] * 2
    found = json.loads((results / "evaluation.json").read_text())
    returns = {name: policy["return"]["mean"] for name, policy in found["policies"].items()}
    assert list(returns) == ["PPO, seed 1", "PPO, seed 2", "no control", "return"]
    # the evaluated policy is the trained one, on the seeds of the curve: filter, scaling, weights of the last iteration
    trained = [returns["PPO, seed 1"], returns["PPO, seed 2"]]
    assert trained == pytest.approx([float(curve[place]["evaluation_return"]) for place in (5, 11)], rel=1e-5)
    assert min(trained) > returns["no control"]
    spread = found["over_trainings"]["return"]
    assert spread["mean"] == pytest.approx(sum(trained) / 2)
    assert spread["standard_deviation"] == pytest.approx(abs(trained[0] - trained[1]) / 2**0.5)
    assert "relative_change" not in found
    assert [episode["seed"] for episode in found["policies"]["return"]["episodes"]] == [101, 102]
    assert (results / found["checkpoints"]["PPO, seed 2"]).is_dir()
    assert list((results / "tune" / "training_001").glob("events.out.tfevents.*"))


def check_report(report, results):
    names = {
        "README.md", "experiment.yaml", "versions.json", "runs.json", "evaluation.json", "curve.csv", "curve.png",
        "episode.png", "fields.png", "animation.gif",
    }  # fmt: skip
    assert {path.name for path in report.iterdir()} == names
    page = (report / "README.md").read_text()
    for name in re.findall(r"\]\(([^)]+)\)", page):
        assert (report / name).exists(), name
    assert "| PPO, seed 2 |" in page
    assert "| PPO, 2 trainings |" in page
    assert "mean ± standard deviation of the trainings' means" in page
    assert " %)" not in page
    assert "a training repeats bit for bit" in page
    assert Image.open(report / "animation.gif").n_frames == 5
    versions = json.loads((report / "versions.json").read_text())
    assert versions["python"].startswith("3.")
    assert {"ray", "torch", "gymnasium", "mpi4py"} <= set(versions["packages"])
    token = (results.parent / "token").read_text()
    for path in (*report.iterdir(), *results.rglob("*.json"), *results.rglob("*.pkl")):
        assert token.encode() not in path.read_bytes(), path
    said = yaml.safe_load((report / "experiment.yaml").read_text())
    assert said["stop"]["iterations"] == 6
    assert said["algorithm"]["training"]["lr"] == 3e-3


def check_evaluation_again(file, overrides, results):
    """Other seeds and baselines may be evaluated afterwards; the same seeds give the same."""
    before = json.loads((results / "evaluation.json").read_text())
    kept = [(results / name).read_bytes() for name in ("experiment.yaml", "versions.json")]
    lines = []
    more = [*overrides, "evaluation.seeds=[102]", "evaluation.interval_seeds=[101, 102]", "pictures.frames=0"]
    command.run(str(file), more, resume=False, evaluate_only=True, report=None, say=lines.append)
    after = json.loads((results / "evaluation.json").read_text())
    second = [policy["episodes"][1]["return"] for policy in before["policies"].values()]
    assert [policy["return"]["mean"] for policy in after["policies"].values()] == second
    assert not iterations_in(lines)
    # the experiment and the versions are still those of the training; what was run since is beside them
    assert [(results / name).read_bytes() for name in ("experiment.yaml", "versions.json")] == kept
    runs = json.loads((results / "runs.json").read_text())
    assert [run["did"] for run in runs] == ["trained", "went on with the training", "evaluated"]
    assert runs[1]["command"].endswith("walk.yaml --resume")
    assert runs[2]["command"].endswith("--evaluate-only")
    assert runs[2]["changed"]["evaluation.seeds"] == [[101, 102], [102]]
    assert runs[2]["versions"] == json.loads((results / "versions.json").read_text())
    page = (results / "README.md").read_text()
    assert all(run["command"] in page for run in runs)
    assert seeds_during_training(results) == [101, 102]  # by which the baselines of the curve are drawn


HEAT = {
    "seeds": "[1]",
    "stop.timesteps": "4e3",
    "environment": "{lib_name: heat, num_workers: 1, params: {n: 16}, max_episode_steps: 40}",
    "algorithm.training.train_batch_size_per_learner": "1e3",
    "algorithm.training.minibatch_size": "250",
    "algorithm.torch_threads": "1",
    "evaluation.seeds": "[10001, 10002, 10003]",
    "pictures": "{fields: 0, frames: 0}",
    "search": "{space: {algorithm.training.num_epochs: {grid: [12, 12]}}}",  # the same training twice
}
"""The experiment ppo_heat.yaml shortened."""


def curves_in(results):
    with (results / "curve.csv").open() as table:
        rows = list(csv.DictReader(table))
    return [[(row["timesteps"], row["mean_return"]) for row in rows if row["training"] == number] for number in "01"]


@pytest.mark.systems
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_ray")
def test_the_heated_plate_is_learned_the_same_twice_and_trained_on(server, directory, tmp_path):
    file, results = ROOT / "experiments" / "ppo_heat.yaml", tmp_path / "results"
    where = f"server={{port: {server.port}, token_file: '{directory}/token'}}"
    shortened = [where, *(f"{key}={value}" for key, value in HEAT.items())]
    found = run_experiment(load_experiment(file, shortened, results=str(results)), file=file).evaluations
    assert found["PPO"].total.mean > 0.35 * found["no control"].total.mean  # costs: a third
    first, second = curves_in(results)
    assert first == second
    assert first[-1][0] == "4000"

    # what ends a training may grow after its end, not shrink
    with pytest.raises(ExperimentError, match=r"stop\.timesteps: it was 4000, and is 3000; it may only grow"):
        run_experiment(
            load_experiment(file, [*shortened, "stop.timesteps=3000"], results=str(results)), file=file, resume=True
        )
    longer = load_experiment(file, [*shortened, "stop.timesteps=5000"], results=str(results))
    run_experiment(longer, file=file, resume=True)
    on, _ = curves_in(results)
    assert on[:-1] == first
    assert on[-1][0] == "5000"
    assert yaml.safe_load((results / "experiment.yaml").read_text())["stop"]["timesteps"] == 5000


@pytest.mark.usefixtures("_ray")
def test_a_training_that_would_wait_for_ray_in_vain_is_refused(directory, tmp_path):
    more = ["runners.num_env_runners=4", "evaluation.interval=null", f"results={tmp_path}/results"]
    experiment = load_experiment(directory / "walk.yaml", more)
    with pytest.raises(ExperimentError, match="takes 5 of Ray's CPUs, but the running Ray has 2"):
        run_experiment(experiment, file=directory / "walk.yaml")


ON_RAY = ["server={}", "environment.cluster=ray", "environment.lib_name=heat", "environment.max_episode_steps=5"]


@pytest.mark.usefixtures("_ray")
def test_ranks_on_ray_count_before_anything_is_started(directory, tmp_path):
    experiment = load_experiment(directory / "walk.yaml", [*ON_RAY, f"results={tmp_path}/results"])
    text = r"takes 5 of Ray's CPUs \(1 for RLlib's processes, 4 for MPI ranks\), but the running Ray has 2"
    with pytest.raises(ExperimentError, match=text):
        run_experiment(experiment, file=directory / "walk.yaml")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("overrides", "cpus"),
    [
        ([], Cpus(1, 4)),  # the training's group, and one for the evaluation
        (["evaluation.interval=null"], Cpus(1, 2)),
        (["runners={num_env_runners: 2, num_envs_per_env_runner: 3}"], Cpus(3, 14)),
        (["runners={num_envs_per_env_runner: 6, vectorize: hpc, num_groups: 3}"], Cpus(1, 8)),
        (["environment.cluster=ray:mine"], Cpus(1, 0)),
        (["search={space: {algorithm.training.lr: {uniform: [0, 1]}}, concurrent: 2}"], Cpus(1, 4, 2)),
    ],
)
def test_the_cpus_of_a_training(directory, overrides, cpus):
    experiment = load_experiment(directory / "walk.yaml", [*ON_RAY, *overrides])
    assert cpus_of_training(experiment, algorithm_config(experiment)) == cpus
    assert workers_wanted(experiment) == 0  # it starts no server of its own
    assert cpus.least == (cpus.trainings * (cpus.processes + cpus.ranks) if cpus.ranks else cpus.processes)


@pytest.mark.systems
def test_a_run_with_its_ranks_on_a_ray_of_its_own(directory, tmp_path):
    """Also the first try and the evaluation at the end have their ranks in the Ray that the run has started."""
    more = ["seeds=[1]", "stop={iterations: 1}", "runners={}", "pictures={fields: 0, frames: 0}", "baselines={}"]
    command = [sys.executable, "-m", "alchemist_ray.cli", "run", str(directory / "walk.yaml")]
    options = [word for override in [*ON_RAY, *more] for word in ("--set", override)]
    ran = subprocess.run(
        [*command, "--results", str(tmp_path / "results"), *options],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("algorithm.name=PPOO", r"algorithm\.name: RLlib has no 'PPOO'; did you mean 'PPO'\?"),
        (
            "algorithm.training.lambda=0.9",
            r"algorithm\.training\.lambda: PPO has no such option; did you mean 'lambda_'\?",
        ),
        (
            "algorithm.training.lr=fast",
            r"algorithm\.training\.lr: must be like 5e-05, which is the default, not 'fast'",
        ),
        ("algorithm.training.use_gae=3", r"use_gae: must be like True, which is the default, not 3"),
        ("algorithm.training.minibatch_size=1000", "RLlib refuses the configuration: .*minibatch_size"),
        ("algorithm.model.fcnet_hidden=[4]", r"model\.fcnet_hidden: .*; did you mean 'fcnet_hiddens'\?"),
        ("algorithm.model.fcnet_hiddens=64", r"must be like \[256, 256\], which is the default, not 64"),
        (
            "search={space: {algorithm.lr: {uniform: [0, 1]}}}",
            r"a search can only vary algorithm\.training\.NAME",
        ),
        (
            "search={space: {algorithm.training.lr: {uniform: [0]}}}",
            r"uniform takes a list \[lower, upper\], not \[0\]",
        ),
        ("search={space: {algorithm.training.l: {uniform: [0, 1]}}}", "PPO has no such option"),
        ("search={space: {algorithm.training.lr: {}}}", "give one of Tune's spaces"),
        ("baselines.other=controllers:mak", "has no function mak; it has make_return"),
    ],
)
def test_what_rllib_would_not_take_is_refused_before_anything_is_started(directory, override, problem):
    experiment = load_experiment(directory / "walk.yaml", [override])
    with pytest.raises(ExperimentError, match=problem):
        check(experiment, directory / "walk.yaml")


def test_an_environment_that_gymnasium_does_not_know_is_refused(directory):
    experiment = load_experiment(
        directory / "walk.yaml", ["environment={id: alchemist_ray/Heet-v0}", "runners.vectorize=sync"]
    )
    with pytest.raises(ExperimentError, match="did you mean 'alchemist_ray/Heat-v0'"):
        check(experiment)


def test_options_reach_rllib_under_their_names(directory):
    config = algorithm_config(load_experiment(directory / "walk.yaml", ["algorithm.clip_actions=true"]))
    assert (config.lr, config.gamma, config.num_epochs) == (3e-3, 0.9, 8)
    assert config.train_batch_size_per_learner == 200
    assert isinstance(config.train_batch_size_per_learner, int)
    assert config.model_config["fcnet_hiddens"] == [16]
    assert (config.clip_actions, config.normalize_actions) == (True, False)
    assert config.env_config["max_episode_steps"] == 10
    assert "token" not in config.env_config


@pytest.mark.parametrize(
    ("override", "error", "problem"),
    [
        ("environment.params.falt=die", ArgumentError, "did you mean 'fault'"),
        ("environment.num_workers=7", NotEnoughWorkersError, "7"),
    ],
)
def test_a_simulation_that_cannot_be_made_is_said_before_the_training(directory, tmp_path, override, error, problem):
    experiment = load_experiment(directory / "walk.yaml", [override, f"results={tmp_path}/results"])
    with pytest.raises(error, match=problem):
        run_experiment(experiment, file=directory / "walk.yaml")
    assert not (tmp_path / "results").exists()


def test_a_server_that_is_started_on_the_way_offers_what_the_experiment_takes(directory, monkeypatch):
    more = ["server={}", "runners={num_envs_per_env_runner: 9, vectorize: sync}", "environment.num_workers=3"]
    monkeypatch.setenv("ALCHEMIST_NUM_WORKERS", "4")
    offer_workers(workers_wanted(load_experiment(directory / "walk.yaml", more)))
    assert os.environ["ALCHEMIST_NUM_WORKERS"] == str((9 + 1) * 3)
    # and so in RLlib's processes, which need not be children of this one
    monkeypatch.setenv("ALCHEMIST_NUM_WORKERS", "4")
    experiment = load_experiment(directory / "walk.yaml", [*more, "environment.num_workers=4"])
    register_environment(experiment)
    maker = _global_registry.get(ENV_CREATOR, ENVIRONMENT)
    maker({"id": "CartPole-v1", "kwargs": {}, "max_episode_steps": 1}).close()
    assert os.environ["ALCHEMIST_NUM_WORKERS"] == str((9 + 1) * 4)


def test_nothing_is_resumed_where_nothing_was_run(directory, tmp_path):
    experiment = load_experiment(directory / "walk.yaml", [f"results={tmp_path}"])
    for how in ({"resume": True}, {"evaluate_only": True}):
        with pytest.raises(ExperimentError, match="has no results of a run"):
            run_experiment(experiment, file=directory / "walk.yaml", **how)


def test_a_dry_run_prints_the_whole_experiment_without_the_token(directory, capsys):
    assert main(["run", str(directory / "walk.yaml"), "--set", "stop.seconds=9", "--dry-run"]) == 0
    said = yaml.safe_load(capsys.readouterr().out)
    assert said["stop"] == {"timesteps": None, "iterations": 6, "seconds": 9.0, "reward": None}
    assert said["runners"]["num_env_runners"] == 0
    assert "token" not in said["server"]


def test_the_python_of_the_documentation_is_sound():
    """Its trainings take too long here: the one without the runner is set up, what it shows of ours must be there."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "experiments.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 3
    for block in blocks:
        for module, names in re.findall(r"^from (alchemist_ray\S*) import (.*)$", block, re.MULTILINE):
            for name in names.split(", "):
                assert hasattr(importlib.import_module(module), name)
        compile(block, "experiments.md", "exec")
    there = {}
    exec(blocks[-1].replace("results = tuner.fit()\n", ""), there)
    there["config"].validate()
    assert "tuner" in there


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda file: file.name)
def test_the_experiments_that_come_along_are_sound(file):
    check(load_experiment(file), file)
