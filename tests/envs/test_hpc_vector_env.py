"""Many simulations as one vector environment, held against as many single ones: the rules, failures, snapshots."""

from __future__ import annotations

import gc
import os
import pickle
import signal

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from alchemist_ray import errors
from alchemist_ray.client import commands as control
from alchemist_ray.envs import HPCSimulator, HPCVectorEnv

DIVERGE, RAISE, NAN, LEAVE, RESHAPE, NO_SCORE, DIE, HANG, FAIL_TO_RESET = range(1, 10)


def actions_of(envs, random, **faults):
    """Return random actions; of simulation i with the fault ``s<i>``."""
    actions = np.zeros((envs.num_envs, 2), envs.settings.dtype)
    actions[:, 0] = random.uniform(-1, 1, envs.num_envs)
    for name, fault in faults.items():
        actions[int(name[1:]), 1] = fault
    return actions


def assert_same(one, other, where=""):
    """Fail unless two results are equal bit for bit, of equal types, infos included."""
    if isinstance(one, (tuple, list)):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{number}]")
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), where
        if one.dtype == object:
            assert_same(list(one), list(other), where)
        else:
            np.testing.assert_array_equal(one, other, where)
    else:
        assert one == other, where


def run(envs, steps, random, seed=None):
    """Return a reset and steps with random actions; in the mode DISABLED also the resets of what has ended."""
    results = [envs.reset(seed=seed)]
    for _ in range(steps):
        step = envs.step(actions_of(envs, random) if isinstance(envs, HPCVectorEnv) else _random(envs, random))
        results.append(step)
        over = step[2] | step[3]
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and over.any():
            results.append(envs.reset(options={"reset_mask": over}))
    return results


def _random(envs, random):
    return np.stack([random.uniform(-1, 1, envs.num_envs), np.zeros(envs.num_envs)], 1).astype(np.float32)


# --- gymnasium's rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "ranks"),
    [
        (AutoresetMode.NEXT_STEP, 1),
        (AutoresetMode.SAME_STEP, 1),
        (AutoresetMode.DISABLED, 1),
        (AutoresetMode.SAME_STEP, 2),
    ],
)
def test_episodes_are_those_of_single_simulators_in_gymnasiums_own_vector_environment(
    env_config, make_envs, mode, ranks
):
    limits = {"max_episode_steps": 9}
    envs = make_envs(3, autoreset_mode=mode, workers_per_simulation=ranks, **limits)
    first = HPCSimulator(env_config("walks", **limits | {"num_workers": ranks}))
    first.reset()
    singles = [first, *first.fork(2)]
    truth = SyncVectorEnv([lambda env=env: env for env in singles], autoreset_mode=mode)
    try:
        assert envs.metadata["autoreset_mode"] is mode
        assert envs.observation_space == truth.observation_space
        assert envs.action_space == truth.action_space
        assert envs.single_observation_space == truth.single_observation_space
        ends = 0
        for seed in (5, None, [3, None, 9]):
            ours = run(envs, 30, np.random.default_rng(1), seed)
            theirs = run(truth, 30, np.random.default_rng(1), seed)
            assert_same(ours, theirs)
            ends += sum(int(step[2].sum()) for step in ours if len(step) == 5)
        assert ends >= 3
    finally:
        truth.close()


def test_two_groups_give_what_one_gives(make_envs):
    results = []
    for groups in (1, 2):
        envs = make_envs(5, num_groups=groups, num_workers=2, workers_per_simulation=1, max_episode_steps=7)
        results.append(run(envs, 25, np.random.default_rng(2), 11))
    assert_same(*results)


def test_it_has_the_attributes_of_gymnasiums_own(make_envs, make_env):
    envs, single = make_envs(2, num_workers=1, render_mode="rgb_array"), make_env("walks", num_workers=1)
    truth = SyncVectorEnv([lambda: single] * 2)
    for name in dir(truth):
        value = getattr(truth, name)
        if name.startswith("_") or callable(value) or name in {"copy", "env_fns", "envs", "observation_mode"}:
            continue
        ours = getattr(envs, name)
        assert type(ours) is type(value) or value is None or name in {"render_mode", "closed", "unwrapped"}, name
    assert (envs.closed, envs.spec, envs.render_mode, envs.unwrapped) == (False, None, "rgb_array", envs)
    assert envs.autoreset_mode is AutoresetMode.NEXT_STEP is envs.metadata["autoreset_mode"]
    envs.reset(seed=7)
    truth.reset(seed=7)
    assert envs.np_random_seed == (7, 8)
    assert all(isinstance(generator, np.random.Generator) for generator in envs.np_random)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_closed_one_opens_again_when_it_is_reset_and_can_be_closed_again(make_envs, groups):
    envs = make_envs(2, num_workers=1, num_groups=groups)
    start, _ = envs.reset(seed=2)
    for _ in range(2):
        sessions = [batch.group.session for batch in envs._live.batches]
        assert not envs.closed
        envs.close()
        envs.close()
        assert envs.closed
        assert not any(session.connected for session in sessions)
        with pytest.raises(gymnasium.error.ResetNeeded):
            envs.step(np.zeros((2, 2)))
        np.testing.assert_array_equal(envs.reset(seed=2)[0], start)


def test_infos_of_other_names_come_too(make_envs):
    envs = make_envs(2, params={"chance": 0.0, "odd_infos": True})
    envs.reset(seed=0)
    infos = [envs.step(np.zeros((2, 2)))[4] for _ in range(3)]
    assert infos[1]["steps"].tolist() == [2, 2]
    assert_same(infos[2], {"third": np.array([3.0, 3.0]), "_third": np.array([True, True])})


def test_the_registered_environments_have_a_vector_entry_point(env_config):
    settings = env_config()
    del settings["lib_name"]
    envs = gymnasium.make_vec("alchemist_ray/Heat-v0", num_envs=3, max_episode_steps=4, **settings)
    try:
        assert isinstance(envs.unwrapped, HPCVectorEnv)
        envs.reset(seed=1)
        truncations = [envs.step(envs.action_space.sample())[3].tolist() for _ in range(4)]
        assert truncations == [[False] * 3] * 3 + [[True] * 3]
    finally:
        envs.close()


def test_a_vector_environment_pickles_as_its_settings_and_is_lazy(make_envs):
    envs = make_envs(num_envs=3, num_workers=99)
    again = pickle.loads(pickle.dumps(envs))
    assert again.settings == envs.settings
    assert again.num_envs == 3
    assert "walks on 99 workers" in repr(again)
    with pytest.raises(errors.NotEnoughWorkersError, match="99 workers"):
        again.reset()


# --- snapshots, pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_snapshot_continues_bit_for_bit_also_in_another_simulation(make_envs, ranks):
    envs = make_envs(4, workers_per_simulation=ranks, num_workers=4, max_episode_steps=25)
    before = run(envs, 10, np.random.default_rng(3), 1)[-1][0]
    taken = envs.snapshot()

    def go_on():
        random = np.random.default_rng(4)
        return [envs.step(actions_of(envs, random)) for _ in range(25)]

    first = go_on()
    envs.restore(taken)
    assert_same(first, go_on())
    observations, _ = envs.restore(taken[3])
    np.testing.assert_array_equal(observations, np.stack([before[3]] * 4))
    action = np.zeros((4, 2), np.float32)
    if envs.restore(taken[3]) and taken[3].episode.running:
        forked = envs.step(action)[0]
        np.testing.assert_array_equal(forked, np.stack([forked[0]] * 4))
    envs.restore(taken[1:3], indices=[1, 2])
    del taken
    gc.collect()
    envs.snapshot(indices=[0])
    with pytest.raises(errors.ArgumentValueError, match="different ones of"):
        envs.snapshot(indices=[1, 1])


def test_a_snapshot_serves_its_own_group_only(make_envs):
    envs = make_envs(2, num_groups=2, num_workers=1)
    envs.reset(seed=1)
    one, _ = envs.snapshot()
    with pytest.raises(errors.ArgumentValueError, match="not in the memory of the workers that run simulation 1"):
        envs.restore(one)


def test_the_render_mode_that_is_asked_for_comes_before_that_of_the_settings():
    envs = HPCVectorEnv({"lib_name": "heat", "num_envs": 2, "render_mode": "rgb_array"}, render_mode="rgb_array_tiled")
    assert envs.render_mode == "rgb_array_tiled"
    envs.close()


def test_pictures_of_all_or_one_of_them_all(make_envs):
    envs = make_envs(3, render_mode="rgb_array", num_workers=2)
    observations, _ = envs.reset(seed=3)
    pictures = envs.render()
    assert [picture.shape for picture in pictures] == [pictures[0].shape] * 3
    fields = envs.fields()
    np.testing.assert_allclose(fields[1]["values"][0, 0], observations[1, 0], rtol=1e-6)
    envs.render_mode = "rgb_array_tiled"
    (tiled,) = envs.render()
    height, width, _ = pictures[0].shape
    assert tiled.shape == (2 * height, 2 * width, 3)
    np.testing.assert_array_equal(tiled[:height, width:], pictures[1])
    assert not tiled[height:, width:].any()


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_fails_in_one_simulation_touches_no_other(make_envs, ranks):
    settings = {"num_workers": 4, "workers_per_simulation": ranks, "params": {"chance": 0.0}}
    envs = make_envs(4, on_failure="restart", max_restarts=20, **settings)
    start, _ = envs.reset(seed=1)
    quiet, loud = np.random.default_rng(5), np.random.default_rng(5)
    undisturbed = [envs.step(actions_of(envs, quiet)) for _ in range(14)]
    np.testing.assert_array_equal(start, envs.reset(seed=1)[0])
    words = {
        DIVERGE: "diverged: it was told to",
        RAISE: "RuntimeError: out of luck",
        NAN: "not finite",
        LEAVE: r"1000.0 outside -100.0..100.0 in component 2 (z)",
        RESHAPE: "has shape (2,)",
        NO_SCORE: "get_score returned None",
        FAIL_TO_RESET: "and the next reset fails too",
    }
    before = start
    for number, (fault, text) in enumerate(words.items()):
        observations, rewards, terminations, truncations, infos = envs.step(actions_of(envs, loud, s2=fault))
        others = [0, 1, 3]
        np.testing.assert_array_equal(observations[others], undisturbed[2 * number][0][others])
        np.testing.assert_array_equal(rewards[others], undisturbed[2 * number][1][others])
        np.testing.assert_array_equal(observations[2], before[2])
        assert (rewards[2], terminations.any(), truncations.tolist()) == (0.0, False, [False, False, True, False])
        assert infos["_simulator_restarted"].tolist() == [False, False, True, False]
        assert text in infos["simulator_error"][2]
        before, rewards, *_, infos = envs.step(actions_of(envs, loud))  # resets it, if need be twice
        np.testing.assert_array_equal(before[others], undisturbed[2 * number + 1][0][others])
        assert rewards[2] == 0
        assert infos["_seed"].tolist() == [False, False, True, False]


def test_a_failure_is_raised_unless_it_is_to_be_survived_and_not_too_often(make_envs):
    envs = make_envs(2, num_workers=1)
    random = np.random.default_rng(0)
    envs.reset(seed=1)
    with pytest.raises(errors.SimulationDivergedError, match="it was told to") as caught:
        envs.step(actions_of(envs, random, s1=DIVERGE))
    assert "This was simulation 1 of 2." in caught.value.__notes__
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.step(actions_of(envs, random))
    envs.reset(seed=1)
    envs.step(actions_of(envs, random))


def test_in_the_same_step_mode_what_fails_begins_anew_at_once(make_envs):
    envs = make_envs(3, on_failure="restart", autoreset_mode="same_step", params={"chance": 0.0}, max_restarts=1)
    before, _ = envs.reset(seed=1)
    random = np.random.default_rng(0)
    observations, _, _, truncations, infos = envs.step(actions_of(envs, random, s1=RAISE))
    assert truncations.tolist() == [False, True, False]
    np.testing.assert_array_equal(infos["final_obs"][1], before[1])
    assert infos["final_info"]["simulator_restarted"].tolist() == [False, True, False]
    assert (observations[1] != before[1]).all()
    assert not envs.step(actions_of(envs, random))[3].any()
    envs.step(actions_of(envs, random, s1=RAISE))
    with pytest.raises(errors.RemoteTaskError, match="out of luck"):
        envs.step(actions_of(envs, random, s1=RAISE))


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_a_group_that_dies_is_replaced_and_the_other_goes_on(make_envs, mode):
    settings = {"params": {"chance": 0.0}, "num_groups": 2, "num_workers": 2, "workers_per_simulation": 1}
    envs = make_envs(4, on_failure="restart", autoreset_mode=mode, **settings)
    quiet, loud = np.random.default_rng(5), np.random.default_rng(5)
    envs.reset(seed=1)
    undisturbed = [envs.step(actions_of(envs, quiet)) for _ in range(6)]
    before, _ = envs.reset(seed=1)
    before = envs.step(actions_of(envs, loud))[0]
    observations, rewards, terminations, truncations, infos = envs.step(actions_of(envs, loud, s3=DIE))
    assert truncations.tolist() == [False, False, True, True]
    assert (rewards[2:].tolist(), terminations.any()) == ([0, 0], False)
    last = infos["final_obs"][2:] if mode == "same_step" else observations[2:]
    np.testing.assert_array_equal(np.stack(list(last)), before[2:])
    restarted = infos["final_info"] if mode == "same_step" else infos
    assert restarted["simulator_restarted"].tolist() == [False, False, True, True]
    assert "are gone" in restarted["simulator_error"][2]
    np.testing.assert_array_equal(observations[:2], undisturbed[1][0][:2])
    for number in range(2, 6):
        step = envs.step(actions_of(envs, loud))
        np.testing.assert_array_equal(step[0][:2], undisturbed[number][0][:2])
        assert not step[3].any()
    workers = [batch.group.library["pids"]() for batch in envs._live.batches]
    os.kill(workers[0][0], signal.SIGKILL)
    envs.reset(seed=1)  # also while nothing is stepped
    np.testing.assert_array_equal(envs.step(actions_of(envs, np.random.default_rng(5)))[0], undisturbed[0][0])


def test_a_step_has_a_deadline(make_envs, monkeypatch):
    monkeypatch.setattr(control, "GRACE_SECONDS", 0.5)
    envs = make_envs(2, step_timeout=0.5, on_failure="restart", params={"chance": 0.0})
    envs.reset(seed=1)
    random = np.random.default_rng(0)
    *_, truncations, infos = envs.step(actions_of(envs, random, s0=HANG))
    assert truncations.all()
    assert "timeout of 0.5 s" in infos["simulator_error"][0]
    assert not envs.step(actions_of(envs, random))[3].any()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"num_env": 3}, errors.ArgumentError, "unknown key 'num_env'; did you mean 'num_envs'"),
        ({"num_groups": 9}, errors.ArgumentValueError, "num_groups must be at most num_envs, which is 4, not 9"),
        ({"num_groups": 0}, errors.ArgumentValueError, "num_groups must be at least 1, not 0"),
        ({"num_groups": 1.5}, errors.ArgumentError, "num_groups must be int, not 1.5"),
        ({"workers_per_simulation": 3}, errors.ArgumentValueError, "at most num_workers, which is 2, not 3"),
        ({"autoreset_mode": "never"}, errors.ArgumentValueError, "autoreset_mode must be one of NEXT_STEP, SAME_STEP"),
        (
            {"render_mode": "human"},
            errors.ArgumentValueError,
            "render_mode must be None or 'rgb_array' or 'rgb_array_tiled'",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_started(make_envs, settings, error, text):
    with pytest.raises(error, match=text):
        make_envs(4, **settings)


def test_calls_that_make_no_sense_are_refused_and_change_nothing(make_envs):
    envs = make_envs(3, autoreset_mode=AutoresetMode.DISABLED, params={"chance": 0.0}, max_episode_steps=2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="before step"):
        envs.step(np.zeros((3, 2)))
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset all"):
        envs.reset(options={"reset_mask": np.array([True, False, False])})
    envs.reset(seed=1)
    action = np.zeros((3, 2))
    for bad, text in (
        (action[:2], r"shape \(2, 2\), not \(3, 2\)"),
        (action + np.array([1.5, 0]), r"of simulation 0 is 1.5 outside -1.0..1.0 in component 0 \(drift\)"),
        (action + np.array([[0], [0], [np.nan]]), r"of simulation 2 is nan outside -1.0..1.0 in component 0 \(drift\)"),
        ("walk", "not an array of real numbers"),
    ):
        with pytest.raises(errors.ArgumentValueError, match=text):
            envs.step(bad)
    for arguments, error, text in (
        ({"seed": [1, 2]}, errors.ArgumentValueError, "2 seeds for 3 simulations"),
        ({"options": {"reset_mask": [True] * 3}}, errors.ArgumentValueError, "array of bool of shape"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, errors.ArgumentValueError, "names no simulation"),
        ({"options": {"reset_maks": None}}, errors.ArgumentError, "did you mean 'reset_mask'"),
    ):
        with pytest.raises(error, match=text):
            envs.reset(**arguments)
    np.testing.assert_array_equal(envs.step(action)[4]["steps"], [1, 1, 1])
    assert envs.step(action)[3].all()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"simulations \[0, 1, 2\] are over"):
        envs.step(action)


def test_wrong_parameters_of_the_simulation_are_named(make_envs):
    with pytest.raises(errors.ArgumentError, match="did you mean 'chance'"):
        make_envs(2, params={"chanse": 1.0}).reset()
    with pytest.raises(errors.RemoteTaskError, match="chance must be between 0 and 1, not 2"):
        make_envs(2, params={"chance": 2}).reset()
