"""Environments in forked children: each child has new ones, and the parent's are untouched."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import traceback

import gymnasium
import numpy as np
import pytest

from alchemist_ray import errors

SECONDS = 300
"""How long a child may take on a busy machine."""


def in_child(function):
    """Return what a function returns in a forked child."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def run():
        try:
            there.send((True, function()))
        except BaseException:  # noqa: BLE001 - the parent shows it
            there.send((False, traceback.format_exc()))

    child = context.Process(target=run)
    child.start()
    there.close()
    try:
        assert here.poll(SECONDS), "the child hangs"
        succeeded, result = here.recv()
    finally:
        child.join(10)
        child.kill()
        child.join()
    assert succeeded, result
    return result


def session_of(env):
    return env._live.group.session.session_id


def test_a_child_has_an_environment_of_its_own_and_the_parent_goes_on(make_env):
    env = make_env(num_workers=1)
    start, _ = env.reset(seed=3)
    env.step([0.5, 0.0])
    taken, ours = env.snapshot(), session_of(env)

    def use():
        with pytest.raises(gymnasium.error.ResetNeeded, match=f"process {os.getppid()} was forked"):
            env.step([0, 0])
        for restore in (lambda: env.restore(taken), lambda: env.reset(options={"snapshot": taken})):
            with pytest.raises(errors.ArgumentValueError, match=f"belongs to process {os.getppid()}"):
                restore()
        observation, _ = env.reset(seed=3)
        times = [env.step([0.1, 0.0])[0][2] for _ in range(3)]
        found = observation.tolist(), times, session_of(env)
        env.close()
        return found

    observation, times, theirs = in_child(use)
    assert observation == start.tolist()
    assert times == [1, 2, 3]
    assert theirs != ours
    assert session_of(env) == ours
    assert env.step([0.0, 0.0])[0][2] == 2
    env.restore(taken)
    assert env.step([0.0, 0.0])[0][2] == 2


def test_closing_or_collecting_in_a_child_ends_nothing_of_the_parent(make_env, make_envs):
    kept = {"single": make_env(num_workers=1), "many": make_envs(2, num_workers=1)}
    kept["single"].reset(seed=1)
    kept["many"].reset(seed=1)
    kept["taken"] = [kept["single"].snapshot(), *kept["many"].snapshot()]

    def drop():
        kept["single"].close()
        kept["many"].close()
        kept.clear()
        gc.collect()

    in_child(drop)
    assert kept["single"].step([0, 0])[0][2] == 1
    assert kept["many"].step(np.zeros((2, 2)))[4]["steps"].tolist() == [1, 1]
    kept["single"].restore(kept["taken"][0])
    kept["many"].restore(kept["taken"][1:])


def test_many_simulations_are_new_ones_in_a_child(make_envs):
    envs = make_envs(3, num_workers=1, num_groups=2, params={"chance": 0.0})
    start, _ = envs.reset(seed=5)
    envs.step(np.zeros((3, 2)))
    taken = envs.snapshot()

    def use():
        with pytest.raises(gymnasium.error.ResetNeeded, match="was forked"):
            envs.step(np.zeros((3, 2)))
        observations, _ = envs.reset(seed=5)
        with pytest.raises(errors.ArgumentValueError, match="belongs to process"):
            envs.restore(taken)
        steps = [envs.step(np.zeros((3, 2)))[4]["steps"].tolist() for _ in range(2)]
        envs.close()
        return observations.tolist(), steps

    observations, steps = in_child(use)
    assert observations == start.tolist()
    assert steps == [[1, 1, 1], [2, 2, 2]]
    assert envs.step(np.zeros((3, 2)))[4]["steps"].tolist() == [2, 2, 2]


def test_stable_baselines_forks_one_environment_into_three(make_env):
    from stable_baselines3.common.vec_env import SubprocVecEnv

    env = make_env(num_workers=1)
    env.reset(seed=0)
    env.step([0.0, 0.0])
    vector = SubprocVecEnv([lambda: env] * 3, start_method="fork")
    try:
        vector.seed(7)
        start = vector.reset()
        for number in (1, 2):
            observations, *_ = vector.step(np.zeros((3, 2), np.float32))
            assert observations[:, 2].tolist() == [number] * 3
    finally:
        vector.close()
    assert env.step([0.0, 0.0])[0][2] == 2
    np.testing.assert_array_equal(start, np.stack([env.reset(seed=7 + i)[0] for i in range(3)]))


OWN_SERVER = """
import os
from alchemist_ray import HPCSimulator
from alchemist_ray.client.local_server import default_server

env = HPCSimulator(lib_name="heat", params={"n": 32})
env.reset(seed=1)
port = default_server().port
child = os.fork()
if child == 0:
    env.reset(seed=1)
    env.step(env.action_space.high)
    os._exit(0 if default_server().port != port else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
env.step(env.action_space.high)
assert default_server().port == port
"""


def test_a_child_starts_its_own_server_where_the_settings_name_none():
    environment = {**os.environ, "ALCHEMIST_NUM_WORKERS": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", OWN_SERVER],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr
