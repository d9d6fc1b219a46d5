"""The gymnasium environment over one simulation: its rules, its snapshots, its failures, its bad input."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, check_reset_seed_determinism, check_step_determinism

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.client import commands as control
from alchemist_ray.envs import Bounds, EnvSettings

RESTART = {"on_failure": "restart"}


def rollout(env, steps, seed=0):
    """Return what the same random actions lead to."""
    random = np.random.default_rng(seed)
    return [env.step(env.action_space.low * random.uniform(-1, 1)) for _ in range(steps)]


def assert_equal(one, other):
    for (state, *rest), (state2, *rest2) in zip(one, other, strict=True):
        np.testing.assert_array_equal(state, state2)
        assert rest == rest2


# --- gymnasium's rules ------------------------------------------------------------------------------------------------


def test_the_checks_of_gymnasium_and_stable_baselines_pass(make_env):
    from stable_baselines3.common.env_checker import check_env as check_for_stable_baselines

    env = make_env(render_mode="rgb_array")
    check_env(env)
    check_reset_seed_determinism(env)
    check_step_determinism(env)
    check_for_stable_baselines(env, warn=False)


def test_an_episode_is_that_of_the_simulation(make_env):
    env = make_env(max_episode_steps=3)
    observation, info = env.reset(seed=7)
    random = np.random.default_rng(info["seed"])
    where = random.standard_normal(2)
    np.testing.assert_allclose(observation, [*where, 0], rtol=1e-6)
    for number in (1, 2, 3):
        observation, reward, terminated, truncated, info = env.step(np.array([0.5, -0.1], np.float32))
        where = where + [0.5, -0.1] + 0.01 * random.standard_normal(2)
        np.testing.assert_allclose(observation, [*where, number], rtol=1e-6)
        assert observation.dtype == np.float32
        assert reward == pytest.approx(-np.sum(where**2))
        assert info == {"distance": pytest.approx(np.hypot(*where))}
        assert (terminated, truncated) == (False, number == 3)


def test_seeds_follow_from_the_last_one_given(make_env):
    env = make_env()
    first = [env.reset(seed=5)[1]["seed"], *(env.reset()[1]["seed"] for _ in range(3))]
    again = [env.reset(seed=5)[1]["seed"], *(env.reset()[1]["seed"] for _ in range(3))]
    assert first == again
    assert len(set(first)) == 4


def test_a_simulation_that_ends_terminates_the_episode(make_env):
    env = make_env("ring")
    env.reset(seed=1)
    assert [step[2] for step in rollout(env, 5)] == [False] * 4 + [True]
    with pytest.raises(gymnasium.error.ResetNeeded, match="is over"):
        env.step(env.action_space.sample())


def test_spaces_and_components_come_from_the_library(make_env):
    env = make_env(dtype="float64")
    assert env.action_space == gymnasium.spaces.Box(np.array([-1.0, -0.1]), np.array([1.0, 0.1]), dtype=np.float64)
    assert env.observation_space.shape == (3,)
    assert [(c.name, c.unit, c.low, c.high) for c in env.action_components] == [
        ("push", "m", -1, 1),
        ("nudge", "m", -0.1, 0.1),
    ]
    assert [c.name for c in env.observation_components] == ["x", "y", "time"]


def test_a_space_that_the_library_does_not_declare_is_any_array_of_that_shape(make_env):
    env = make_env("ring", params={"n": 7})
    assert env.observation_space.shape == (7,)
    assert not env.observation_space.is_bounded()


def test_float32_actions_at_the_bounds_are_admitted_and_float32_spaces_hold_the_library_s(make_env):
    env = make_env()
    env.reset(seed=1)
    env.step(env.action_space.high)  # 0.1 is not a float32
    env.step(env.action_space.low)
    space = Bounds(np.array([-0.7, 0.1]), np.array([0.7, 0.3])).space("float32")
    assert all(float(low) <= bound for low, bound in zip(space.low, (-0.7, 0.1), strict=True))
    assert all(float(high) >= bound for high, bound in zip(space.high, (0.7, 0.3), strict=True))


def test_wrappers_work(make_env):
    env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.wrappers.ClipAction(make_env(max_episode_steps=4)))
    env.reset(seed=1)
    infos = [env.step(np.array([5.0, 5.0], np.float32))[4] for _ in range(4)]
    assert infos[-1]["episode"]["l"] == 4


def test_it_is_made_by_its_registered_name(env_config):
    config = env_config("heat")
    made = gymnasium.make("alchemist_ray.envs:alchemist_ray/Heat-v0", **config)
    assert made.unwrapped.settings == EnvSettings(**config)
    assert made.spec.max_episode_steps
    made.close()


def test_it_pickles_as_its_settings_and_connects_when_it_is_used(make_env):
    env = make_env()
    copy = pickle.loads(pickle.dumps(env))
    assert copy._live_state is None
    try:
        np.testing.assert_array_equal(copy.reset(seed=3)[0], env.reset(seed=3)[0])
    finally:
        copy.close()


def test_render_gives_the_field_in_colours(make_env):
    env = make_env(render_mode="rgb_array")
    env.reset(seed=1)
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.shape == (4 * 85, 6 * 85, 3)
    x = env.field()["values"][0, 0]
    assert (picture[0, 0, 0] < picture[-1, -1, 0]) == (x < env.field()["values"][-1, -1])
    env.render_mode = "rgb_array_labelled"
    assert env.render().shape == (4 * 85 + 40, 6 * 85, 3)
    bare = make_env()
    bare.reset(seed=1)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert bare.render() is None


def test_close_frees_the_workers_and_reset_opens_anew(make_env, env_server):
    env = make_env(num_workers=8)
    before = env.reset(seed=2)[0]
    env.close()
    env.close()
    np.testing.assert_array_equal(env.reset(seed=2)[0], before)


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_restore_continues_bit_for_bit(make_env):
    env = make_env(max_episode_steps=50)
    env.reset(seed=4)
    rollout(env, 5)
    taken = env.snapshot()
    first = rollout(env, 20), env.reset()[1]
    observation, _ = env.restore(taken)
    assert observation[2] == 5
    assert_equal(rollout(env, 20), first[0])
    assert env.reset()[1] == first[1]  # the seeds of later episodes as well


def test_restore_takes_up_the_step_count(make_env):
    env = make_env(max_episode_steps=6)
    env.reset(seed=4)
    rollout(env, 4)
    taken = env.snapshot()
    env.reset()
    env.restore(taken)
    assert [step[3] for step in rollout(env, 2)] == [False, True]


def test_forks_continue_alike_and_then_differ(make_env):
    env = make_env()
    env.reset(seed=4)
    rollout(env, 3)
    forks = env.fork(2)
    try:
        expected = rollout(env, 10)
        for fork in forks:
            assert_equal(rollout(fork, 10), expected)
        env.close()  # the forks keep the workers
        seeds = [fork.reset()[1]["seed"] for fork in forks]
        assert seeds[0] != seeds[1]
    finally:
        for fork in forks:
            fork.close()


def test_an_episode_can_begin_at_a_snapshot(make_env):
    env = make_env(max_episode_steps=10)
    env.reset(seed=4)
    rollout(env, 8)
    taken = env.snapshot()
    expected = rollout(env, 2)
    observation, _ = env.reset(options={"snapshot": taken})
    assert observation[2] == 8
    again = rollout(env, 2)
    np.testing.assert_array_equal(again[-1][0], expected[-1][0])
    assert not again[-1][3]  # the steps are counted from the reset


def test_snapshots_that_nobody_refers_to_are_dropped(make_env):
    env = make_env()
    env.reset(seed=1)
    number = env.snapshot().number
    gc.collect()
    kept = env.snapshot()  # frees what was dropped
    with pytest.raises(errors.ArgumentValueError, match=f"there is no snapshot {number}"):
        env.library.restore(env.simulation, number)
    env.restore(kept)


def test_a_snapshot_of_other_workers_is_refused(make_env):
    env, other = make_env(), make_env()
    env.reset(seed=1)
    other.reset(seed=1)
    taken = env.snapshot()
    with pytest.raises(errors.ArgumentValueError, match="is not in the memory of this environment's workers"):
        other.restore(taken)
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps(taken)


def test_a_library_without_snapshots_says_so(make_env):
    env = make_env("ring")
    env.reset(seed=1)
    for call in (env.snapshot, lambda: env.fork(1), env.field):
        with pytest.raises(errors.ArgumentValueError, match="Ring does not implement it"):
            call()


# --- failures ---------------------------------------------------------------------------------------------------------

FAULTS = {
    "die": errors.GroupDiedError,
    "diverge": errors.SimulationDivergedError,
    "nan": errors.SimulationDivergedError,
    "leave": errors.StateMisfitError,
    "raise": errors.RemoteTaskError,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_a_typed_error_and_the_environment_can_be_reset(make_env, fault, tmp_path):
    env = make_env(params={"fault": fault, "at": 3, "once": str(tmp_path / "done")})
    env.reset(seed=1)
    rollout(env, 2)
    with pytest.raises(FAULTS[fault]):
        rollout(env, 1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        rollout(env, 1)
    env.reset(seed=1)
    assert len(rollout(env, 5)) == 5


@pytest.mark.parametrize("fault", FAULTS)
def test_with_restart_the_episode_is_truncated_and_training_goes_on(make_env, fault, tmp_path):
    env = make_env(params={"fault": fault, "at": 3, "once": str(tmp_path / "done")}, **RESTART)
    env.reset(seed=1)
    before = rollout(env, 2)[-1][0]
    ((observation, reward, terminated, truncated, info),) = rollout(env, 1)
    np.testing.assert_array_equal(observation, before)
    assert (reward, terminated, truncated, info["simulator_restarted"]) == (0.0, False, True, True)
    assert info["simulator_error"]
    env.reset()
    assert not any(step[3] for step in rollout(env, 5))


@pytest.mark.parametrize("on_failure", ["raise", "restart"])
def test_ranks_that_wait_for_one_that_failed_are_replaced(make_env, tmp_path, monkeypatch, on_failure):
    monkeypatch.setattr(control, "GRACE_SECONDS", 0.5)
    params = {"fault": "alone", "at": 2, "once": str(tmp_path / "done")}
    env = make_env(params=params, on_failure=on_failure, max_restarts=0 if on_failure == "raise" else 1)
    env.reset(seed=1)
    if on_failure == "raise":
        with pytest.raises(errors.RemoteTaskError, match="out of luck, alone"):
            rollout(env, 2)
    else:
        assert rollout(env, 2)[-1][3]
    env.reset()
    assert len(rollout(env, 3)) == 3


def test_a_group_that_dies_between_steps_is_replaced_by_the_next_reset(make_env):
    env = make_env()
    env.reset(seed=1)
    os.kill(env.library.pid_of_last(), signal.SIGKILL)
    with pytest.raises(errors.GroupDiedError):
        env.snapshot()
    env.reset(seed=1)
    assert len(rollout(env, 2)) == 2


def test_a_snapshot_that_fails_on_one_rank_leaves_the_others_alike(make_env, tmp_path):
    env = make_env(params={"fault": "snapshot", "once": str(tmp_path / "done")})
    env.reset(seed=1)
    with pytest.raises(errors.RemoteTaskError, match="MemoryError"):
        env.snapshot()
    env.reset(seed=1)
    taken = env.snapshot()
    expected = rollout(env, 3)
    env.restore(taken)
    assert_equal(rollout(env, 3), expected)


def test_a_fork_that_fails_leaves_nothing_behind(make_env):
    env = make_env(params={"fault": "restore"})
    env.reset(seed=1)
    with pytest.raises(errors.RemoteTaskError, match="it cannot be restored"):
        env.fork(2)
    env.step([0, 0])  # the one that was to be forked goes on
    with pytest.raises(errors.RemoteTaskError):
        env.restore(env.snapshot())
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0, 0])
    env.close()
    make_env(num_workers=8).reset()  # all are free


def test_wrappers_that_draw_each_step_live_through_a_failure(make_env, tmp_path):
    params = {"fault": "diverge", "at": 2, "once": str(tmp_path / "done")}
    env = gymnasium.wrappers.RenderCollection(make_env(params=params, render_mode="rgb_array", **RESTART))
    env.reset(seed=1)
    assert [env.step([0, 0])[3] for _ in range(2)] == [False, True]
    pictures = env.render()
    np.testing.assert_array_equal(pictures[-1], pictures[-2])


def test_a_simulation_without_a_state_is_told_so(make_env):
    env = make_env(params={"fault": "stateless"})
    with pytest.raises(errors.RemoteTaskError, match="get_state returned None on rank 0"):
        env.reset()


def test_a_step_has_a_deadline(make_env, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "GRACE_SECONDS", 1.0)
    env = make_env(params={"fault": "hang", "at": 2, "once": str(tmp_path / "done")}, step_timeout=0.5, **RESTART)
    env.reset(seed=1)
    started = time.monotonic()
    steps = rollout(env, 2)
    assert time.monotonic() - started < 10
    assert steps[-1][3]
    assert "did not end within its timeout of 0.5 s" in steps[-1][4]["simulator_error"]
    env.reset()
    rollout(env, 3)


def test_what_fails_again_and_again_is_raised_in_the_end(make_env):
    env = make_env(params={"fault": "diverge", "at": 1}, max_restarts=2, **RESTART)
    for _ in range(2):
        env.reset()
        assert rollout(env, 1)[0][3]
    env.reset()
    with pytest.raises(errors.SimulationDivergedError):
        rollout(env, 1)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ([0.0, 0.2], r"0\.2 outside -0\.1\.\.0\.1 in component 1 \(nudge\)"),
        ([np.nan, 0.0], r"nan outside .* in component 0 \(push\)"),
        ([0.0], r"shape \(1,\), not \(2,\)"),
        ("push", "not an array of real numbers"),
    ],
)
def test_an_action_outside_its_space_is_refused_and_the_episode_goes_on(make_env, action, text):
    env = make_env()
    env.reset(seed=1)
    with pytest.raises(errors.ArgumentValueError, match=text):
        env.step(action)
    assert rollout(env, 1)[0][0][2] == 1


def test_a_step_before_the_first_reset_is_refused(make_env):
    env = make_env()
    for call in (lambda: env.step([0, 0]), env.snapshot, env.field):
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
            call()


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"num_worker": 2}, errors.ArgumentError, "unknown key 'num_worker'; did you mean 'num_workers'"),
        ({"num_workers": "2"}, errors.ArgumentError, r"num_workers must be int, not '2' \(str\)"),
        ({"num_workers": 0}, errors.ArgumentValueError, "num_workers must be at least 1, not 0"),
        ({"max_episode_steps": True}, errors.ArgumentError, "max_episode_steps must be int or None, not True"),
        ({"on_failure": "retry"}, errors.ArgumentValueError, "on_failure must be 'raise' or 'restart', not 'retry'"),
        ({"step_timeout": float("nan")}, errors.ArgumentValueError, r"step_timeout must be at least 0\.001, not nan"),
        ({"params": [1]}, errors.ArgumentError, "params must be Mapping"),
        ({"labels": {"zone": 1}}, errors.ArgumentError, "labels must be a mapping of str to str"),
        ({"wait": -1}, errors.ArgumentValueError, "wait must be at least 0, not -1"),
        (
            {"cluster": "ray:"},
            errors.ArgumentValueError,
            "cluster must be None or 'ray' or 'ray:NAME', not 'ray:'",
        ),
        ({"cluster": "ray:a", "port": 9}, errors.ArgumentValueError, "give a server .* or a cluster that starts one"),
        (
            {"render_mode": "human"},
            errors.ArgumentValueError,
            "render_mode must be None or 'rgb_array' or 'rgb_array_labelled', not 'human'",
        ),
    ],
)
def test_a_wrong_env_config_is_refused_before_anything_is_started(settings, error, text):
    with pytest.raises(error, match=text):
        alchemist.HPCSimulator({"lib_name": "heat", **settings})


def test_a_missing_library_name_is_asked_for():
    with pytest.raises(errors.ArgumentError, match="lib_name is missing"):
        alchemist.HPCSimulator({"num_workers": 2})


def test_the_token_is_not_shown(env_config):
    env = alchemist.HPCSimulator(env_config())
    assert env.settings.token not in repr(env) + repr(env.settings)


def test_wrong_parameters_are_named(make_env):
    env = make_env(params={"falt": "die"})
    with pytest.raises(errors.ArgumentError, match="unknown argument 'falt': did you mean 'fault'"):
        env.reset()


@pytest.mark.parametrize(
    ("library", "text"),
    [
        ("linalg", "it is not a simulation: it lacks reset, step, get_state, get_score"),
        ("half_simulator", "the simulator Half lacks get_score, step"),
    ],
)
def test_a_library_without_the_four_calls_is_refused_by_their_names(make_env, library, text):
    env = make_env(library)
    with pytest.raises(errors.LibraryLoadError, match=text):
        env.reset()
    assert env._live.group is None


def test_more_environments_than_workers_say_who_holds_them_at_once(make_env):
    holder = make_env(num_workers=7)
    holder.reset()
    started = time.monotonic()
    with pytest.raises(errors.NotEnoughWorkersError, match=r"session \d+"):
        make_env(num_workers=2).reset()
    assert time.monotonic() - started < 5


def test_an_unknown_option_of_reset_is_refused(make_env):
    env = make_env()
    with pytest.raises(errors.ArgumentError, match="unknown option 'snapshots'; did you mean 'snapshot'"):
        env.reset(options={"snapshots": None})
