"""Experiments from YAML: what is wrong is said by line, key and nearest name; the documentation has every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alchemist_ray.cli import main
from alchemist_ray.errors import ExperimentError
from alchemist_ray.training import load_experiment
from alchemist_ray.training.descriptions import as_markdown, as_text, keys
from alchemist_ray.training.loading import to_yaml
from alchemist_ray.training.results import resolved
from alchemist_ray.training.seeds import environment_seeds, rllib_seed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "experiments.md").read_text()

WHOLE = """\
algorithm: {training: {lr: 1e-4, gamma: 0.99}}
environment: {lib_name: heat, params: {n: 16}}
stop: {timesteps: 2e5}
"""


@pytest.fixture
def load(tmp_path):
    def from_text(text, *overrides):
        file = tmp_path / "walk.yaml"
        file.write_text(text)
        return load_experiment(file, overrides)

    return from_text


def test_numbers_are_taken_as_people_write_them(load):
    experiment = load(WHOLE)
    assert experiment.algorithm.training == {"lr": 1e-4, "gamma": 0.99}
    assert experiment.stop.timesteps == 200_000
    assert isinstance(experiment.stop.timesteps, int)
    assert experiment.name == "walk"


def test_what_is_not_said_has_the_default_that_is_documented(load):
    experiment = load(WHOLE)
    assert experiment.runners.num_env_runners == 0
    assert experiment.evaluation.seeds == [10001, 10002, 10003, 10004, 10005]
    assert experiment.baselines["no control"].kind == "zero"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (WHOLE + "algoritm: {}", r"line 4: algoritm: unknown key; did you mean 'algorithm'\?"),
        (WHOLE + "runners:\n  vectorise: hpc", r"line 5: runners\.vectorise: unknown key; did you mean 'vectorize'\?"),
        (WHOLE + "runners: {vectorize: hcp}", r"line 4: .*'hcp' is not one of sync, async, hpc; did you mean 'hpc'\?"),
        (
            WHOLE + "checkpoints:\n  interval: often",
            r"line 5: checkpoints\.interval: must be a valid integer, not 'often'",
        ),
        (WHOLE + "checkpoints: {interval: 2.5}", r"checkpoints\.interval: must be a valid integer, not 2\.5"),
        (WHOLE + "checkpoints: {keep: 0}", r"checkpoints\.keep: must be greater than or equal to 1, not 0"),
        (WHOLE + "checkpoints: {keep: true}", r"checkpoints\.keep: must be a valid integer, not True"),
        (WHOLE + "evaluation: 3", r"line 4: evaluation: must be keys and values, not 3"),
        (WHOLE + "seeds: [1, x]", r"line 4: seeds\.1: must be a valid integer, not 'x'"),
        (WHOLE + "seeds: []", r"seeds: .*at least 1"),
        (WHOLE + "seeds: [3, 4, 3]", "seeds: 3 is given twice"),
        (WHOLE + "seeds: [-1]", r"line 4: seeds\.0: must be greater than or equal to 0, not -1"),
        (WHOLE + "evaluation: {interval: 1, interval_seeds: [7, 7]}", r"interval_seeds: 7 is given twice"),
        (WHOLE + "evaluation: {seeds: [7, 7]}", r"evaluation\.seeds: 7 is given twice"),
        (
            WHOLE + f"evaluation: {{seeds: [{rllib_seed(0) + 5}]}}\nrunners: {{num_env_runners: 6}}",
            r"seed \d+ begins a training episode as well",
        ),
        (
            WHOLE + "evaluation: {seeds: [7], interval_seeds: [7], interval: 2, checkpoint: best}",
            "seed 7 chooses a policy",
        ),
        (WHOLE + "baselines: {none: nil}", r"baselines\.none\.kind: 'nil' is not one of zero, random"),
        (WHOLE + "baselines: {none: {kind: zero, constant: 1}}", r"baselines\.none: give one of kind, constant and"),
        (WHOLE + "baselines: {own: {function: make}}", r"must be 'package\.module:function', not 'make'"),
        (WHOLE + "baselines: {PPO: zero}", r"baselines\.PPO: that is the name of the trained policy"),
        (WHOLE + "pictures: {beside: nobody}", "'nobody' is not one of the baselines"),
        (WHOLE + "search: {space: {a.b: {unifrom: [1, 2]}}}", r"'unifrom' is not one of .*; did you mean 'uniform'\?"),
        (WHOLE + "server: {token: x, token_file: y}", "give one of token and token_file"),
        ("environment: {lib_name: heat}", "stop: missing"),
        ("stop: {seconds: 5}", "environment: missing"),
        ("environment: {lib_name: heat}\nstop: {}", "line 2: stop: nothing ends the training"),
        ("environment: {}\nstop: {seconds: 5}", "give either id"),
        ("environment: {id: CartPole-v1, num_workers: 3}\nstop: {seconds: 5}", "num_workers: only for MPI simulations"),
        (
            "environment: {lib_name: heat, kwargs: {a: 1}}\nstop: {seconds: 5}",
            "give the parameters of a simulation in params",
        ),
        ("", "the file is empty: it needs at least environment and stop"),
        ("# nothing yet", "the file is empty"),
        ("- a\n- b", r"must be keys and values, not \['a', 'b'\]"),
        ("stop: {seconds: [1}", r"line 1, column 19: not valid YAML: "),
        ("stop:\n\tseconds: 1", r"line 2, column 1: not valid YAML: .*'\\t'"),
        (WHOLE + "stop: {seconds: 5}", "line 4: stop is given twice, first in line 3"),
        ("stop: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(load, text, problem):
    with pytest.raises(ExperimentError) as caught:
        load(text)
    assert re.search(problem, str(caught.value)), str(caught.value)
    assert "walk.yaml: " in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once(load):
    with pytest.raises(ExperimentError, match="3 problems") as caught:
        load(WHOLE + "runners: {vectorise: hpc}\nchecks: 1\nresults: 4")
    assert len(caught.value.problems) == 3


def test_trainings_with_neighbouring_seeds_have_no_episode_in_common():
    """RLlib gives environment i of a training with seed s the seed s + i."""
    begun = [environment_seeds([seed], 64) for seed in range(20)]
    assert len(set.union(*begun)) == 20 * 64
    assert set.union(*begun) == environment_seeds(range(20), 64)
    # the same on every machine, and in the range that NumPy's generator takes with what RLlib adds
    assert [rllib_seed(seed) for seed in (0, 1, 2)] == [821328062, 761762303, 686643339]
    assert all(0 <= rllib_seed(seed) < 2**30 for seed in range(1000))


def test_evaluations_during_the_training_are_on_the_seeds_of_the_table_unless_they_choose(load):
    assert load(WHOLE).evaluation.during_training == []
    assert load(WHOLE, "evaluation={seeds: [7, 8], interval: 2}").evaluation.during_training == [7, 8]
    assert load(WHOLE, "evaluation.interval=2").evaluation.during_training == load(WHOLE).evaluation.seeds
    assert load(WHOLE, "evaluation={interval: 2, interval_seeds: [9]}").evaluation.during_training == [9]
    assert load(WHOLE, "evaluation={interval: 2, checkpoint: best}").evaluation.during_training == [20001]
    by_search = ["evaluation.interval=2", "search={metric: evaluation_return}"]
    assert load(WHOLE, *by_search).evaluation.during_training == [20001]


@pytest.mark.parametrize(
    ("override", "repeatable"),
    [
        ("runners.num_env_runners=1", True),
        ("runners.num_env_runners=2", False),
        ("algorithm.name=IMPALA", False),
        ("algorithm.name=SAC", True),
    ],
)
def test_an_experiment_knows_whether_a_seed_repeats_it(load, override, repeatable):
    assert load(WHOLE, override).repeatable == repeatable


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm.clip_actions=true"],
        ["evaluation.interval=3"],
        ["algorithm.normalize_actions=false"],
        ["environment={id: CartPole-v1, kwargs: {render_mode: null}}"],
        ["environment={id: alchemist_ray/Heat-v0, num_workers: 2}", "baselines.hold={constant: [0.1, -2]}"],
        ["search={space: {algorithm.training.lr: {loguniform: [1e-5, 1e-3]}}}", "stop.seconds=1e6"],
        ["description='1e5'", "environment.params.note='-2e-3'", "ray.address='a: b #1'"],
    ],
)
def test_the_experiment_that_results_keep_is_the_same_experiment(load, overrides):
    experiment = load(WHOLE, *overrides)
    again = load(to_yaml(resolved(experiment)))
    assert again == experiment
    assert resolved(again) == resolved(experiment)


@pytest.mark.parametrize("place", ["42", "2026-11-22", "a: b", "/some/x #1", "null"])
def test_the_directory_of_the_results_is_taken_as_it_is(load, tmp_path, place):
    load(WHOLE, "results=elsewhere")
    assert load_experiment(tmp_path / "walk.yaml", ["results=elsewhere"], results=place).results == place


def test_a_missing_file_names_those_that_there_are(load, tmp_path):
    load(WHOLE)
    with pytest.raises(ExperimentError, match=r"the file does not exist; its directory has .*walk\.yaml"):
        load_experiment(tmp_path / "wlak.yaml")


def test_overrides_take_the_place_of_what_the_file_says(load):
    experiment = load(WHOLE, "stop.timesteps=1e3", "seeds=[4, 5]", "baselines.none=zero", "algorithm.training.lr=2e-3")
    assert experiment.stop.timesteps == 1000
    assert experiment.seeds == [4, 5]
    assert list(experiment.baselines) == ["none"]
    assert experiment.algorithm.training == {"lr": 2e-3, "gamma": 0.99}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("stop.timesteps", "give KEY.PATH=VALUE"),
        ("stop.timestep=3", r"stop\.timestep: unknown key; did you mean 'timesteps'\?"),
        ("name.first=x", "--set name.first=x: name has no keys"),
        ("seeds=[1", "not valid YAML"),
    ],
)
def test_wrong_overrides_are_refused(load, override, problem):
    with pytest.raises(ExperimentError, match=problem):
        load("name: walk\n" + WHOLE, override)


def test_the_ranks_are_on_ray_or_on_a_server(load):
    assert load(WHOLE, "environment.cluster=ray:mine").environment.cluster == "ray:mine"
    with pytest.raises(ExperimentError, match=r"environment\.cluster"):
        load(WHOLE, "environment.cluster=rya")
    with pytest.raises(ExperimentError, match=r"environment\.cluster starts a server in Ray, and server names another"):
        load(WHOLE, "environment.cluster=ray", "server.port=24960")


def test_paths_begin_at_the_directory_of_the_file(load, tmp_path):
    experiment = load(WHOLE.replace("lib_name: heat", "lib_name: own, lib_path: own.py") + "server: {token_file: t}")
    assert experiment.environment.lib_path == str(tmp_path / "own.py")
    assert experiment.server.token_file == str(tmp_path / "t")


def test_the_table_of_the_documentation_is_that_of_the_schema():
    assert as_markdown() in PAGE
    assert len(list(keys())) > 50
    for key in keys():
        assert key.text, key.path


def test_describe_prints_every_key(capsys):
    assert main(["run", "--describe"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == as_text().strip()
    assert all(f"{key.path} (" in printed for key in keys())


def test_every_option_of_the_command_is_documented(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert options == set(re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE))


def test_the_examples_of_the_documentation_are_experiments(load):
    whole, *parts = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    shipped = load_experiment(ROOT / "experiments" / "ppo_heat.yaml")
    assert load("name: ppo_heat\n" + whole) == shipped
    assert len(parts) >= 2
    for part in parts:
        load(WHOLE + part)


def test_the_command_says_what_is_wrong_and_fails(tmp_path, capsys):
    file = tmp_path / "walk.yaml"
    file.write_text(WHOLE + "stpo: 1")
    assert main(["run", str(file), "--dry-run"]) == 1
    assert "line 4: stpo: unknown key; did you mean 'stop'?" in capsys.readouterr().err
