"""Many simulations on MPI workers as one gymnasium vector environment.

One step is one call to each worker group: the actions of all its simulations and who is to be reset go out, the states,
scores and ends come back. The rules of the autoreset modes are those of gymnasium's own vector environments; with the
same seeds and actions the episodes are exactly those of :class:`HPCSimulator`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from alchemist_ray.envs.batch_group import (
    FINISHED,
    INFO,
    INFORMED,
    LEAVE,
    OUTCOME,
    RESET,
    RESET_ENDED,
    SCORE,
    STEP,
    Advance,
    BatchGroup,
    SimulationBatch,
)
from alchemist_ray.envs.episode_seeds import EpisodeSeeds
from alchemist_ray.envs.rendering import tiled, to_rgb
from alchemist_ray.envs.snapshot import EpisodeState, Snapshot
from alchemist_ray.envs.spaces import Bounds, Component
from alchemist_ray.envs.vector_settings import VectorSettings
from alchemist_ray.errors import ArgumentError, ArgumentValueError

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Step = tuple[Array, Array, Flags, Flags, dict[str, Any]]
T = TypeVar("T")

RENDER_MODES = ("rgb_array", "rgb_array_tiled")


class HPCVectorEnv(gymnasium.vector.VectorEnv[Array, Array, Array]):
    """Many simulations of one kind, on the workers of one group or several, stepped at the same time.

    Parameters
    ----------
    env_config : mapping, optional
        See :class:`~alchemist_ray.envs.VectorSettings`: the keys of :class:`HPCSimulator`, and ``num_envs, num_groups,
        workers_per_simulation, autoreset_mode``; and ``render_mode``.
    render_mode : {None, "rgb_array", "rgb_array_tiled"}
        Whether :meth:`render` gives a picture of each simulation, or one of them all.
    **settings
        The keys of `env_config`, over those in it.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If a key is unknown or its value makes no sense.

    Notes
    -----
    Workers are asked for when the environment is first used. With ``on_failure="restart"`` a simulation that fails, or
    whose workers are gone, ends its episode with ``truncated``, the observation that was its last, and
    ``info["simulator_restarted"]``; the others go on.

    Examples
    --------
    >>> envs = HPCVectorEnv({"lib_name": "heat", "num_workers": 2}, num_envs=16)
    >>> observations, infos = envs.reset(seed=1)
    >>> observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    >>> envs.close()
    """

    def __init__(
        self, env_config: Mapping[str, Any] | None = None, *, render_mode: str | None = None, **settings: Any
    ) -> None:
        self._batches: list[SimulationBatch] = []  # for close(), which is called of what was never finished, too
        self._pool: ThreadPoolExecutor | None = None
        given = {**(env_config or {}), **settings}
        configured = given.pop("render_mode", None)
        self.render_mode = configured if render_mode is None else render_mode
        if self.render_mode not in (None, *RENDER_MODES):
            raise ArgumentValueError(
                "env_config",
                f"render_mode must be None, {' or '.join(map(repr, RENDER_MODES))}, not {self.render_mode!r}",
            )
        self.settings = VectorSettings.of(given)
        self.num_envs = self.settings.num_envs
        self.metadata = {
            "render_modes": list(RENDER_MODES),
            "render_fps": 20,
            "autoreset_mode": self.settings.mode,
        }
        self._batches = [SimulationBatch(self.settings, span) for span in self.settings.spans()]
        self._slices = [slice(span.start, span.stop) for span in self.settings.spans()]
        if len(self._batches) > 1:
            self._pool = ThreadPoolExecutor(len(self._batches))
        self._bounds: tuple[Bounds, Bounds] | None = None
        self._mode = self.settings.mode
        self._every = np.ones(self.num_envs, bool)
        self._running = False
        self._ended = np.ones(self.num_envs, bool)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._limit = self.settings.max_episode_steps or np.iinfo(np.int64).max
        self._observations: Array = np.empty(0)
        self._seeds = EpisodeSeeds(self.num_envs)

    # --- what there is ------------------------------------------------------------------------------------------------

    def _known_bounds(self) -> tuple[Bounds, Bounds]:
        if self._bounds is None:
            self._open()
            self._bounds = self._batches[0].open().spaces()[:2]
            self._observations = np.zeros((self.num_envs, *self._bounds[1].low.shape), self.settings.dtype)
        return self._bounds

    def _open(self) -> None:
        """Ask for the workers of all groups, so that there is no talk of spaces which nobody can fill."""
        self._on_all([batch.open for batch in self._batches])

    @functools.cached_property
    def single_action_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # made when it is first asked for
        """The space of the actions of one simulation."""
        return self._known_bounds()[0].space(self.settings.dtype)

    @functools.cached_property
    def single_observation_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # made when asked for
        """The space of the observations of one simulation."""
        return self._known_bounds()[1].space(self.settings.dtype)

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]  # made when it is first asked for
        """The space of the actions of all."""
        return batch_space(self.single_action_space, self.num_envs)

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]  # made when it is first asked for
        """The space of the observations of all."""
        return batch_space(self.single_observation_space, self.num_envs)

    @property
    def action_components(self) -> list[Component]:
        """What each number of an action is: ``name, unit, low, high``."""
        return self._known_bounds()[0].components

    @property
    def observation_components(self) -> list[Component]:
        """What each number of an observation is: ``name, unit, low, high``."""
        return self._known_bounds()[1].components

    def close_extras(self, **kwargs: Any) -> None:
        """Give the workers back."""
        self._running = False
        for batch in self._batches:
            batch.close()
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    # --- episodes -----------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode of each simulation.

        Parameters
        ----------
        seed : int or sequence, optional
            One for each simulation; with an integer, simulation i gets seed + i. Without one, each episode has another
            seed, all of them determined by the last that the simulation was given.
        options : dict, optional
            ``reset_mask``: array of bool; only these begin anew, the others stay as they are.

        Returns
        -------
        observations : ndarray
        infos : dict
            ``seed``: what the simulations were given.
        """
        chosen = self._mask_of(options)
        if not (self._running or chosen.all()):
            raise gymnasium.error.ResetNeeded("reset all simulations first: some have never been, or have failed")
        self._known_bounds()
        where = np.flatnonzero(chosen).tolist()
        self._seeds.begin(seed, where)
        self._running = False
        drawn = [self._seeds.draw(i) if chosen[i] else None for i in range(self.num_envs)]
        advances = self._advance(bytes(RESET if take else LEAVE for take in chosen.tolist()), None, drawn)
        observations = self._observe(advances, chosen)
        self._running = True
        self._ended[chosen], self._steps[chosen] = False, 0
        infos: dict[str, Any] = {}
        for i in where:
            self._add_info(infos, {"seed": drawn[i]}, i)
        return observations, infos

    def _mask_of(self, options: Mapping[str, Any] | None) -> Flags:
        """Return which simulations a reset is about."""
        for name in options or {}:
            if name != "reset_mask":
                near = difflib.get_close_matches(str(name), ["reset_mask"], 1)
                hint = f"did you mean {near[0]!r}?" if near else "there is 'reset_mask'"
                raise ArgumentError("HPCVectorEnv.reset", f"unknown option {name!r}; {hint}")
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, bool)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ArgumentValueError(
                "HPCVectorEnv.reset", f"reset_mask must be an array of bool of shape ({self.num_envs},), not {mask!r}"
            )
        if not mask.any():
            raise ArgumentValueError("HPCVectorEnv.reset", "reset_mask names no simulation")
        return mask

    def step(self, actions: Array) -> Step:
        """Advance every simulation by one step; reset those whose turn it is, as the autoreset mode says.

        Returns
        -------
        observations, rewards, terminations, truncations : ndarray
        infos : dict
            Arrays with an entry for each simulation, and with ``_key`` beside ``key`` which simulations have it. Of
            simulations that have failed ``simulator_restarted`` and ``simulator_error``; in the mode SAME_STEP
            ``final_obs`` and ``final_info`` of the episodes that have ended.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If there was no reset, or in the mode DISABLED an episode is over.
        ArgumentValueError
            If an action is not in its space; nothing has happened then.
        TaskError, GroupDiedError
            If a simulation or its workers fail, unless ``on_failure="restart"``. All must be reset then.
        """
        if not self._running:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        begin = self._to_begin()
        taken = self._admit(actions, begin)
        orders, seeds = self._orders(begin)
        self._running = False  # until all has gone well
        advances = self._advance(orders, taken, seeds)
        step = self._take_in_plain(advances[0]) if begin is None and len(advances) == 1 else None
        if step is None:
            step = self._take_in(advances, self._every if begin is None else ~begin, seeds)
        self._running = True
        return step

    def _to_begin(self) -> Flags | None:
        """Return which simulations this step resets instead of stepping them; None: none."""
        if self._mode is AutoresetMode.SAME_STEP or not self._ended.any():
            return None
        if self._mode is AutoresetMode.DISABLED:
            over = np.flatnonzero(self._ended).tolist()
            raise gymnasium.error.ResetNeeded(
                f"the episodes of simulations {over} are over: reset them, with options={{'reset_mask': mask}}"
            )
        return self._ended.copy()

    def _admit(self, actions: Array, begin: Flags | None) -> Array:
        bounds = self._known_bounds()[0]
        if begin is not None:
            actions = np.array(actions, float)
            if actions.shape == (self.num_envs, *bounds.low.shape):
                actions[begin] = np.clip(0.0, bounds.low, bounds.high)  # not looked at
        return bounds.admit("HPCVectorEnv.step", actions, self.num_envs)

    def _orders(self, begin: Flags | None) -> tuple[bytes, list[int | None]]:
        """Return what each simulation is to do, and the seeds of those that begin anew in this step."""
        if self._mode is AutoresetMode.SAME_STEP:
            last = (self._steps + 1 >= self._limit).tolist()
            orders = bytes(STEP | (RESET if is_last else RESET_ENDED) for is_last in last)
            return orders, [self._seeds.peek(i) for i in range(self.num_envs)]
        if begin is None:
            return bytes([STEP]) * self.num_envs, []
        resets = begin.tolist()
        orders = bytes(RESET if reset else STEP for reset in resets)
        return orders, [self._seeds.draw(i) if reset else None for i, reset in enumerate(resets)]

    def _take_in_plain(self, advance: Advance) -> Step | None:
        """Do as :meth:`_take_in` does if nothing has happened but a step of every simulation; None: more has."""
        outcomes = advance.numbers[:, OUTCOME]
        if advance.failures or advance.infos or not (outcomes == INFORMED).all():
            return None
        steps = self._steps + 1
        truncations = steps >= self._limit
        if self._mode is AutoresetMode.SAME_STEP and truncations.any():
            return None
        self._steps, self._ended = steps, truncations
        infos: dict[str, Any] = {}
        self._add_columns(infos, advance, self._slices[0], self._every)
        rewards = advance.numbers[:, SCORE].copy()
        return self._observe([advance], self._every), rewards, np.zeros(self.num_envs, bool), truncations.copy(), infos

    def _take_in(self, advances: list[Advance], stepped: Flags, seeds: list[int | None]) -> Step:
        """Return the step that the answers of the groups amount to, and note how the episodes stand."""
        numbers = [advance.numbers for advance in advances]
        outcomes = np.concatenate([of_group[:, OUTCOME] for of_group in numbers]).astype(np.int64)
        rewards = np.where(stepped, np.concatenate([of_group[:, SCORE] for of_group in numbers]), 0.0)
        failed = np.zeros(self.num_envs, bool)
        for span, advance in zip(self._slices, advances, strict=True):
            failed[span][list(advance.failures)] = True
        rewards[failed] = 0.0
        terminations = ((outcomes & FINISHED) != 0) & stepped & ~failed
        self._steps = np.where(stepped, self._steps + 1, 0)
        truncations = (stepped & (self._steps >= self._limit)) | failed
        self._ended = terminations | truncations
        infos = self._infos(advances, outcomes, failed, stepped, seeds)
        again = self._ended if self._mode is AutoresetMode.SAME_STEP else np.zeros_like(failed)
        observations = self._observe(advances, ~failed | again)
        if again.any():
            self._ended = np.zeros(self.num_envs, bool)
            self._steps[again] = 0
        return observations, rewards, terminations, truncations, infos

    def _observe(self, advances: list[Advance], valid: Flags) -> Array:
        """Return the observations: those that have come where they are valid, the last ones elsewhere."""
        if len(advances) == 1 and valid.all() and advances[0].states is not None:
            observations = np.asarray(advances[0].states, self.settings.dtype)
        else:
            observations = self._observations.copy()
            for span, advance in zip(self._slices, advances, strict=True):
                if advance.states is not None:
                    observations[span][valid[span]] = advance.states[valid[span]]
        self._observations = observations
        return observations.copy()

    # --- infos --------------------------------------------------------------------------------------------------------

    def _infos(
        self, advances: list[Advance], outcomes: Array, failed: Flags, stepped: Flags, seeds: list[int | None]
    ) -> dict[str, Any]:
        """Return the infos of a step, as gymnasium's vector environments lay them out."""
        infos: dict[str, Any] = {}
        same_step = self._mode is AutoresetMode.SAME_STEP
        informed = ((outcomes & INFORMED) != 0) & stepped & ~failed
        if same_step and self._ended.any():
            informed &= ~self._ended
            for span, advance in zip(self._slices, advances, strict=True):
                for place in np.flatnonzero(self._ended[span]).tolist():
                    self._add_final(infos, advance, place, span.start)
        for span, advance in zip(self._slices, advances, strict=True):
            self._add_columns(infos, advance, span, informed)
            for place in {*advance.infos, *advance.failures}:
                if not (same_step and self._ended[span.start + place]):
                    self._add_info(infos, advance.info_of(place), span.start + place)
        for i in np.flatnonzero(self._ended if same_step else ~stepped).tolist():
            self._add_info(infos, {"seed": self._seeds.draw(i) if same_step else seeds[i]}, i)
        return infos

    def _add_columns(self, infos: dict[str, Any], advance: Advance, span: slice, informed: Flags) -> None:
        """Add the infos of a group's simulations that have the same names, all at once."""
        mask = informed[span]
        if not advance.names or not mask.any():
            return
        for column, name in enumerate(advance.names, INFO):
            if name not in infos:
                infos[name], infos[f"_{name}"] = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
            infos[name][span][mask] = advance.numbers[mask, column]
            infos[f"_{name}"][span] |= mask

    def _add_final(self, infos: dict[str, Any], advance: Advance, place: int, start: int) -> None:
        """Add the last observation and info of an episode after which the simulation has begun anew."""
        last = advance.last_states.get(place)
        observation = self._observations[start + place] if last is None else np.asarray(last, self.settings.dtype)
        final = {"final_obs": observation.copy(), "final_info": advance.info_of(place)}
        self._add_info(infos, final, start + place)

    # --- all groups at once -------------------------------------------------------------------------------------------

    def _advance(self, orders: bytes, actions: Array | None, seeds: Sequence[int | None]) -> list[Advance]:
        if self._pool is None:
            return [self._batches[0].advance(orders, actions, seeds)]
        calls = [
            functools.partial(batch.advance, orders[span], None if actions is None else actions[span], seeds[span])
            for batch, span in zip(self._batches, self._slices, strict=True)
        ]
        return self._on_all(calls)

    def _on_all(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Return the results of one call to each group, made at the same time; wait for all before one raises."""
        if self._pool is None:
            return [call() for call in calls]
        futures = [self._pool.submit(call) for call in calls]
        failures = [failure for future in futures if (failure := future.exception()) is not None]
        if failures:
            raise failures[0]
        return [future.result() for future in futures]

    # --- snapshots, pictures, pickling --------------------------------------------------------------------------------

    def snapshot(self, indices: Sequence[int] | None = None) -> list[Snapshot]:
        """Keep the states of simulations (by default of all); the workers hold each for as long as it is referred to.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If there was no reset.
        ArgumentValueError
            If the library has no snapshots.
        """
        self._check_running("snapshot")
        chosen = self._checked_indices(indices)
        taken: dict[int, Snapshot] = {}
        for batch in self._batches:
            own = [i for i in chosen if i in batch.span]
            if not own:
                continue
            group = batch.open()
            group.free_dropped()
            numbers = group.library["snapshot_batch"](group.batch, [i - batch.span.start for i in own])
            for i, number in zip(own, numbers, strict=True):
                taken[i] = Snapshot(group, number, self._episode(i))
        return [taken[i] for i in chosen]

    def _episode(self, i: int) -> EpisodeState:
        return EpisodeState(
            int(self._steps[i]),
            not self._ended[i],
            self._seeds.state(i),
        )

    def restore(
        self, snapshots: Snapshot | Sequence[Snapshot], indices: Sequence[int] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Have simulations (by default all) continue from snapshots, bit for bit.

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
        ArgumentValueError
            If a snapshot is not in the memory of the workers that run the simulation.

        Notes
        -----
        The seeds of later episodes go on as after the snapshot where it is each simulation's own, and as they were
        going where one serves several.
        """
        self._check_running("restore")
        chosen = self._checked_indices(indices)
        given = [snapshots] * len(chosen) if isinstance(snapshots, Snapshot) else list(snapshots)
        if len(given) != len(chosen):
            raise ArgumentValueError(
                "HPCVectorEnv.restore", f"there are {len(given)} snapshots for {len(chosen)} simulations"
            )
        pairs = dict(zip(chosen, given, strict=True))
        for batch in self._batches:
            self._restore_in(batch, {i: snapshot for i, snapshot in pairs.items() if i in batch.span})
        for i, snapshot in pairs.items():
            episode = snapshot.episode
            self._steps[i], self._ended[i] = episode.steps, not episode.running
            if not isinstance(snapshots, Snapshot):
                self._seeds.go_on_from(i, episode.random)
        return self._observations.copy(), {}

    def _restore_in(self, batch: SimulationBatch, pairs: Mapping[int, Snapshot]) -> None:
        for i, snapshot in pairs.items():
            if snapshot.group is not batch.group:
                raise ArgumentValueError(
                    "HPCVectorEnv.restore",
                    f"{snapshot!r} is not in the memory of the workers that run simulation {i}: a snapshot serves the "
                    "simulations of its own group, as long as the workers live",
                )
        if pairs:
            places = [i - batch.span.start for i in pairs]
            states = batch.restore([snapshot.number for snapshot in pairs.values()], places)
            self._observations = self._observations.copy()
            self._observations[list(pairs)] = states[places]

    def render(self) -> tuple[Array, ...] | None:  # type: ignore[override]  # arrays are its frames
        """Return pictures of all simulations, each (height, width, 3); with "rgb_array_tiled" one picture of them all.

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
        """Return what pictures are made of: for each simulation ``values`` (ny, nx), ``name, unit, low, high``."""
        self._check_running("render")
        groups: list[BatchGroup] = [batch.open() for batch in self._batches]
        taken = self._on_all([functools.partial(group.library["get_batch_fields"], group.batch) for group in groups])
        return [field for of_group in taken for field in of_group]

    def _check_running(self, what: str) -> None:
        if not self._running:
            raise gymnasium.error.ResetNeeded(f"call reset() before {what}()")

    def _checked_indices(self, indices: Sequence[int] | None) -> list[int]:
        if indices is None:
            return list(range(self.num_envs))
        chosen = [int(i) for i in indices]
        if len(set(chosen)) < len(chosen) or not all(0 <= i < self.num_envs for i in chosen):
            raise ArgumentValueError(
                "HPCVectorEnv", f"the indices must be different ones of 0..{self.num_envs - 1}, not {chosen}"
            )
        return chosen

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "render_mode": self.render_mode, "spec": self.spec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        HPCVectorEnv.__init__(self, {**vars(state["settings"])}, render_mode=state["render_mode"])
        self.spec = state["spec"]

    def __repr__(self) -> str:
        groups = f" in {len(self._batches)} groups" if len(self._batches) > 1 else ""
        return (
            f"<HPCVectorEnv of {self.num_envs} {self.settings.lib_name} on {self.settings.num_workers} workers{groups}>"
        )
