"""The base of both environments: settings, spaces, pickling, and what happens in a forked process.

An environment keeps everything that belongs to one process (sessions, workers, the running episode) in one object,
its *live state*. A pickled copy and a forked child have a new one: they are new environments with the same settings.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium

from alchemist_ray.envs.settings import EnvSettings
from alchemist_ray.envs.spaces import Bounds, Component
from alchemist_ray.errors import ArgumentValueError


@dataclass
class LiveState:
    """The part of an environment that belongs to one process.

    Attributes
    ----------
    pid : int
        The process.
    parent : int or None
        In a forked child, until its first reset: the process that was forked.
    """

    pid: int = field(default_factory=os.getpid)
    parent: int | None = None


S = TypeVar("S", bound=EnvSettings)
L = TypeVar("L", bound=LiveState)


class SimulationEnvironment(ABC, Generic[S, L]):
    """What the environment of one simulation and that of many have in common.

    Attributes
    ----------
    settings : EnvSettings
        What the environment was told.
    render_mode : str or None
        What :meth:`render` returns.
    """

    render_modes: ClassVar[Sequence[str]] = ()
    settings: S
    render_mode: str | None
    _bounds: tuple[Bounds, Bounds] | None = None
    _live_state: L | None = None

    def _configure(
        self, kind: type[S], env_config: Mapping[str, Any] | None, render_mode: str | None, settings: Mapping[str, Any]
    ) -> None:
        """Check and keep what the constructor was given.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If a key is unknown or its value makes no sense.
        """
        given = {**kind.mapping(env_config), **settings}
        # in Python's words, which TorchRL looks for when it tries an argument that not every environment takes
        unexpected = "got an unexpected keyword argument"
        kind.check_names(type(self).__name__, unexpected, (name for name in settings if name != "render_mode"))
        configured = given.pop("render_mode", None)
        self.render_mode = configured if render_mode is None else render_mode
        if self.render_mode not in (None, *self.render_modes):
            modes = " or ".join(map(repr, (None, *self.render_modes)))
            raise ArgumentValueError("env_config", f"render_mode must be {modes}, not {self.render_mode!r}")
        self.settings = kind.of(given)

    # --- spaces -------------------------------------------------------------------------------------------------------

    def _known_bounds(self) -> tuple[Bounds, Bounds]:
        """Return the bounds of the actions and of the observations of one simulation; the first call opens workers."""
        if self._bounds is None:
            self._bounds = self._learn_bounds()
        return self._bounds

    @abstractmethod
    def _learn_bounds(self) -> tuple[Bounds, Bounds]:
        """Ask the workers for the bounds."""

    def _single_space(self, which: int) -> gymnasium.spaces.Box:
        """Return the space of the actions (0) or of the observations (1) of one simulation."""
        return self._known_bounds()[which].space(self.settings.dtype)

    @property
    def action_components(self) -> list[Component]:
        """The meaning of each number of an action: ``name, unit, low, high``."""
        return self._known_bounds()[0].components

    @property
    def observation_components(self) -> list[Component]:
        """The meaning of each number of an observation: ``name, unit, low, high``."""
        return self._known_bounds()[1].components

    # --- one process --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _new_live_state(self) -> L:
        """Return the live state of an environment that has not been used."""

    @property
    def _live(self) -> L:
        """The live state of this process.

        In a forked child the parent's is dropped without a word to its workers: the parent goes on with them.
        """
        live, pid = self._live_state, os.getpid()
        if live is None or live.pid != pid:
            parent = None if live is None else live.pid
            live = self._live_state = self._new_live_state()
            live.parent = parent
        return live

    def _reset_needed(self, text: str) -> gymnasium.error.ResetNeeded:
        """Return the error of a call that needs an episode."""
        parent = self._live.parent
        if parent is not None:
            text += f" (process {parent} was forked; its episode goes on there, and here the environment is a new one)"
        return gymnasium.error.ResetNeeded(text)

    def __getstate__(self) -> dict[str, Any]:
        here = {"_live_state", "closed"}
        spaces = {f"{single}{of}_space" for single in ("", "single_") for of in ("action", "observation")}
        return {name: value for name, value in self.__dict__.items() if name not in here | spaces}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.lib_name} on {self.settings.num_workers} workers>"
