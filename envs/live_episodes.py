"""The episodes of an :class:`HPCVectorEnv`: which simulations a step resets, and what the step returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from alchemist_ray.envs.batch_group import Advance
from alchemist_ray.envs.environment import LiveState
from alchemist_ray.envs.episode_seeds import EpisodeSeeds
from alchemist_ray.envs.simulation_batches import SimulationBatches
from alchemist_ray.envs.step_infos import AddInfo, StepInfos
from alchemist_ray.envs.vector_settings import VectorSettings
from alchemist_ray.protocol.batches import OUTCOME, SCORE, BatchOrder, BatchOutcome

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Step = tuple[Array, Array, Flags, Flags, dict[str, Any]]

STEP, RESET = int(BatchOrder.STEP), int(BatchOrder.RESET)
STEP_THEN_RESET = int(BatchOrder.STEP | BatchOrder.RESET)
STEP_THEN_RESET_ENDED = int(BatchOrder.STEP | BatchOrder.RESET_ENDED)
FINISHED, INFORMED = int(BatchOutcome.FINISHED), int(BatchOutcome.INFORMED)


@dataclass(kw_only=True)
class LiveEpisodes(LiveState):
    """The simulations of a vector environment, for one process, and where their episodes stand.

    Parameters
    ----------
    settings : VectorSettings
        Of the environment.
    seeds : EpisodeSeeds
        The seeds of later episodes.

    Attributes
    ----------
    batches : SimulationBatches
        The simulations, by worker group.
    running : bool
        Whether all have been reset, and no exception has left a call of them since.
    ended : ndarray of bool
        Whether the episode of each is over.
    steps : ndarray of int64
        Steps of each since its reset.
    observations : ndarray
        The last observation of each.
    """

    settings: VectorSettings
    seeds: EpisodeSeeds
    batches: SimulationBatches = field(init=False)
    running: bool = field(init=False, default=False)
    ended: Flags = field(init=False)
    steps: npt.NDArray[np.int64] = field(init=False)
    observations: Array = field(init=False)

    def __post_init__(self) -> None:
        n = self.settings.num_envs
        self.batches = SimulationBatches(self.settings)
        self.ended, self.steps = np.ones(n, bool), np.zeros(n, np.int64)
        self.observations = np.empty(0)
        self._mode = self.settings.mode
        self._limit = self.settings.max_episode_steps or np.iinfo(np.int64).max
        self._every = np.ones(n, bool)

    def know_shape(self, shape: tuple[int, ...]) -> None:
        """Learn the shape of an observation."""
        if self.observations.size == 0:
            self.observations = np.zeros((self.settings.num_envs, *shape), self.settings.dtype)

    # --- before a step ------------------------------------------------------------------------------------------------

    def to_begin(self) -> Flags | None:
        """Return which simulations the next step resets instead of stepping them; None: none.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If an episode is over and the mode is DISABLED.
        """
        if self._mode is AutoresetMode.SAME_STEP or not self.ended.any():
            return None
        if self._mode is AutoresetMode.DISABLED:
            over = np.flatnonzero(self.ended).tolist()
            raise gymnasium.error.ResetNeeded(
                f"the episodes of simulations {over} are over: reset them, with options={{'reset_mask': mask}}"
            )
        return self.ended.copy()

    def orders(self, begin: Flags | None) -> tuple[bytes, list[int | None]]:
        """Return the order to each simulation, and the seeds of those that the step resets."""
        n = self.settings.num_envs
        if self._mode is AutoresetMode.SAME_STEP:
            last = (self.steps + 1 >= self._limit).tolist()
            orders = bytes(STEP_THEN_RESET if is_last else STEP_THEN_RESET_ENDED for is_last in last)
            return orders, [self.seeds.peek(i) for i in range(n)]
        if begin is None:
            return bytes([STEP]) * n, []
        resets = begin.tolist()
        orders = bytes(RESET if reset else STEP for reset in resets)
        return orders, [self.seeds.draw(i) if reset else None for i, reset in enumerate(resets)]

    # --- after a step -------------------------------------------------------------------------------------------------

    def take_in(self, advances: list[Advance], begin: Flags | None, seeds: list[int | None], add_info: AddInfo) -> Step:
        """Return the step that the answers of the groups make, and note where the episodes stand."""
        infos = StepInfos(self.settings.num_envs, add_info)
        step = self._take_in_plain(advances[0], infos) if begin is None and len(advances) == 1 else None
        return step or self._take_in_all(advances, self._every if begin is None else ~begin, seeds, infos)

    def _take_in_plain(self, advance: Advance, infos: StepInfos) -> Step | None:
        """Return the step if every simulation was just stepped and has its info in the columns; None otherwise."""
        outcomes = advance.numbers[:, OUTCOME]
        if advance.failures or advance.infos or not (outcomes == INFORMED).all():
            return None
        steps = self.steps + 1
        truncations = steps >= self._limit
        if self._mode is AutoresetMode.SAME_STEP and truncations.any():
            return None
        self.steps, self.ended = steps, truncations
        infos.add_columns(advance, self.batches.slices[0], self._every)
        rewards, none = advance.numbers[:, SCORE].copy(), np.zeros(len(steps), bool)
        return self.observe([advance], self._every), rewards, none, truncations.copy(), infos.infos

    def _take_in_all(self, advances: list[Advance], stepped: Flags, seeds: list[int | None], infos: StepInfos) -> Step:
        outcomes = np.concatenate([advance.numbers[:, OUTCOME] for advance in advances]).astype(np.int64)
        scores = np.concatenate([advance.numbers[:, SCORE] for advance in advances])
        failed = np.zeros(len(stepped), bool)
        for span, advance in zip(self.batches.slices, advances, strict=True):
            failed[span][list(advance.failures)] = True
        rewards = np.where(stepped & ~failed, scores, 0.0)
        terminations = ((outcomes & FINISHED) != 0) & stepped & ~failed
        self.steps = np.where(stepped, self.steps + 1, 0)
        truncations = (stepped & (self.steps >= self._limit)) | failed
        self.ended = terminations | truncations
        self._add_infos(infos, advances, ((outcomes & INFORMED) != 0) & stepped & ~failed, stepped, seeds)
        again = self.ended if self._mode is AutoresetMode.SAME_STEP else np.zeros_like(failed)
        observations = self.observe(advances, ~failed | again)
        if again.any():
            self.ended = np.zeros_like(failed)
            self.steps[again] = 0
        return observations, rewards, terminations, truncations, infos.infos

    def observe(self, advances: list[Advance], valid: Flags) -> Array:
        """Return the new observations where they are valid, the last ones elsewhere."""
        if len(advances) == 1 and valid.all() and advances[0].states is not None:
            observations = np.asarray(advances[0].states, self.settings.dtype)
        else:
            observations = self.observations.copy()
            for span, advance in zip(self.batches.slices, advances, strict=True):
                if advance.states is not None:
                    observations[span][valid[span]] = advance.states[valid[span]]
        self.observations = observations
        return observations.copy()

    def _add_infos(
        self, infos: StepInfos, advances: list[Advance], informed: Flags, stepped: Flags, seeds: list[int | None]
    ) -> None:
        """Add the infos of a step; `informed` says which simulations have theirs in the columns."""
        same_step = self._mode is AutoresetMode.SAME_STEP
        parts = list(zip(self.batches.slices, advances, strict=True))
        if same_step and self.ended.any():
            informed &= ~self.ended
            for span, advance in parts:
                for place in np.flatnonzero(self.ended[span]).tolist():
                    infos.add(span.start + place, self._final(advance, place, span.start))
        for span, advance in parts:
            infos.add_columns(advance, span, informed)
            for place in {*advance.infos, *advance.failures}:
                if not (same_step and self.ended[span.start + place]):
                    infos.add(span.start + place, advance.info_of(place))
        for i in np.flatnonzero(self.ended if same_step else ~stepped).tolist():
            infos.add(i, {"seed": self.seeds.draw(i) if same_step else seeds[i]})

    def _final(self, advance: Advance, place: int, start: int) -> dict[str, Any]:
        """Return the last observation and info of an episode after which the simulation was reset."""
        last = advance.last_states.get(place)
        observation = self.observations[start + place] if last is None else np.asarray(last, self.settings.dtype)
        return {"final_obs": observation.copy(), "final_info": advance.info_of(place)}
