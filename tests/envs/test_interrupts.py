"""Whatever leaves a step (Ctrl-C, any exception), the environment and its simulations stay consistent."""

from __future__ import annotations

import signal
from concurrent.futures import Future

import gymnasium
import numpy as np
import pytest

from alchemist_ray.client.simulations import SimulationSteps
from alchemist_ray.client.workers import SessionWorkers
from alchemist_ray.envs import simulation_batches


class Surprise(Exception):
    """An exception that is not ours."""


def raise_interrupt():
    signal.raise_signal(signal.SIGINT)  # as Ctrl-C in this thread


def raise_surprise():
    raise Surprise


LEAVE = {KeyboardInterrupt: raise_interrupt, Surprise: raise_surprise}


def leave_once(monkeypatch, owner, name, leave, *, before=False):
    """Have the next call of a method be left by an exception, after it has done its work or before."""
    real, calls = getattr(owner, name), []

    def left(*arguments, **keywords):
        if not calls:
            calls.append(name)
            if not before:
                real(*arguments, **keywords)
            leave()
        return real(*arguments, **keywords)

    monkeypatch.setattr(owner, name, left)


@pytest.mark.parametrize("error", LEAVE)
@pytest.mark.parametrize("on_failure", ["raise", "restart"])
def test_a_step_that_was_left_leaves_no_simulation_ahead_of_its_environment(make_env, monkeypatch, error, on_failure):
    env = make_env(max_episode_steps=5, on_failure=on_failure)
    start, _ = env.reset(seed=3)
    taken = env.snapshot()
    env.step([0.1, 0.0])
    leave_once(monkeypatch, SimulationSteps, "step", LEAVE[error])  # the simulation has taken the step
    with pytest.raises(error):
        env.step([0.1, 0.0])
    for call in (lambda: env.step([0.1, 0.0]), env.snapshot, env.field):
        with pytest.raises(gymnasium.error.ResetNeeded):
            call()
    env.restore(taken)
    steps = [env.step([0.0, 0.0]) for _ in range(5)]
    assert [step[0][2] for step in steps] == [1, 2, 3, 4, 5]
    assert [step[3] for step in steps] == [False] * 4 + [True]
    np.testing.assert_array_equal(env.reset(seed=3)[0], start)


def test_a_reset_that_was_left_is_to_be_made_again(make_env, monkeypatch):
    env = make_env()
    env.reset(seed=1)
    leave_once(monkeypatch, SessionWorkers, "watching", raise_interrupt, before=True)
    with pytest.raises(KeyboardInterrupt):
        env.reset(seed=2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0, 0])
    env.reset(seed=2)
    assert env.step([0, 0])[0][2] == 1


def test_an_interrupt_in_the_middle_of_a_message_costs_the_workers_and_no_more(make_env, make_envs):
    env, envs = make_env(num_workers=1), make_envs(2, num_workers=1, params={"chance": 0.0})
    for each, action in ((env, [0, 0]), (envs, np.zeros((2, 2)))):
        each.reset(seed=1)
        group = each._live.group if each is env else next(iter(each._live.batches)).group
        stream = group.session._workers.group()._commands
        real = stream._poller.poll

        def poll(milliseconds, stream=stream):
            stream._torn = True
            raise_interrupt()

        stream._poller.poll = poll
        with pytest.raises(KeyboardInterrupt):
            each.step(action)
        stream._poller.poll = real
        with pytest.raises(gymnasium.error.ResetNeeded):
            each.step(action)
        each.reset(seed=1)
        each.step(action)


@pytest.mark.parametrize("error", LEAVE)
@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_many_simulations_are_reset_after_a_step_that_was_left(make_envs, monkeypatch, error, mode):
    envs = make_envs(3, num_workers=1, autoreset_mode=mode, params={"chance": 0.0}, max_episode_steps=3)
    start, _ = envs.reset(seed=3)
    envs.step(np.zeros((3, 2)))
    leave_once(monkeypatch, SimulationSteps, "advance_batch", LEAVE[error])
    with pytest.raises(error):
        envs.step(np.zeros((3, 2)))
    for call in (lambda: envs.step(np.zeros((3, 2))), envs.snapshot, envs.fields):
        with pytest.raises(gymnasium.error.ResetNeeded):
            call()
    np.testing.assert_array_equal(envs.reset(seed=3)[0], start)
    steps = [envs.step(np.zeros((3, 2))) for _ in range(3)]
    assert [step[3].all() for step in steps] == [False, False, True]


@pytest.mark.parametrize("patience", [60.0, 0.0])
def test_an_interrupt_leaves_no_thread_of_a_group_behind(make_envs, monkeypatch, patience):
    monkeypatch.setattr(simulation_batches, "INTERRUPT_SECONDS", patience)
    envs = make_envs(2, num_workers=1, num_groups=2, params={"chance": 0.0})
    start, _ = envs.reset(seed=3)
    futures = []
    real = Future.exception

    def exception(self, timeout=None):
        futures.append(self)
        raise_interrupt()
        return real(self, timeout)

    monkeypatch.setattr(Future, "exception", exception)
    with pytest.raises(KeyboardInterrupt):
        envs.step(np.zeros((2, 2)))
    monkeypatch.undo()
    assert all(future.done() for future in futures)
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.step(np.zeros((2, 2)))
    np.testing.assert_array_equal(envs.reset(seed=3)[0], start)
    assert envs.step(np.zeros((2, 2)))[4]["steps"].tolist() == [1, 1]
