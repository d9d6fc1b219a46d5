"""Rewards as a learner sees them."""

from __future__ import annotations

import numpy as np
from ray.rllib.connectors.learner import AddColumnsFromEpisodesToTrainBatch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from alchemist_ray.training.rewards import ScaleRewards


def test_the_learner_sees_scaled_rewards_and_the_episode_keeps_its_own():
    lengths = (3, 1)
    episodes = [
        SingleAgentEpisode(
            observations=list(np.zeros((n + 1, 2))),
            actions=[0.5] * n,
            rewards=[-100.0 * i for i in range(n)],
            len_lookback_buffer=0,
        )
        for n in lengths
    ]
    batch: dict = {}
    for piece in (ScaleRewards(None, None, factor=0.1), AddColumnsFromEpisodesToTrainBatch()):
        batch = piece(rl_module=None, batch=batch, episodes=episodes, explore=False, shared_data={})
    seen = {key[0]: np.concatenate([np.ravel(each) for each in items]) for key, items in batch[Columns.REWARDS].items()}
    for episode, n in zip(episodes, lengths, strict=True):
        np.testing.assert_allclose(seen[episode.id_], [-10.0 * i for i in range(n)])
        np.testing.assert_allclose(episode.get_rewards(), [-100.0 * i for i in range(n)])
