"""What an environment is told: the keys of `env_config`, checked by name and type before anything is started."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from alchemist_ray.errors import ArgumentError, ArgumentValueError

DTYPES = ("float32", "float64")
ON_FAILURE = ("raise", "restart")


@dataclass(frozen=True)
class EnvSettings:
    """What an environment is told.

    Attributes
    ----------
    lib_name : str
        Name of the simulation library on the server.
    lib_path : str, optional
        Module or path of a library that is not registered, where the server allows that.
    hostname, port, token : str, int, str, optional
        Of the server. Without `hostname` and `port` this process starts one of its own, which stops with it. Without
        `token` it is looked for (environment, or the file of a server on this machine).
    num_workers : int
        MPI ranks of the worker group.
    params : dict
        Parameters of the simulation, as the library's task ``create`` takes them.
    max_episode_steps : int, optional
        Steps after which an episode is truncated; by default never.
    on_failure : {"raise", "restart"}
        What to do when the simulation fails in the middle of an episode: raise the error; or begin anew, with new
        workers if the old ones are gone, and report the episode as truncated.
    max_restarts : int
        How often in a row that is done without a step that succeeds in between, before the error is raised after all.
    step_timeout, reset_timeout : float
        Seconds that a step, or the making and resetting of a simulation, may take.
    dtype : {"float32", "float64"}
        Of observations and actions.
    """

    lib_name: str
    lib_path: str | None = None
    hostname: str | None = None
    port: int | None = None
    token: str | None = field(default=None, repr=False)
    num_workers: int = 1
    params: Mapping[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    on_failure: str = "raise"
    max_restarts: int = 3
    step_timeout: float = 300.0
    reset_timeout: float = 1800.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, kinds, lowest in _TYPES:
            _check(name, getattr(self, name), kinds, lowest)
        for name, choices in (("on_failure", ON_FAILURE), ("dtype", DTYPES)):
            value = getattr(self, name)
            if value not in choices:
                raise ArgumentValueError(_WHERE, f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
        if not self.lib_name:
            raise ArgumentValueError(_WHERE, "lib_name is empty: name a simulation library, e.g. 'heat'")

    @classmethod
    def of(cls, env_config: Mapping[str, Any] | None, **settings: Any) -> Self:
        """Return the settings that `env_config` has, with `settings` over them.

        Raises
        ------
        ArgumentError
            If a key is unknown (the nearest one is named), a value is of the wrong type, or `lib_name` is missing.
        ArgumentValueError
            If a value is out of range.
        """
        given = {**(env_config or {}), **settings}
        known = [f.name for f in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
                raise ArgumentError(_WHERE, f"unknown key {name!r}; {hint}")
        if "lib_name" not in given:
            raise ArgumentError(_WHERE, "lib_name is missing: name a simulation library, e.g. 'heat'")
        return cls(**given)


_WHERE = "env_config"

LEAST_TIMEOUT = 1e-3

_TYPES: list[tuple[str, tuple[type, ...], Any]] = [
    ("lib_name", (str,), None),
    ("lib_path", (str, type(None)), None),
    ("hostname", (str, type(None)), None),
    ("port", (int, type(None)), 1),
    ("token", (str, type(None)), None),
    ("num_workers", (int,), 1),
    ("params", (Mapping,), None),
    ("max_episode_steps", (int, type(None)), 1),
    ("on_failure", (str,), None),
    ("max_restarts", (int,), 0),
    ("step_timeout", (int, float), LEAST_TIMEOUT),
    ("reset_timeout", (int, float), LEAST_TIMEOUT),
    ("dtype", (str,), None),
]
"""Each key with the types that it takes, and the least number."""


def _check(name: str, value: Any, kinds: tuple[type, ...], lowest: Any) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ArgumentError(_WHERE, f"{name} must be {wanted}, not {value!r} ({type(value).__name__})")
    if lowest is not None and value is not None and not value >= lowest:  # nor is NaN
        raise ArgumentValueError(_WHERE, f"{name} must be at least {lowest}, not {value!r}")
