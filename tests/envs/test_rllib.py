"""Training with RLlib on MPI simulations: several algorithms, through the death of a rank, without enough workers."""

from __future__ import annotations

import time

import gymnasium
import pytest
import ray
from ray import tune
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig

from alchemist_ray import AlchemistSession, HPCSimulator, HPCVectorEnv

pytestmark = pytest.mark.timeout(300)

STEPS = 1200


@pytest.fixture(scope="module", autouse=True)
def _ray():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_training_goes_on_to_its_end_though_a_rank_is_killed(env_config, tmp_path):
    killed = tmp_path / "killed"
    params = {"fault": "die", "at": 510, "lifetime": True, "once": str(killed)}  # SIGKILL, in the third iteration
    analysis = tune.run(
        "PPO",
        config={
            "env": HPCSimulator,
            "env_config": env_config("fragile", max_episode_steps=20, on_failure="restart", params=params),
            "num_env_runners": 1,
            "train_batch_size_per_learner": 200,
            "minibatch_size": 200,
            "num_epochs": 1,
        },
        stop={"num_env_steps_sampled_lifetime": STEPS, "training_iteration": 50},
        storage_path=str(tmp_path),
        verbose=0,
    )
    (trial,) = analysis.trials
    assert killed.exists()
    assert trial.status == "TERMINATED"
    assert trial.last_result["num_env_steps_sampled_lifetime"] >= STEPS
    (history,) = analysis.trial_dataframes.values()
    assert history["env_runners/episode_len_min"].min() < 20  # one ended before its time


def test_all_simulations_of_a_runner_are_one_group(env_server, env_config):
    env = env_config("fragile", max_episode_steps=5)
    config = (
        PPOConfig()
        .environment(HPCVectorEnv, env_config=env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, gym_env_vectorize_mode="vector_entry_point")
        .training(train_batch_size_per_learner=320, minibatch_size=320, num_epochs=1)
    )
    algorithm = config.build_algo()
    try:
        for _ in range(2):
            result = algorithm.train()
        found = result["env_runners"]
        assert result["num_env_steps_sampled_lifetime"] >= 640
        assert found["episode_len_min"] == 5
        assert found["num_episodes_lifetime"] >= 2 * 320 / 5 - 16
        with AlchemistSession() as monitor:
            monitor.connect(env_server.hostname, env_server.port, env_server.token)
            assert sum(row["session"] is not None for row in monitor.list_all_workers()) == 2
    finally:
        algorithm.stop()


class FiveActions(gymnasium.ActionWrapper):
    """The single action of an environment, in five steps from one bound to the other: for algorithms like DQN."""

    def __init__(self, env_config):
        super().__init__(HPCSimulator(env_config))
        self.action_space = gymnasium.spaces.Discrete(5)

    def action(self, action):
        low, high = self.env.action_space.low, self.env.action_space.high
        return (low + (high - low) * action / 4).astype(low.dtype)


def test_dqn_trains_on_a_variant_with_discrete_actions(env_config):
    config = (
        DQNConfig()
        .environment(FiveActions, env_config=env_config("fragile", num_workers=1, max_episode_steps=10))
        .env_runners(num_env_runners=0)
        .training(train_batch_size=16, num_steps_sampled_before_learning_starts=20)
        .reporting(min_sample_timesteps_per_iteration=60)
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    assert result["env_runners"]["episode_len_max"] == 10
    assert result["learners"]["default_policy"]["num_module_steps_trained_lifetime"] > 0


@pytest.mark.systems
def test_appo_trains_while_its_runners_sample(env_config):
    config = (
        APPOConfig()
        .environment(HPCSimulator, env_config=env_config("fragile", num_workers=1, max_episode_steps=10))
        .env_runners(num_env_runners=1, rollout_fragment_length=20)
        .training(train_batch_size_per_learner=40)
        .reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=80)
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
        while not result.get("learners", {}).get("default_policy") and result["training_iteration"] < 50:
            result = algorithm.train()
    finally:
        algorithm.stop()
    assert result["learners"]["default_policy"]
    assert result["num_env_steps_sampled_lifetime"] >= 80


@pytest.mark.systems
def test_population_based_training_copies_and_perturbs(env_config, tmp_path):
    config = (
        PPOConfig()
        .environment(HPCSimulator, env_config=env_config("fragile", num_workers=1, max_episode_steps=10))
        .env_runners(num_env_runners=0)
        .training(lr=tune.grid_search([1e-3, 1e-4]), train_batch_size_per_learner=40, minibatch_size=40, num_epochs=1)
    )
    scheduler = tune.schedulers.PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=1, quantile_fraction=0.5, synch=True,
        hyperparam_mutations={"lr": [1e-5, 1e-4, 1e-3]},
    )  # fmt: skip
    analysis = tune.run(
        "PPO", config=config.to_dict(), scheduler=scheduler, metric="env_runners/episode_return_mean", mode="max",
        stop={"training_iteration": 2}, storage_path=str(tmp_path), verbose=0,
    )  # fmt: skip
    assert [trial.status for trial in analysis.trials] == ["TERMINATED"] * 2
    assert scheduler._num_perturbations >= 1


def test_too_few_workers_are_told_at_once_with_who_holds_the_others(env_config, make_env, caplog):
    holder = make_env(num_workers=7)
    holder.reset()
    config = (
        PPOConfig()
        .environment(HPCSimulator, env_config=env_config("nothing", num_workers=2))
        .env_runners(num_env_runners=1)
    )
    started = time.monotonic()
    with pytest.raises(Exception):  # noqa: B017, PT011 - RLlib says why in its log, and raises what comes of it
        config.build_algo()
    assert "NotEnoughWorkersError: 2 workers were requested, but 1 of the server's 8 are free" in caplog.text
    assert f"session {holder.library._caller.run.__self__.session_id}" in caplog.text
    assert time.monotonic() - started < 60
