"""Policies on seeds: returns against the same walk in one process, means, baselines, and what is refused."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import LIBRARIES

import alchemist_ray as alchemist
from alchemist_ray.envs import HPCSimulator
from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.comparison import Differences, TrainingSpread
from alchemist_ray.training.environments import raising
from alchemist_ray.training.evaluation import Evaluation, evaluate, numbers_in, units_of_actions
from alchemist_ray.training.policies import baseline
from alchemist_ray.training.recording import Recording
from alchemist_ray.training.results import CURVE, last_return, write_csv
from alchemist_ray.training.schema import BaselineKeys
from alchemist_ray.training.statistics import Spread, Statistics
from alchemist_ray.training.tables import differences_table, policies_table, ranges_of, spread_table
from alchemist_ray.training.training import Training

HERE = Path(__file__).parent
STEPS = 6


@pytest.fixture(scope="module")
def server():
    with alchemist.start_server(
        4, memory_per_worker=2**26, libraries={"fragile": str(LIBRARIES / "fragile.py")}
    ) as own:
        yield own


@pytest.fixture(scope="module")
def make_walk(server):
    made = []

    def make(params=None, **settings):
        address = {"hostname": server.hostname, "port": server.port, "token": server.token}
        made.append(
            HPCSimulator(
                {**address, "lib_name": "fragile", "params": params or {}, "max_episode_steps": STEPS, **settings}
            )
        )
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture(scope="module")
def walk(make_walk):
    return make_walk(render_mode="rgb_array")


def walked(env, seed, action_of):
    """Return the rewards of the walk as fragile.py has it, in this process."""
    _, info = env.reset(seed=seed)
    random = np.random.default_rng(info["seed"])
    where, rewards = random.standard_normal(2), []
    for _ in range(STEPS):
        where = where + action_of(where) + 0.01 * random.standard_normal(2)
        rewards.append(-float(np.sum(where**2)))
    return rewards


def maker_of(**keys):
    return baseline("walk", "own", BaselineKeys(**keys), HERE)


@pytest.mark.parametrize(
    ("keys", "action_of"),
    [
        ({"kind": "zero"}, lambda where: np.zeros(2)),
        ({"constant": [0.5, -0.1]}, lambda where: np.array([0.5, -0.1])),
        ({"constant": 0.05}, lambda where: np.full(2, 0.05)),
        (
            {"function": "controllers:make_return", "options": {"gain": 0.5}},
            lambda where: np.clip(-0.5 * where, [-1, -0.1], [1, 0.1]),
        ),
    ],
)
def test_baselines_fare_as_the_same_walk_in_one_process(walk, keys, action_of):
    found = evaluate(walk, maker_of(**keys), [11, 12], skip_steps=2)
    for episode in found.episodes:
        rewards = walked(walk, episode.seed, action_of)
        assert episode.total == pytest.approx(sum(rewards), rel=1e-6)
        assert episode.steps == STEPS
        assert not episode.terminated
        assert episode.info == {"distance": pytest.approx(np.mean(np.sqrt(np.negative(rewards[2:]))), rel=1e-6)}
    assert found.total.mean == np.mean([episode.total for episode in found.episodes])


def test_a_random_policy_is_another_for_each_seed_and_the_same_for_one(walk):
    found = evaluate(walk, maker_of(kind="random"), [3, 4, 3])
    first, other, again = [episode.total for episode in found.episodes]
    assert first == again
    assert first != other


def test_an_episode_whose_workers_died_is_played_again(walk, make_walk, tmp_path):
    whole = evaluate(walk, maker_of(kind="zero"), [5]).episodes[0].total
    env = make_walk({"fault": "die", "at": 3, "once": str(tmp_path / "happened")})
    (episode,) = evaluate(env, maker_of(kind="zero"), [5]).episodes
    assert (tmp_path / "happened").exists()
    assert (episode.steps, episode.total) == (STEPS, whole)


def test_an_episode_that_diverges_has_failed_and_the_others_count(walk, make_walk):
    env = make_walk({"fault": "diverge", "at": 9, "lifetime": True})  # the third step of the second episode
    found = evaluate(env, maker_of(kind="zero"), [5, 6, 7])
    whole = evaluate(walk, maker_of(kind="zero"), [5, 7])
    assert [bool(episode.failure) for episode in found.episodes] == [False, True, False]
    assert "the simulation has diverged" in found.failed[0].failure
    assert found.failed[0].steps == 2
    assert found.total == whole.total
    row = found.to_row()
    assert (row["failed"], row["episodes"][0]["failure"]) == (1, None)
    lines = policies_table({"own": found, "zero": whole}).splitlines()
    assert lines[2].startswith("| own | 1 of 3 failed | ")
    assert lines[3].startswith("| zero | 0 of 2 failed | ")
    assert Differences.of(found, whole).total == Statistics(0.0, 0.0)
    evaluations = {"own": Evaluation(found.failed), "zero": whole}
    assert policies_table(evaluations).splitlines()[2].startswith("| own | 1 of 1 failed |  | ")
    only_one = {"own, seed 1": evaluations["own"], "own, seed 2": whole}
    assert TrainingSpread.of(list(only_one.values())).total.mean == whole.total.mean


def test_an_environment_is_evaluated_with_its_failures_raised():
    ours = {"lib_name": "fragile", "on_failure": "restart"}
    assert raising(ours) == {"lib_name": "fragile", "on_failure": "raise"}
    assert raising({"id": "CartPole-v1"}) == {"id": "CartPole-v1"}


def test_differences_are_paired_by_seeds(walk):
    """The walks of two seeds begin elsewhere; what a constant push does to them is nearly the same."""
    seeds = [1, 2, 3, 4]
    base = evaluate(walk, maker_of(constant=[0.1, 0.0]), seeds)
    found = evaluate(walk, maker_of(constant=[0.0, 0.0]), seeds[::-1])
    paired = Differences.of(found, base)
    of = {episode.seed: episode.total for episode in base.episodes}
    expected = [episode.total - of[episode.seed] for episode in found.episodes]
    assert paired.total.mean == pytest.approx(found.total.mean - base.total.mean)
    assert paired.total.standard_error == pytest.approx(np.std(expected, ddof=1) / 2)
    assert paired.total.standard_error < math.hypot(found.total.standard_error, base.total.standard_error)
    lines = differences_table({"own": found, "base": base}, "base").splitlines()
    assert lines[0] == "| minus base | return | reward a step | distance |"
    assert lines[2].startswith(f"| own | {paired.total} | ")
    assert len(lines) == 3


def test_the_means_of_whole_episodes_and_the_seeds_of_simulations_are_kept(walk):
    found = evaluate(walk, maker_of(kind="zero"), [11], skip_steps=4)
    (episode,) = found.to_row()["episodes"]
    distances = np.sqrt(np.negative(walked(walk, 11, lambda where: np.zeros(2))))
    assert episode["info"]["distance"] == pytest.approx(np.mean(distances[4:]), rel=1e-6)
    assert episode["info_all_steps"]["distance"] == pytest.approx(np.mean(distances), rel=1e-6)
    assert episode["simulation_seed"] == walk.reset(seed=11)[1]["seed"] != 11


def test_an_episode_can_be_cut_off_and_recorded(walk):
    recording = Recording(wanted=2, width=60)
    found = evaluate(walk, maker_of(constant=[0.5, 0.1]), [5, 6], max_steps=4, watch=recording)
    first, second = found.episodes
    assert (first.steps, second.steps, second.series) == (4, 4, [])
    assert [row["action push"] for row in first.series] == [0.5] * 4
    assert sum(row["reward"] for row in first.series) == pytest.approx(first.total)
    assert [step for step, _ in recording.pictures] == [0, 2, 4]
    field = recording.pictures[0][1]
    assert (field["values"].shape, field["name"], field["unit"]) == ((4, 6), "height", "m")
    assert units_of_actions(walk) == {"push": "m", "nudge": "m"}


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"function": "no_such_module:make"}, "the module no_such_module cannot be imported"),
        ({"function": "controllers:make"}, "controllers has no function make; it has make_return"),
        ({"function": "controllers:SETTING"}, "controllers has no function SETTING"),
        ({"function": "controllers:make_return", "options": {"again": 1}}, "unexpected keyword argument 'again'"),
    ],
)
def test_a_baseline_that_cannot_be_made_is_refused(keys, problem):
    with pytest.raises(ExperimentError, match=rf"walk: baselines\.own: .*{problem}"):
        maker_of(**keys)


def test_a_constant_that_is_no_action_is_refused(walk):
    for action, problem in (([0.1, 0.1, 0.1], r"shape \(3,\), not \(2,\)"), ([2.0, 0.0], "is not in Box")):
        with pytest.raises(ExperimentError, match=problem):
            evaluate(walk, maker_of(constant=action), [1])
    with pytest.raises(ExperimentError, match=r"the action 7\.0 is not in Discrete"):
        evaluate(gymnasium.make("CartPole-v1"), maker_of(constant=7.0), [1])


def test_a_key_that_info_lacks_is_refused(walk):
    with pytest.raises(ExperimentError, match="info has no 'drag'; it has distance"):
        evaluate(walk, maker_of(kind="zero"), [1], info=["drag"])


def test_statistics_are_those_of_the_textbook():
    found = Statistics.of([2.0, 4.0, 9.0])
    assert found.mean == 5.0
    assert found.standard_error == pytest.approx(math.sqrt(13 / 3))
    assert math.isnan(Statistics.of([1.0]).standard_error)
    assert str(found) == "5 ± 2.1"
    spread = Spread.of([2.0, 4.0, 9.0])
    assert (spread.mean, spread.standard_deviation) == (5.0, pytest.approx(math.sqrt(13)))
    assert str(Spread.of([1.0])) == "1"
    assert math.isnan(Spread.of([]).mean)
    assert numbers_in({"a": 1, "b": np.float32(2), "c": "3", "d": True, "e": [4]}) == {"a": 1.0, "b": 2.0}


def test_the_tables_have_means_with_errors_and_no_percentages(walk):
    """A return may have either sign: a change of it in percent says nothing."""
    evaluations = {
        "return": evaluate(walk, maker_of(function="controllers:make_return"), [1, 2]),
        "zero": evaluate(walk, maker_of(kind="zero"), [1, 2]),
    }
    head, _, first, _ = policies_table(evaluations).splitlines()
    assert head == "| policy | return | reward a step | distance |"
    assert first.startswith(f"| return | {evaluations['return'].total} | {evaluations['return'].reward} | ")
    assert "%" not in policies_table(evaluations) + differences_table(evaluations, "zero")
    assert differences_table(evaluations, None) == ""


def test_trainings_with_several_seeds_are_summed_up_by_their_mean_and_deviation(walk):
    pushes = (0.1, 0.2, 0.4)
    trained = {f"PPO, seed {n}": evaluate(walk, maker_of(constant=[p, 0.0]), [1, 2]) for n, p in enumerate(pushes)}
    returns = [np.mean([sum(walked(walk, seed, lambda _, p=p: np.array([p, 0.0]))) for seed in (1, 2)]) for p in pushes]
    found = TrainingSpread.of(list(trained.values()))
    assert found.total.mean == pytest.approx(np.mean(returns), rel=1e-6)
    assert found.total.standard_deviation == pytest.approx(np.std(returns, ddof=1), rel=1e-6)
    assert found.reward.mean == pytest.approx(np.mean(returns) / STEPS, rel=1e-6)
    head, _, row = spread_table("PPO", trained).splitlines()
    assert head == "| over trainings | return | reward a step | distance |"
    assert row == f"| PPO, 3 trainings | {found.total} | {found.reward} | {found.info['distance']} |"
    assert spread_table("PPO", {"PPO": trained["PPO, seed 0"]}) == ""


def test_seeds_are_said_in_ranges():
    assert ranges_of([1, 2, 3, 4, 7, 8, 12, 11, 10]) == "1 to 4, 7, 8, 12, 11, 10"


def test_an_environment_without_pictures_says_why():
    recording = Recording(wanted=2, width=10)
    evaluate(gymnasium.make("CartPole-v1"), maker_of(constant=0.0), [1], watch=recording)
    assert recording.pictures == []
    assert "NoneType" in recording.reason


def test_tables_are_written_as_csv(tmp_path):
    write_csv(tmp_path / "curve.csv", CURVE, [{"training": 0, "seed": 3, "iteration": 1, "timesteps": 100}])
    (row,) = csv.DictReader((tmp_path / "curve.csv").open())
    assert (row["seed"], row["timesteps"], row["mean_return"]) == ("3", "100", "")


def test_the_last_return_of_a_training_is_that_of_the_last_iteration_in_which_an_episode_ended(tmp_path):
    training = Training(0, 3, tmp_path, None, 0, {}, {}, {}, "")
    assert math.isnan(last_return(training))
    lines = [{"training_iteration": n, "mean_return": value} for n, value in enumerate([math.nan, -4.0, math.nan], 1)]
    (tmp_path / "result.json").write_text("\n".join(map(json.dumps, lines)))
    assert last_return(training) == -4.0


def test_a_policy_without_episodes_has_no_info():
    assert Evaluation([]).info == {}
    assert str(HERE) in sys.path  # where baselines were looked for
