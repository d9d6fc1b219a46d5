"""The environment of an experiment: in RLlib's processes, and for the evaluation.

What is in RLlib's configuration is written to files and has no token: that goes with the function that RLlib makes
environments by, which Ray keeps in memory.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium

from alchemist_ray.client.local_server import MIN_DEFAULT_WORKERS
from alchemist_ray.envs.registration import register_environments
from alchemist_ray.errors import ExperimentError
from alchemist_ray.training.schema import Experiment, ServerKeys
from alchemist_ray.transport.credentials import read_token

Config = dict[str, Any]

VECTOR_KEYS = ("num_envs", "num_groups", "workers_per_simulation")
"""What only a vector environment is told."""

NUM_WORKERS = "ALCHEMIST_NUM_WORKERS"
"""How many workers a server that a process starts for itself offers."""

_SETTINGS = ("num_workers", "on_failure", "max_restarts", "step_timeout", "reset_timeout", "dtype")


def env_config(experiment: Experiment) -> Config:
    """Return what :func:`make_environment` takes, but for the token.

    Raises
    ------
    ExperimentError
        If gymnasium does not know the environment; the nearest name is given.
    """
    environment, server = experiment.environment, experiment.server
    spec = _spec(experiment)
    steps = environment.max_episode_steps
    if spec is not None and steps is None:
        steps = spec.max_episode_steps
    if not environment.is_ours:
        return {"id": environment.id, "kwargs": dict(environment.kwargs), "max_episode_steps": steps}
    library = environment.lib_name if spec is None else spec.kwargs["lib_name"]
    where = {"hostname": server.hostname, "port": server.port}
    settings = {name: getattr(environment, name) for name in _SETTINGS}
    given = {"lib_name": library, "lib_path": environment.lib_path, "max_episode_steps": steps, **where, **settings}
    runners = experiment.runners
    if runners.vectorize == "hpc":
        given |= {"num_groups": runners.num_groups, "workers_per_simulation": runners.workers_per_simulation}
    present = {name: value for name, value in given.items() if value is not None}
    return {**present, "params": dict(environment.params)}


def _spec(experiment: Experiment) -> gymnasium.envs.registration.EnvSpec | None:
    name = experiment.environment.id
    if name is None:
        return None
    register_environments()
    module, _, name = name.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as unknown:
        near = difflib.get_close_matches(name, gymnasium.registry, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f": {unknown}"
        raise ExperimentError(
            experiment.name, [f"environment.id: gymnasium has no environment {name!r}{hint}"]
        ) from None


def workers_wanted(experiment: Experiment) -> int:
    """Return how many workers an experiment takes of each server that a process starts for itself; 0 if none does."""
    runners, environment = experiment.runners, experiment.environment
    if not experiment.server.embedded or not environment.is_ours:
        return 0
    groups = runners.num_groups if runners.vectorize == "hpc" else runners.num_envs_per_env_runner
    return environment.num_workers * (groups + 1)  # one more for an evaluation


def offer_workers(wanted: int) -> None:
    """Have the server that this process may start for itself offer as many workers at least."""
    offered = int(os.environ.get(NUM_WORKERS) or max(MIN_DEFAULT_WORKERS, os.cpu_count() or 1))
    if wanted > offered:
        os.environ[NUM_WORKERS] = str(wanted)


def server_token(server: ServerKeys) -> str | None:
    """Return the token that the experiment names; None if sessions are to look for it.

    Raises
    ------
    AuthenticationError
        If its file cannot be read, or others can read it.
    """
    return server.token if server.token_file is None else read_token(Path(server.token_file))


def make_environment(
    config: Mapping[str, Any], *, token: str | None = None, render: bool = False
) -> gymnasium.Env[Any, Any]:
    """Return one environment; with `render`, one that gives pictures."""
    mode = "rgb_array" if render else None
    if "lib_name" in config:
        from alchemist_ray.envs import HPCSimulator

        own = {name: value for name, value in config.items() if name not in VECTOR_KEYS}
        return HPCSimulator(own, token=token, render_mode=mode)
    return gymnasium.make(
        config["id"], max_episode_steps=config["max_episode_steps"], render_mode=mode, **config["kwargs"]
    )


def raising(config: Mapping[str, Any]) -> Config:
    """Return the configuration of an environment that raises when its simulation fails: an evaluation counts that."""
    return {**config, "on_failure": "raise"} if "lib_name" in config else dict(config)


def make_for_rllib(context: Mapping[str, Any], token: str | None = None, workers: int = 0) -> Any:
    """Return the environment, or if RLlib gives `num_envs` the vector environment, of one of its processes.

    If the process starts a server of its own for it, that offers at least as many workers as are said.
    """
    offer_workers(workers)
    if "num_envs" not in context:
        return make_environment(context, token=token)
    from alchemist_ray.envs import HPCVectorEnv

    return HPCVectorEnv(dict(context), token=token)
