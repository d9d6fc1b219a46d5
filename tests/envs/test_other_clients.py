"""Other people's training code on our environments: gymnasium's wrappers, CleanRL's loop, TorchRL, Tianshou."""

from __future__ import annotations

import functools
from multiprocessing import resource_tracker

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from alchemist_ray import errors
from alchemist_ray.envs import HPCSimulator, HPCVectorEnv

pytestmark = pytest.mark.timeout(300)

HEAT = "alchemist_ray.envs:alchemist_ray/Heat-v0"
TIANSHOU = "Tianshou's metadata exclude pandas 3, so that it is installed without its dependencies: see the Makefile"


@pytest.fixture(scope="module", autouse=True)
def _no_tracker_is_left():
    """End the process by which multiprocessing tracks what TorchRL's processes share; it would live as long as we."""
    yield
    resource_tracker._resource_tracker._stop()


@pytest.fixture
def heat(env_config):
    """The keys of a small plate on one rank, for ``gymnasium.make``."""
    config = env_config("heat", num_workers=1, params={"n": 32})
    del config["lib_name"]
    return config


# --- gymnasium --------------------------------------------------------------------------------------------------------


def test_gymnasium_make_keeps_the_text_of_our_errors():
    with pytest.raises(errors.ArgumentError, match=r"'num_worker'; did you mean 'num_workers'.* environment creator"):
        gymnasium.make(HEAT, num_worker=2)
    with pytest.raises(errors.ArgumentError, match="num_workers must be int, not '2'"):
        gymnasium.make(HEAT, num_workers="2")
    with pytest.raises(errors.ArgumentValueError, match="num_workers must be at least 1"):
        gymnasium.make_vec(HEAT, num_envs=2, num_workers=0)


def test_the_errors_of_gymnasiums_processes_arrive_as_they_are(env_config):
    config = env_config("fragile", num_workers=1, params={"fault": "diverge", "at": 1})
    envs = AsyncVectorEnv([functools.partial(HPCSimulator, config)] * 2)
    try:
        envs.reset(seed=1)
        with pytest.raises(errors.SimulationDivergedError, match="it was told to"):
            envs.step(np.zeros((2, 2), np.float32))
    finally:
        envs.close(terminate=True)


# --- CleanRL's loop (ppo_continuous_action.py) ------------------------------------------------------------------------


def single_envs(heat):
    def make():
        env = gymnasium.make(HEAT, render_mode="rgb_array", max_episode_steps=6, **heat)
        env = gymnasium.wrappers.FlattenObservation(env)
        env = gymnasium.wrappers.RecordEpisodeStatistics(env)
        env = gymnasium.wrappers.ClipAction(env)
        env = gymnasium.wrappers.NormalizeObservation(env)
        env = gymnasium.wrappers.TransformObservation(env, lambda x: np.clip(x, -10, 10), env.observation_space)
        env = gymnasium.wrappers.NormalizeReward(env, gamma=0.99)
        return gymnasium.wrappers.TransformReward(env, lambda reward: np.clip(reward, -10, 10))

    return SyncVectorEnv([make] * 3)


def many_at_once(heat):
    envs = gymnasium.make_vec(HEAT, num_envs=3, max_episode_steps=6, **heat)
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    envs = gymnasium.wrappers.vector.ClipAction(envs)
    envs = gymnasium.wrappers.vector.NormalizeObservation(envs)
    return gymnasium.wrappers.vector.NormalizeReward(envs, gamma=0.99)


@pytest.mark.systems
@pytest.mark.parametrize("make", [single_envs, many_at_once])
def test_a_loop_like_cleanrls_trains(heat, make):
    torch.manual_seed(1)
    envs = make(heat)
    size, width = int(np.prod(envs.single_observation_space.shape)), int(np.prod(envs.single_action_space.shape))
    critic = torch.nn.Sequential(torch.nn.Linear(size, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    actor = torch.nn.Sequential(torch.nn.Linear(size, 16), torch.nn.Tanh(), torch.nn.Linear(16, width))
    optimizer = torch.optim.Adam([*critic.parameters(), *actor.parameters()], lr=1e-2)
    before = [parameter.clone() for parameter in actor.parameters()]
    lengths = []
    try:
        observation = torch.tensor(envs.reset(seed=1)[0], dtype=torch.float32)
        for _ in range(2):
            gains = []
            for _ in range(10):
                distribution = torch.distributions.Normal(actor(observation), 1.0)
                action = distribution.sample()
                following, reward, terminations, truncations, infos = envs.step(action.numpy())
                if "episode" in infos:
                    lengths += infos["episode"]["l"][infos["_episode"]].tolist()
                done = torch.tensor(np.logical_or(terminations, truncations), dtype=torch.float32)
                following = torch.tensor(following, dtype=torch.float32)
                target = (
                    torch.tensor(reward, dtype=torch.float32) + 0.99 * (1 - done) * critic(following)[:, 0].detach()
                )
                advantage = target - critic(observation)[:, 0]
                likelihood = distribution.log_prob(action).sum(1)
                gains.append((advantage**2).mean() - (likelihood * advantage.detach()).mean())
                observation = following
            optimizer.zero_grad()
            torch.stack(gains).mean().backward()
            optimizer.step()
    finally:
        envs.close()
    assert lengths == [6] * len(lengths)
    assert len(lengths) >= 6
    assert not any(torch.equal(one, other) for one, other in zip(before, actor.parameters(), strict=True))


# --- TorchRL ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def torchrl():
    return pytest.importorskip("torchrl.envs")


def test_torchrl_makes_ours_by_name_and_finds_its_specs_kept(torchrl, heat):
    env = torchrl.GymEnv(HEAT, **heat)
    try:
        env.set_seed(3)
        torchrl.check_env_specs(env)
        rollout = env.rollout(5)
        assert rollout.batch_size == torch.Size([5])
        assert rollout["next", "reward"].isfinite().all()
    finally:
        env.close()


def test_torchrl_sees_pixels(torchrl, heat):
    env = torchrl.GymEnv(HEAT, from_pixels=True, pixels_only=False, **heat)
    try:
        rollout = env.rollout(3)
        assert rollout["pixels"].shape == (3, 512, 512, 3)
        assert rollout["pixels"].dtype == torch.uint8
    finally:
        env.close()


def test_torchrl_wraps_many_simulations_at_once(torchrl, env_config):
    config = env_config("fragile", num_workers=1, max_episode_steps=4)
    env = torchrl.GymWrapper(HPCVectorEnv(config, num_envs=3, autoreset_mode=AutoresetMode.DISABLED))
    try:
        env.set_seed(1)
        rollout = env.rollout(9, break_when_any_done=False)
        assert rollout.batch_size == torch.Size([3, 9])
        assert rollout["next", "truncated"][..., 0].sum(1).tolist() == [2, 2, 2]
        assert not torch.equal(rollout["observation"][:, 4], rollout["next", "observation"][:, 3])  # it was reset
    finally:
        env.close()
    with pytest.raises(RuntimeError, match="auto-reset mode"):
        torchrl.GymWrapper(HPCVectorEnv(config, num_envs=3))


def test_torchrl_runs_ours_in_processes_of_its_own(torchrl, heat):
    env = torchrl.ParallelEnv(2, functools.partial(torchrl.GymEnv, HEAT, **heat))
    try:
        rollout = env.rollout(4)
        assert rollout.batch_size == torch.Size([2, 4])
    finally:
        env.close()


# --- Tianshou ---------------------------------------------------------------------------------------------------------


@pytest.mark.systems
def test_tianshou_trains_on_ours(env_config):
    pytest.importorskip("tianshou", reason=TIANSHOU)
    from tianshou.algorithm.modelfree.ppo import PPO
    from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
    from tianshou.utils.torch_utils import policy_within_training_step, torch_train_mode

    config = env_config("fragile", num_workers=1, max_episode_steps=5)
    envs = DummyVectorEnv([functools.partial(HPCSimulator, config)] * 2)
    try:
        action, observation = envs.action_space[0], envs.observation_space[0]
        actor = ContinuousActorProbabilistic(
            preprocess_net=Net(state_shape=observation.shape, hidden_sizes=[16]),
            action_shape=action.shape,
            unbounded=True,
        )
        critic = ContinuousCritic(preprocess_net=Net(state_shape=observation.shape, hidden_sizes=[16]))
        policy = ProbabilisticActorPolicy(
            actor=actor, dist_fn=lambda pair: torch.distributions.Independent(torch.distributions.Normal(*pair), 1),
            action_space=action, action_scaling=True,
        )  # fmt: skip
        algorithm = PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=1e-3))
        before = [parameter.detach().clone() for parameter in actor.mu.parameters()]
        collector = Collector(algorithm, envs, VectorReplayBuffer(100, 2))
        collector.reset()
        collected = collector.collect(n_episode=4)
        assert collected.lens.tolist() == [5, 5, 5, 5]
        with policy_within_training_step(policy), torch_train_mode(algorithm):
            algorithm.update(buffer=collector.buffer, batch_size=10, repeat=1)
        after = list(actor.mu.parameters())
        assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    finally:
        envs.close()
