"""Many simulations on MPI workers as one gymnasium vector environment.

One step is one call to each worker group. The call carries the actions of all its simulations and says which to reset;
the answer has the states, scores and ends. The rules of the autoreset modes are those of gymnasium's own vector
environments. With the same seeds and actions the episodes are exactly those of :class:`HPCSimulator`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import batch_space

from alchemist_ray.envs.arguments import Seeds, indices_of, members, option_of, seeds_of
from alchemist_ray.envs.environment import SimulationEnvironment
from alchemist_ray.envs.episode_seeds import EpisodeSeeds
from alchemist_ray.envs.live_episodes import Flags, LiveEpisodes, Step
from alchemist_ray.envs.rendering import tiled, to_rgb
from alchemist_ray.envs.snapshot import EpisodeState, Snapshot, checked_snapshot
from alchemist_ray.envs.spaces import Bounds, real_array
from alchemist_ray.envs.vector_settings import VectorSettings
from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.protocol.batches import BatchOrder

Array = npt.NDArray[Any]

LEAVE, RESET = int(BatchOrder.LEAVE), int(BatchOrder.RESET)


class HPCVectorEnv(
    SimulationEnvironment[VectorSettings, LiveEpisodes], gymnasium.vector.VectorEnv[Array, Array, Array]
):
    """Many simulations of one kind, on the workers of one group or several, stepped at the same time.

    Parameters
    ----------
    env_config : mapping, optional
        See :class:`~alchemist_ray.envs.VectorSettings`: the keys of :class:`HPCSimulator`, and ``num_envs, num_groups,
        workers_per_simulation, autoreset_mode``; and ``render_mode``.
    render_mode : {None, "rgb_array", "rgb_array_tiled"}
        Whether :meth:`render` returns a picture of each simulation, or one picture of all.
    **settings
        The keys of `env_config`, over those in it.

    Attributes
    ----------
    num_envs : int
        Number of simulations.
    autoreset_mode : gymnasium.vector.AutoresetMode
        When a simulation whose episode is over is reset; also in ``metadata``.
    np_random, np_random_seed : tuple
        For each simulation: the generator that draws the seeds of its episodes, and the seed of that generator.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If a key is unknown or its value makes no sense.

    Notes
    -----
    Workers are requested when the environment is first used. With ``on_failure="restart"`` a simulation that fails, or
    whose workers are lost, ends its episode with ``truncated``, its last observation, and
    ``info["simulator_restarted"]``; the others go on. An environment that was closed opens again when it is reset. In a
    forked child process, and unpickled elsewhere, it is a new environment.

    Examples
    --------
    >>> envs = HPCVectorEnv({"lib_name": "heat", "num_workers": 2}, num_envs=16)
    >>> observations, infos = envs.reset(seed=1)
    >>> observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    >>> envs.close()
    """

    render_modes = ("rgb_array", "rgb_array_tiled")

    def __init__(
        self, env_config: Mapping[str, Any] | None = None, *, render_mode: str | None = None, **settings: Any
    ) -> None:
        self._configure(VectorSettings, env_config, render_mode, settings)
        self.num_envs = self.settings.num_envs
        self.autoreset_mode = self.settings.mode
        self.metadata = {
            "render_modes": list(self.render_modes),
            "render_fps": 20,
            "autoreset_mode": self.autoreset_mode,
        }
        self._seeds = EpisodeSeeds(self.num_envs)

    def _new_live_state(self) -> LiveEpisodes:
        return LiveEpisodes(settings=self.settings, seeds=self._seeds)

    # --- attributes of gymnasium --------------------------------------------------------------------------------------

    @functools.cached_property
    def single_action_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # made when it is first asked for
        """The space of the actions of one simulation."""
        return self._single_space(0)

    @functools.cached_property
    def single_observation_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # made when asked for
        """The space of the observations of one simulation."""
        return self._single_space(1)

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]  # made when it is first asked for
        """The space of the actions of all simulations."""
        return batch_space(self.single_action_space, self.num_envs)

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]  # made when it is first asked for
        """The space of the observations of all simulations."""
        return batch_space(self.single_observation_space, self.num_envs)

    @property  # type: ignore[misc]  # read-only, as in SyncVectorEnv
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]  # as in SyncVectorEnv
        """The generators that draw the seeds of the episodes, one for each simulation."""
        return tuple(self._seeds.generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]  # as in SyncVectorEnv
        """The seeds of the generators."""
        return tuple(self._seeds.given)

    def _learn_bounds(self) -> tuple[Bounds, Bounds]:
        self.closed = False
        return self._live.batches.spaces()

    def close_extras(self, **kwargs: Any) -> None:
        """Give the workers back."""
        if self._live_state is not None:  # VectorEnv.__del__ also closes an environment that was never finished
            self._live.running = False
            self._live.batches.close()

    # --- episodes -----------------------------------------------------------------------------------------------------

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode of each simulation.

        Parameters
        ----------
        seed : int or sequence, optional
            One for each simulation; with an integer, simulation i gets seed + i. Without a seed, each episode has
            another one; the last seed that the simulation was given determines all of them.
        options : dict, optional
            ``reset_mask``: array of bool; only these begin an episode, the others stay as they are.

        Returns
        -------
        observations : ndarray
        infos : dict
            ``seed``: the seeds that the simulations were given.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If a seed is not an integer of at least 0, or an option is wrong. The environment is as it was then.
        TaskError, GroupDiedError
            If a simulation or its workers fail, also after `max_restarts` more tries with ``on_failure="restart"``.
        """
        where = "HPCVectorEnv.reset"
        seeds, chosen = seeds_of(where, seed, self.num_envs), self._mask_of(where, options)
        live = self._live
        if not (live.running or chosen.all()):
            raise self._reset_needed("reset all simulations first: some were never reset, or have failed")
        live.know_shape(self._known_bounds()[1].low.shape)
        self.closed = False
        indices = np.flatnonzero(chosen).tolist()
        self._seeds.begin(seeds, indices)
        live.running = False  # until the reset is complete, whatever is raised
        drawn = [self._seeds.draw(i) if chosen[i] else None for i in range(self.num_envs)]
        orders = bytes(RESET if take else LEAVE for take in chosen.tolist())
        observations = live.observe(live.batches.advance(orders, None, drawn), chosen)
        live.ended[chosen], live.steps[chosen] = False, 0
        live.running, live.parent = True, None
        infos: dict[str, Any] = {}
        for i in indices:
            self._add_info(infos, {"seed": drawn[i]}, i)
        return observations, infos

    def _mask_of(self, where: str, options: Any) -> Flags:
        """Return which simulations a reset is about."""
        mask = option_of(where, options, "reset_mask")
        if mask is None:
            return np.ones(self.num_envs, bool)
        is_array = isinstance(mask, np.ndarray) and not isinstance(mask, np.ma.MaskedArray)
        if not is_array or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ArgumentValueError(
                where, f"reset_mask must be an array of bool of shape ({self.num_envs},), not {mask!r}"
            )
        if not mask.any():
            raise ArgumentValueError(where, "reset_mask names no simulation")
        return np.asarray(mask)

    def step(self, actions: Array) -> Step:
        """Advance every simulation by one step, or reset it where the autoreset mode says so.

        Returns
        -------
        observations, rewards, terminations, truncations : ndarray
        infos : dict
            Arrays with an entry for each simulation; the array ``_key`` says which simulations have ``key``. Those that
            have failed have ``simulator_restarted`` and ``simulator_error``; in the mode SAME_STEP those whose episode
            has ended have ``final_obs`` and ``final_info``.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If there was no reset, or in the mode DISABLED an episode is over.
        ArgumentValueError
            If an action is not in its space; nothing has happened then.
        TaskError, GroupDiedError
            If a simulation or its workers fail, unless ``on_failure="restart"``.

        Notes
        -----
        After an exception of any other kind than the first two, KeyboardInterrupt included, some simulations may have
        taken the step: all must be reset.
        """
        live = self._live
        if not live.running:
            raise self._reset_needed("call reset() before step()")
        begin = live.to_begin()
        taken = self._admit(actions, begin)
        live.running = False  # until the step is complete, whatever is raised
        orders, seeds = live.orders(begin)
        step = live.take_in(live.batches.advance(orders, taken, seeds), begin, seeds, self._add_info)
        live.running = True
        return step

    def _admit(self, actions: Array, begin: Flags | None) -> Array:
        where, bounds = "HPCVectorEnv.step", self._known_bounds()[0]
        if begin is not None:
            actions = real_array(where, "the action", actions).copy()
            if actions.shape == (self.num_envs, *bounds.low.shape):
                actions[begin] = np.clip(0.0, bounds.low, bounds.high)  # any: a simulation that begins ignores it
        return bounds.admit(where, actions, self.num_envs)

    # --- snapshots, pictures ------------------------------------------------------------------------------------------

    def snapshot(self, indices: Sequence[int] | None = None) -> list[Snapshot]:
        """Keep the states of simulations (by default of all); the workers hold each as long as its handle is in use.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If there was no reset.
        ArgumentError, ArgumentValueError
            If an index is wrong, or the library has no snapshots.
        """
        live = self._begun("snapshot")
        chosen = indices_of("HPCVectorEnv.snapshot", indices, self.num_envs)
        episodes = {i: EpisodeState(int(live.steps[i]), not live.ended[i], self._seeds.state(i)) for i in chosen}
        return live.batches.snapshot(chosen, lambda group, number, i: Snapshot(group, number, episodes[i]))

    def restore(
        self, snapshots: Snapshot | Sequence[Snapshot], indices: Sequence[int] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Continue simulations (by default all) from snapshots, bit for bit.

        Parameters
        ----------
        snapshots : Snapshot or sequence of Snapshot
            One for each simulation, or one that all continue from: a fork.
        indices : sequence of int, optional
            Which simulations.

        Returns
        -------
        observations : ndarray
            Of all simulations.
        infos : dict
            Empty.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If an index or a snapshot is wrong, or a snapshot is not in the memory of the workers that run the
            simulation; nothing has happened then.
        TaskError, GroupDiedError
            If a simulation or its workers fail. All must be reset then.

        Notes
        -----
        A simulation that continues from its own snapshot continues with the seeds of later episodes, too. Where one
        snapshot serves several simulations, their seeds stay as they were.
        """
        where, live = "HPCVectorEnv.restore", self._begun("restore")
        chosen = indices_of(where, indices, self.num_envs)
        is_one = isinstance(snapshots, Snapshot)
        given = [snapshots] * len(chosen) if is_one else members(where, "snapshots", snapshots)
        if len(given) != len(chosen):
            raise ArgumentValueError(where, f"there are {len(given)} snapshots for {len(chosen)} simulations")
        pairs = {i: checked_snapshot(where, "each snapshot", each) for i, each in zip(chosen, given, strict=True)}
        numbers = live.batches.numbers_of(where, pairs)
        live.running = False  # until all are restored, whatever is raised
        states, observations = live.batches.restore(numbers), live.observations.copy()
        for i, taken in pairs.items():
            observations[i] = states[i]
            live.steps[i], live.ended[i] = taken.episode.steps, not taken.episode.running
            if not is_one:
                self._seeds.go_on_from(i, taken.episode.random)
        live.observations, live.running = observations, True
        return observations.copy(), {}

    def render(self) -> tuple[Array, ...] | None:  # type: ignore[override]  # arrays are its frames
        """Return pictures of all simulations, each (height, width, 3); with "rgb_array_tiled" one picture of all.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If there was no reset.
        ArgumentValueError
            If the library has no pictures.
        """
        if self.render_mode is None:
            gymnasium.logger.warn("render() was called without a render mode: make the environment with 'rgb_array'")
            return None
        pictures = tuple(to_rgb(field) for field in self.fields())
        return pictures if self.render_mode == "rgb_array" else (tiled(pictures),)

    def fields(self) -> list[dict[str, Any]]:
        """Return the numbers of the pictures: for each simulation ``values`` (ny, nx), ``name, unit, low, high``."""
        return self._begun("render").batches.fields()

    def _begun(self, what: str) -> LiveEpisodes:
        live = self._live
        if not live.running:
            raise self._reset_needed(f"call reset() before {what}()")
        return live

    def __repr__(self) -> str:
        groups = f" in {self.settings.num_groups} groups" if self.settings.num_groups > 1 else ""
        return (
            f"<{type(self).__name__} of {self.num_envs} {self.settings.lib_name} on {self.settings.num_workers} "
            f"workers{groups}>"
        )
