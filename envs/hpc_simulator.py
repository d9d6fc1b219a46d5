"""The gymnasium environment over a simulation on MPI workers."""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Self

import gymnasium
import numpy as np
import numpy.typing as npt

from alchemist_ray.client.libraries import Library
from alchemist_ray.envs.rendering import to_rgb
from alchemist_ray.envs.settings import EnvSettings
from alchemist_ray.envs.simulation_group import SimulationGroup, is_failure, is_lost, with_patience
from alchemist_ray.envs.snapshot import EpisodeState, Snapshot
from alchemist_ray.envs.spaces import Bounds, Component
from alchemist_ray.errors import AlchemistError, ArgumentError, ArgumentValueError, StateMisfitError

Array = npt.NDArray[Any]

PATIENCE_SECONDS = 15.0
"""How long workers are asked for anew after a group has died: the server takes a moment to find its slots free."""

MAX_SEED = 2**31


class HPCSimulator(gymnasium.Env[Array, Array]):
    """A simulation on MPI workers as a gymnasium environment.

    Parameters
    ----------
    env_config : mapping, optional
        See :class:`~alchemist_ray.envs.EnvSettings`: ``lib_name, lib_path, hostname, port, token, num_workers, params,
        max_episode_steps, on_failure, max_restarts, step_timeout, reset_timeout, dtype``; and ``render_mode``.
    render_mode : {None, "rgb_array"}
        Whether :meth:`render` gives pictures.
    **settings
        The keys of `env_config`, over those in it.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If a key is unknown or its value makes no sense.

    Notes
    -----
    Workers are asked for when the environment is first used: when its spaces are asked for, at the latest in
    :meth:`reset`; the errors of that are those of :class:`~alchemist_ray.envs.simulation_group.SimulationGroup`. The
    environment pickles as its settings: unpickled elsewhere, it is a new one with workers of its own.

    One step is one round trip to every worker. Observations and actions are arrays of `dtype`; what their components
    are is in :attr:`observation_components` and :attr:`action_components`.

    Examples
    --------
    >>> env = HPCSimulator({"lib_name": "heat", "num_workers": 2})
    >>> observation, info = env.reset(seed=1)
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    >>> env.close()
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as gymnasium declares it

    def __init__(
        self, env_config: Mapping[str, Any] | None = None, *, render_mode: str | None = None, **settings: Any
    ) -> None:
        given = {**(env_config or {}), **settings}
        configured = given.pop("render_mode", None)
        self.render_mode = configured if render_mode is None else render_mode
        if self.render_mode not in (None, *self.metadata["render_modes"]):
            raise ArgumentValueError("env_config", f"render_mode must be None or 'rgb_array', not {self.render_mode!r}")
        self.settings = EnvSettings.of(given)
        self._group: SimulationGroup | None = None
        self._simulation = 0
        self._bounds: tuple[Bounds, Bounds] | None = None
        self._begun = False  # whether the simulation has a state
        self._running = False  # whether it can be stepped
        self._steps = 0
        self._failures = 0
        self._observation: Array = np.empty(0)
        self._picture: npt.NDArray[np.uint8] | None = None

    # --- what there is ------------------------------------------------------------------------------------------------

    @functools.cached_property
    def action_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # made when it is first asked for
        """The space of actions."""
        return self._known_bounds()[0].space(self.settings.dtype)

    @functools.cached_property
    def observation_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # made when it is first asked for
        """The space of observations."""
        return self._known_bounds()[1].space(self.settings.dtype)

    @property
    def action_components(self) -> list[Component]:
        """What each number of an action is: ``name, unit, low, high``."""
        return self._known_bounds()[0].components

    @property
    def observation_components(self) -> list[Component]:
        """What each number of an observation is: ``name, unit, low, high``."""
        return self._known_bounds()[1].components

    @property
    def library(self) -> Library:
        """The simulation library, for tasks beyond the usual; :attr:`simulation` is the number that they take."""
        return self._open().library

    @property
    def simulation(self) -> int:
        """Number of the simulation among those of the library."""
        self._open()
        return self._simulation

    def _known_bounds(self) -> tuple[Bounds, Bounds]:
        if self._bounds is None:
            self._open()
        assert self._bounds is not None  # _open has set them
        return self._bounds

    # --- workers ------------------------------------------------------------------------------------------------------

    def _open(self) -> SimulationGroup:
        """Return the group, with a simulation of this environment in it."""
        if self._group is None:
            group = SimulationGroup(self.settings)
            try:
                self._enter(group)
            except BaseException:
                group.release(None)
                raise
        assert self._group is not None
        return self._group

    def _enter(self, group: SimulationGroup) -> None:
        """Make a simulation in a group, and learn its spaces."""
        simulation = group.create()
        if self._bounds is None:
            actions, states, _ = group.spaces(simulation)
            self._bounds = actions, states
        self._group, self._simulation = group, simulation

    def _leave(self) -> None:
        """Give up the group; the next reset makes a new one."""
        group, self._group = self._group, None
        self._begun = self._running = False
        if group is not None:
            group.release(self._simulation)

    def close(self) -> None:
        """Give the workers back. An environment that was closed opens again when it is reset."""
        self._leave()

    # --- episodes -----------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode.

        Parameters
        ----------
        seed : int, optional
            The same seed gives exactly the same episode, on as many workers. Without one, each episode has another
            seed, all of them determined by the last that was given.
        options : mapping, optional
            ``snapshot``: begin from this :class:`Snapshot`, with the step count at 0.

        Returns
        -------
        observation : ndarray
        info : dict
            ``seed``: what the simulation was given, unless it begins from a snapshot.
        """
        super().reset(seed=seed)
        snapshot = _snapshot_in(options)
        chosen = int(self.np_random.integers(MAX_SEED))
        self._begun = self._running = False
        observation = self._begin(chosen, snapshot)
        self._begun, self._running, self._steps = True, True, 0
        return observation, {"seed": chosen} if snapshot is None else {}

    def _begin(self, seed: int, snapshot: Snapshot | None) -> Array:
        """Reset the simulation; with ``on_failure="restart"`` try again, with new workers if the old ones are gone."""
        attempts = 1 + (self.settings.max_restarts if self.settings.on_failure == "restart" else 0)
        if self._group is not None and not self._group.alive:
            self._leave()
        while True:
            attempts -= 1
            try:
                with self._noting():
                    group = self._open() if self._failures == 0 else with_patience(self._open, PATIENCE_SECONDS)
                    group.free_dropped()
                    if snapshot is not None:
                        return self._observe(group.library["restore"](self._simulation, self._number_of(snapshot)))
                    return self._observe(group.library["reset"](self._simulation, seed))
            except AlchemistError as failure:
                if attempts <= 0 or not is_failure(failure):
                    raise

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
            Whether `max_episode_steps` are over, or the simulation has failed and begins anew.
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
        """
        group = self._group
        if not self._running or group is None or self._bounds is None:
            raise gymnasium.error.ResetNeeded(
                "the episode is over: call reset()" if self._steps else "call reset() before the first step()"
            )
        taken = self._bounds[0].admit("HPCSimulator.step", action)
        try:
            state, score, finished, info = group.step(self._simulation, taken)
            observation = self._observe(state)
        except AlchemistError as failure:
            return self._truncate(failure)
        self._steps += 1
        self._failures = 0
        truncated = self._steps == self.settings.max_episode_steps
        self._running = not (finished or truncated)
        return observation, score, finished, truncated, info

    def _observe(self, state: Array) -> Array:
        assert self._bounds is not None  # the simulation has been made
        if state.shape != self._bounds[1].low.shape:
            reason = f"has shape {state.shape}, not {self._bounds[1].low.shape}"
            raise StateMisfitError(f"{self.settings.lib_name}.step", reason)
        self._observation = np.array(state, self.settings.dtype)
        return self._observation

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Take note of failures on their way to the caller."""
        try:
            yield
        except AlchemistError as failure:
            if is_failure(failure):
                self._note(failure)
            raise

    def _note(self, failure: AlchemistError) -> None:
        """Take in that the simulation has failed, or the workers are gone."""
        self._failures += 1
        self._begun = self._running = False
        if self._group is not None and is_lost(failure, self._group):
            self._leave()

    def _truncate(self, failure: AlchemistError) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Return the step of an episode that a failure has ended, or raise it."""
        if not is_failure(failure):
            raise failure
        self._note(failure)
        if self.settings.on_failure != "restart" or self._failures > self.settings.max_restarts:
            raise failure
        info = {"simulator_restarted": True, "simulator_error": str(failure)}
        return self._observation.copy(), 0.0, False, True, info

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Keep the simulation's state; the workers hold it for as long as the handle is referred to.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If no episode has begun.
        ArgumentValueError
            If the library has no snapshots.
        """
        group = self._begun_group("snapshot")
        with self._noting():
            group.free_dropped()
            number = group.library["snapshot"](self._simulation)
        episode = EpisodeState(self._steps, self._running, dict(self.np_random.bit_generator.state))
        return Snapshot(group, number, episode)

    def _begun_group(self, what: str) -> SimulationGroup:
        if self._group is None or not self._begun:
            raise gymnasium.error.ResetNeeded(f"call reset() before {what}()")
        return self._group

    def restore(self, snapshot: Snapshot) -> tuple[Array, dict[str, Any]]:
        """Continue from a snapshot, bit for bit; return the observation and an info, as :meth:`reset` does.

        Raises
        ------
        ArgumentValueError
            If the snapshot is not one of this environment or its forks, or its workers are gone.
        """
        group, number = self._open(), self._number_of(snapshot)
        self._begun = self._running = False
        with self._noting():
            group.free_dropped()
            self._observe(group.library["restore"](self._simulation, number))
        self._steps, self._begun, self._running = snapshot.episode.steps, True, snapshot.episode.running
        self.np_random.bit_generator.state = snapshot.episode.random
        return self._observation, {}

    def _number_of(self, snapshot: Snapshot) -> int:
        if snapshot.group is not self._group:
            raise ArgumentValueError(
                "HPCSimulator.restore",
                f"{snapshot!r} is not in the memory of this environment's workers: a snapshot serves the environment "
                "that has taken it and its forks, as long as their workers live",
            )
        return snapshot.number

    def fork(self, n: int) -> list[Self]:
        """Return `n` environments that go on from this one's state, on the same workers.

        Each has a simulation of its own, and is closed by itself; the workers go with the last one. They continue
        exactly as this one does; the episodes that follow, after a reset without a seed, differ. Should the workers
        die, each asks for workers of its own when it is reset.

        Raises
        ------
        ArgumentValueError
            If `n` is less than 1, or the library has no snapshots.
        """
        if n < 1:
            raise ArgumentValueError("HPCSimulator.fork", f"n must be at least 1, not {n}")
        taken = self.snapshot()
        forks: list[Self] = []
        try:
            for generator in self.np_random.spawn(n):
                forks.append(self._fork(taken, generator))
        except BaseException:
            for fork in forks:
                fork.close()
            raise
        return forks

    def _fork(self, taken: Snapshot, generator: np.random.Generator) -> Self:
        fork = type(self).__new__(type(self))
        fork.__setstate__(self.__getstate__())
        fork._enter(taken.group)
        taken.group.users += 1
        try:
            fork.restore(taken)
        except BaseException:
            fork.close()
            raise
        fork.np_random = generator
        return fork

    # --- pictures, pickling -------------------------------------------------------------------------------------------

    def render(self) -> npt.NDArray[np.uint8] | None:  # type: ignore[override]  # one picture, no list
        """Return a picture of the present state, (height, width, 3); None without a render mode.

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
        if self._failures and not self._begun:  # wrappers draw each step, also the one that could not be done
            return np.full((1, 1, 3), 128, np.uint8) if self._picture is None else self._picture
        self._picture = to_rgb(self.field())
        return self._picture

    def field(self) -> dict[str, Any]:
        """Return the numbers of a picture: ``values`` (ny, nx), ``name, unit, low, high``; some ``extent`` and ``axes``."""
        group = self._begun_group("render")
        with self._noting():
            field: dict[str, Any] = group.library["get_field"](self._simulation)
        return field

    def __getstate__(self) -> dict[str, Any]:
        here = {"_group": None, "_simulation": 0, "_begun": False, "_running": False, "_steps": 0, "_failures": 0}
        spaces = {"action_space", "observation_space"}  # each has its own, as they can be seeded
        return {name: value for name, value in {**self.__dict__, **here}.items() if name not in spaces}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.lib_name} on {self.settings.num_workers} workers>"


def _snapshot_in(options: Mapping[str, Any] | None) -> Snapshot | None:
    """Return the snapshot that the options of a reset name."""
    for name in options or {}:
        if name != "snapshot":
            near = difflib.get_close_matches(str(name), ["snapshot"], 1)
            hint = f"did you mean {near[0]!r}?" if near else "there is 'snapshot'"
            raise ArgumentError("HPCSimulator.reset", f"unknown option {name!r}; {hint}")
    snapshot = (options or {}).get("snapshot")
    if snapshot is not None and not isinstance(snapshot, Snapshot):
        raise ArgumentError("HPCSimulator.reset", f"the option snapshot must be a Snapshot, not {snapshot!r}")
    return snapshot
