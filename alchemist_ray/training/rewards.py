"""Rewards as a learner sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns


class ScaleRewards(ConnectorV2):  # type: ignore[misc]  # RLlib has no types
    """Put the rewards of episodes into the learner's batch, times a factor. The episodes keep their own.

    Values of some hundreds are learned slowly: the network's last layer has to grow that large.

    Parameters
    ----------
    *spaces
        As RLlib gives them.
    factor : float
        Of the rewards.
    """

    def __init__(self, *spaces: Any, factor: float) -> None:
        super().__init__(*spaces)
        self._factor = factor

    def __call__(self, *, batch: dict[str, Any], episodes: Sequence[Any], **others: Any) -> dict[str, Any]:
        """Add the rewards to the batch; RLlib's own connector then leaves them as they are."""
        for episode in self.single_agent_episode_iterator(list(episodes), agents_that_stepped_only=False):
            rewards = self._factor * np.asarray(episode.get_rewards(slice(0, len(episode))))
            self.add_n_batch_items(batch, Columns.REWARDS, rewards, len(episode), episode)
        return batch
