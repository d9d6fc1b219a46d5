"""Scaling of the rewards that the learner sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns


class ScaleRewards(ConnectorV2):  # type: ignore[misc]  # RLlib has no types
    """Multiply the rewards in the learner's batch by a factor. The rewards in the episodes do not change.

    The network learns values of some hundreds slowly, since its last layer has to grow that large.

    Parameters
    ----------
    *spaces
        As RLlib gives them.
    factor : float
        Factor of the rewards.
    """

    def __init__(self, *spaces: Any, factor: float) -> None:
        super().__init__(*spaces)
        self._factor = factor

    def __call__(self, *, batch: dict[str, Any], episodes: Sequence[Any], **others: Any) -> dict[str, Any]:
        """Add the scaled rewards to the batch; RLlib's own connector does not replace them."""
        for episode in self.single_agent_episode_iterator(list(episodes), agents_that_stepped_only=False):
            rewards = self._factor * np.asarray(episode.get_rewards(slice(0, len(episode))))
            self.add_n_batch_items(batch, Columns.REWARDS, rewards, len(episode), episode)
        return batch
