"""The keys of `env_config`, checked by name and type before anything is started."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.on_ray.cluster_options import NAME
from alchemist_ray.protocol.messages import PLACEMENTS

DTYPES = ("float32", "float64")
ON_FAILURE = ("raise", "restart")
CLUSTER = re.compile(rf"^ray(:{NAME})?$")
"""The values of `cluster`: workers of the environment's own on Ray, or those of a named cluster."""


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
        Of the server. Without `hostname` and `port` this process starts its own server, which stops with it. Without
        `token` it is looked up (environment variables, or the file of a server on this machine).
    num_workers : int
        MPI ranks of the worker group.
    cluster : {None, "ray", "ray:NAME"}
        ``"ray"``: run the workers on the nodes of this process's Ray cluster. The environment always reserves workers
        of its own, which take one CPU each until it is closed. ``"ray:NAME"``: take free workers of the cluster that
        ``alchemist_ray.init(cluster_name=NAME, ...)`` has started, in this Ray job or another; they take no more CPUs.
    wait : float, optional
        Seconds to wait for workers that others hold, or, with ``"ray"``, for Ray's CPUs. By default 0, and 120 for
        Ray's CPUs, since nodes may have to be started.
    placement, labels : str, dict
        On which nodes the workers are to be: see :meth:`~alchemist_ray.AlchemistSession.request_workers`.
    params : dict
        Parameters of the simulation, as the library's task ``create`` takes them.
    max_episode_steps : int, optional
        Steps after which an episode is truncated; by default never.
    on_failure : {"raise", "restart"}
        What to do when the simulation fails in the middle of an episode: raise the error; or report the episode as
        truncated and begin another one, with new workers if the old ones are gone.
    max_restarts : int
        How many failures in a row are restarted, without a step that succeeds between them, before the error is raised.
    step_timeout, reset_timeout : float
        Seconds that a step may take; seconds that making or resetting a simulation may take.
    dtype : {"float32", "float64"}
        Of observations and actions.
    """

    lib_name: str
    lib_path: str | None = None
    hostname: str | None = None
    port: int | None = None
    token: str | None = field(default=None, repr=False)
    num_workers: int = 1
    cluster: str | None = None
    wait: float | None = None
    placement: str = "pack"
    labels: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    on_failure: str = "raise"
    max_restarts: int = 3
    step_timeout: float = 300.0
    reset_timeout: float = 1800.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, kinds, lowest in _TYPES:
            check_key(name, getattr(self, name), kinds, lowest)
        for name, choices in (
            ("on_failure", ON_FAILURE),
            ("dtype", DTYPES),
            ("placement", PLACEMENTS),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ArgumentValueError(_WHERE, f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
        for name in ("lib_name", "lib_path", "hostname", "token"):
            if getattr(self, name) == "":
                raise ArgumentValueError(_WHERE, f"{name} is empty: {_INSTEAD_OF_EMPTY[name]}")
        if self.port is not None and self.port > MAX_PORT:
            raise ArgumentValueError(_WHERE, f"port must be at most {MAX_PORT}, not {self.port}")
        if self.cluster is not None and not CLUSTER.fullmatch(self.cluster):
            raise ArgumentValueError(_WHERE, f"cluster must be None or 'ray' or 'ray:NAME', not {self.cluster!r}")
        if self.cluster is not None and (self.hostname is not None or self.port is not None):
            raise ArgumentValueError(_WHERE, "give a server (hostname, port) or a cluster that starts one, not both")
        if not all(isinstance(text, str) for pair in self.labels.items() for text in pair):
            raise ArgumentError(_WHERE, f"labels must be a mapping of str to str, not {self.labels!r}")
        for name in self.params:
            if not isinstance(name, str):
                raise ArgumentError(_WHERE, f"the names in params must be str, not {name!r} ({type(name).__name__})")

    @staticmethod
    def mapping(env_config: Any) -> dict[str, Any]:
        """Return the keys of an `env_config`; None has none.

        Raises
        ------
        ArgumentError
            If it is not a mapping.
        """
        if env_config is None:
            return {}
        if not isinstance(env_config, Mapping):
            raise ArgumentError(
                _WHERE, f"env_config must be a mapping of keys, not {env_config!r} ({type(env_config).__name__})"
            )
        return dict(env_config)

    @classmethod
    def check_names(cls, where: str, what: str, given: Iterable[Any]) -> None:
        """Raise ArgumentError if a name is not a key; the nearest key is named."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
                raise ArgumentError(where, f"{what} {name!r}; {hint}")

    @classmethod
    def of(cls, env_config: Mapping[str, Any] | None, **settings: Any) -> Self:
        """Return the settings in `env_config`, with `settings` over them.

        Raises
        ------
        ArgumentError
            If a key is unknown (the nearest one is named), a value is of the wrong type, or `lib_name` is missing.
        ArgumentValueError
            If a value is out of range.
        """
        given = {**cls.mapping(env_config), **settings}
        cls.check_names(_WHERE, "unknown key", given)
        if "lib_name" not in given:
            raise ArgumentError(_WHERE, "lib_name is missing: name a simulation library, e.g. 'heat'")
        return cls(**given)


_WHERE = "env_config"

_INSTEAD_OF_EMPTY = {
    "lib_name": "name a simulation library, e.g. 'heat'",
    "lib_path": "omit it for a library that the server has registered",
    "hostname": "name the host of the server, or omit it for this machine",
    "token": "omit it, so that it is looked up",
}

LEAST_TIMEOUT = 1e-3
MAX_PORT = 65535

_TYPES: list[tuple[str, tuple[type, ...], Any]] = [
    ("lib_name", (str,), None),
    ("lib_path", (str, type(None)), None),
    ("hostname", (str, type(None)), None),
    ("port", (int, type(None)), 1),
    ("token", (str, type(None)), None),
    ("num_workers", (int,), 1),
    ("cluster", (str, type(None)), None),
    ("wait", (int, float, type(None)), 0),
    ("placement", (str,), None),
    ("labels", (Mapping,), None),
    ("params", (Mapping,), None),
    ("max_episode_steps", (int, type(None)), 1),
    ("on_failure", (str,), None),
    ("max_restarts", (int,), 0),
    ("step_timeout", (int, float), LEAST_TIMEOUT),
    ("reset_timeout", (int, float), LEAST_TIMEOUT),
    ("dtype", (str,), None),
]
"""Each key, the types that it takes, and the least number."""


def check_key(name: str, value: Any, kinds: tuple[type, ...], lowest: Any) -> None:
    """Check the type of a value and the least number.

    Raises
    ------
    ArgumentError, ArgumentValueError
        If the value is of another type, or less than `lowest`.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ArgumentError(_WHERE, f"{name} must be {wanted}, not {value!r} ({type(value).__name__})")
    if lowest is not None and value is not None and not value >= lowest:  # NaN is not either
        raise ArgumentValueError(_WHERE, f"{name} must be at least {lowest}, not {value!r}")
