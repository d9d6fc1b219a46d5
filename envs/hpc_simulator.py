"""The gymnasium environment over a simulation on MPI workers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Self

import gymnasium
import numpy as np
import numpy.typing as npt

from alchemist_ray.client.libraries import Library
from alchemist_ray.envs.arguments import integer, option_of, seed_of
from alchemist_ray.envs.environment import SimulationEnvironment
from alchemist_ray.envs.episode_seeds import draw_seed
from alchemist_ray.envs.live_simulation import LiveSimulation
from alchemist_ray.envs.rendering import blank, labelled, to_rgb
from alchemist_ray.envs.settings import EnvSettings
from alchemist_ray.envs.simulation_group import SimulationGroup, is_failure, restarted
from alchemist_ray.envs.snapshot import EpisodeState, Snapshot, checked_snapshot
from alchemist_ray.envs.spaces import Bounds
from alchemist_ray.errors import AlchemistError

Array = npt.NDArray[Any]


class HPCSimulator(SimulationEnvironment[EnvSettings, LiveSimulation], gymnasium.Env[Array, Array]):
    """A simulation on MPI workers as a gymnasium environment.

    Parameters
    ----------
    env_config : mapping, optional
        See :class:`~alchemist_ray.envs.EnvSettings`: ``lib_name, lib_path, hostname, port, token, num_workers, params,
        max_episode_steps, on_failure, max_restarts, step_timeout, reset_timeout, dtype``; and ``render_mode``.
    render_mode : {None, "rgb_array", "rgb_array_labelled"}
        Whether :meth:`render` returns pictures, for agents or, with a colour scale and the quantity, for people.
    **settings
        The keys of `env_config`, over those in it.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If a key is unknown or its value makes no sense.

    Notes
    -----
    Workers are requested when the environment is first used: when its spaces are asked for, at the latest in
    :meth:`reset`. The errors of that are those of :class:`~alchemist_ray.envs.simulation_group.SimulationGroup`. The
    environment pickles as its settings: a copy that is unpickled elsewhere is a new environment with its own workers.
    So is the copy in a forked child process; the parent keeps its workers and its episode.

    One step is one round trip to every worker. Observations and actions are arrays of `dtype`;
    :attr:`observation_components` and :attr:`action_components` say what their components are.

    Examples
    --------
    >>> env = HPCSimulator({"lib_name": "heat", "num_workers": 2})
    >>> observation, info = env.reset(seed=1)
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    >>> env.close()
    """

    render_modes = ("rgb_array", "rgb_array_labelled")
    metadata: dict[str, Any] = {"render_modes": list(render_modes), "render_fps": 20}  # noqa: RUF012 - as in gymnasium

    def __init__(
        self, env_config: Mapping[str, Any] | None = None, *, render_mode: str | None = None, **settings: Any
    ) -> None:
        self._configure(EnvSettings, env_config, render_mode, settings)

    def _new_live_state(self) -> LiveSimulation:
        return LiveSimulation(settings=self.settings, bounds=self._bounds)

    # --- spaces and workers -------------------------------------------------------------------------------------------

    @functools.cached_property
    def action_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # made when it is first asked for
        """The space of actions."""
        return self._single_space(0)

    @functools.cached_property
    def observation_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # made when it is first asked for
        """The space of observations."""
        return self._single_space(1)

    @property
    def library(self) -> Library:
        """The simulation library, for other tasks; :attr:`simulation` is the number that they take."""
        return self._live.open().library

    @property
    def simulation(self) -> int:
        """Number of the simulation among those of the library."""
        live = self._live
        live.open()
        return live.simulation

    def _learn_bounds(self) -> tuple[Bounds, Bounds]:
        live = self._live
        live.open()
        assert live.bounds is not None  # opening has learned them
        return live.bounds

    def close(self) -> None:
        """Give the workers back. An environment that was closed opens again when it is reset."""
        self._live.leave()

    # --- episodes -----------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode.

        Parameters
        ----------
        seed : int, optional
            The same seed gives exactly the same episode, on the same number of workers. Without a seed, each episode
            has another one; the last seed that was given determines all of them.
        options : mapping, optional
            ``snapshot``: begin from this :class:`Snapshot`, with the step count at 0.

        Returns
        -------
        observation : ndarray
        info : dict
            ``seed``: the seed that the simulation was given, unless it begins from a snapshot.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If the seed is not an integer of at least 0, an option is unknown, or the snapshot is not one of this
            environment or its forks. The environment is as it was then.
        TaskError, GroupDiedError
            If the simulation fails, also after `max_restarts` more tries with ``on_failure="restart"``.
        """
        where = "HPCSimulator.reset"
        given, snapshot = seed_of(where, seed), option_of(where, options, "snapshot")
        live = self._live
        number = None
        if snapshot is not None:
            snapshot = checked_snapshot(where, "the option snapshot", snapshot)
            number = snapshot.number_in(live.group, where, _WHOSE)
        super().reset(seed=given)
        chosen = draw_seed(self.np_random)
        live.begun = live.running = False
        state = live.begin(chosen, number)
        live.begun, live.running, live.steps, live.parent = True, True, 0, None
        return np.array(state, self.settings.dtype), {"seed": chosen} if snapshot is None else {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Advance by one step.

        Returns
        -------
        observation : ndarray
        reward : float
            The simulation's score of the step.
        terminated : bool
            Whether the simulation has come to its end.
        truncated : bool
            Whether the episode has had `max_episode_steps`, or the simulation has failed and will begin again.
        info : dict
            What the simulation says of the step. After a failure ``simulator_restarted`` (True) and
            ``simulator_error``; the observation is then the one before.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If the episode has not begun, or is over.
        ArgumentValueError
            If the action is not in its space; the episode goes on.
        TaskError, GroupDiedError
            If the simulation fails. It can be reset, with new workers if the old ones are gone.

        Notes
        -----
        After any other exception, such as KeyboardInterrupt, the simulation may have taken the step or not: it must be
        reset, or restored from a snapshot.
        """
        live = self._live
        if not live.running or live.group is None or live.bounds is None:
            raise self._reset_needed(
                "the episode is over: call reset()" if live.steps else "call reset() before the first step()"
            )
        taken = live.bounds[0].admit("HPCSimulator.step", action)
        live.begun = live.running = False  # until the step is complete, whatever is raised
        try:
            state, score, finished, info = live.group.simulations.step(
                self.settings.lib_name, live.simulation, taken, self.settings.step_timeout
            )
            observation = np.array(live.checked(state), self.settings.dtype)
        except AlchemistError as failure:
            return self._truncate(failure)
        except BaseException:
            live.interrupted = True
            raise
        live.begun = True
        live.steps += 1
        live.failures = 0
        truncated = live.steps == self.settings.max_episode_steps
        live.running = not (finished or truncated)
        return observation, score, finished, truncated, info

    def _truncate(self, failure: AlchemistError) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Return the step of an episode that a failure has ended, or raise the failure."""
        if not is_failure(failure):
            raise failure
        live = self._live
        live.note(failure)
        if self.settings.on_failure != "restart" or live.failures > self.settings.max_restarts:
            raise failure
        return np.array(live.state, self.settings.dtype), 0.0, False, True, restarted(failure)

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Keep the simulation's state; the workers hold it as long as something refers to the handle.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If no episode has begun.
        ArgumentValueError
            If the library has no snapshots.
        """
        group, live = self._begun_group("snapshot"), self._live
        with live.noting():
            group.free_dropped()
            number = group.library["snapshot"](live.simulation)
        episode = EpisodeState(live.steps, live.running, dict(self.np_random.bit_generator.state))
        return Snapshot(group, number, episode)

    def _begun_group(self, what: str) -> SimulationGroup:
        live = self._live
        if live.group is None or not live.begun:
            raise self._reset_needed(f"call reset() before {what}()")
        return live.group

    def restore(self, snapshot: Snapshot) -> tuple[Array, dict[str, Any]]:
        """Continue from a snapshot, bit for bit; return the observation and an info, as :meth:`reset` does.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If the snapshot is not one of this environment or its forks, its workers are gone, or it belongs to the
            parent of this process.
        """
        where, live = "HPCSimulator.restore", self._live
        taken = checked_snapshot(where, "snapshot", snapshot)
        number = taken.number_in(live.group, where, _WHOSE)
        group = live.open()
        live.begun = live.running = False
        with live.noting():
            group.free_dropped()
            state = live.checked(group.library["restore"](live.simulation, number))
        self.np_random.bit_generator.state = taken.episode.random
        live.steps, live.begun, live.running = taken.episode.steps, True, taken.episode.running
        return np.array(state, self.settings.dtype), {}

    def fork(self, n: int) -> list[Self]:
        """Return `n` environments that go on from this one's state, on the same workers.

        Each has its own simulation and is closed by itself; the last one to be closed gives the workers back. They
        continue exactly as this one does; the episodes that follow, after a reset without a seed, differ. If the
        workers die, each environment requests its own group when it is reset.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If `n` is not an integer of at least 1, or the library has no snapshots.
        """
        count = integer("HPCSimulator.fork", "n", n, 1)
        taken = self.snapshot()
        forks: list[Self] = []
        try:
            for generator in self.np_random.spawn(count):
                forks.append(self._fork(taken, generator))
        except BaseException:
            for fork in forks:
                fork.close()
            raise
        return forks

    def _fork(self, taken: Snapshot, generator: np.random.Generator) -> Self:
        fork = type(self).__new__(type(self))
        fork.__setstate__(self.__getstate__())
        fork._live.enter(taken.group)
        taken.group.users += 1
        try:
            fork.restore(taken)
        except BaseException:
            fork.close()
            raise
        fork.np_random = generator
        return fork

    # --- pictures -----------------------------------------------------------------------------------------------------

    def render(self) -> npt.NDArray[np.uint8] | None:  # type: ignore[override]  # one picture, no list
        """Return a picture of the present state, (height, width, 3), both even; None without a render mode.

        After a failure that has ended an episode it is the last picture, or a grey one.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If no episode has begun.
        ArgumentValueError
            If the library has no pictures.
        """
        if self.render_mode is None:
            gymnasium.logger.warn("render() was called without a render mode: make the environment with 'rgb_array'")
            return None
        live = self._live
        if live.failures and not live.begun:  # wrappers draw each step, also one that has failed
            return blank() if live.picture is None else live.picture
        live.picture = (to_rgb if self.render_mode == "rgb_array" else labelled)(self.field())
        return live.picture

    def field(self) -> dict[str, Any]:
        """Return the numbers of a picture: ``values`` (ny, nx), ``name, unit, low, high``, ``extent`` and ``axes``."""
        group, live = self._begun_group("render"), self._live
        with live.noting():
            field: dict[str, Any] = group.library["get_field"](live.simulation)
        return field


_WHOSE = "this environment's workers"
