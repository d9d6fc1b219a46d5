"""The environment of an experiment, in RLlib's processes and in the evaluation.

RLlib writes its configuration to files, so the token is not part of it. The function that makes the environments holds
the token; Ray keeps it in memory.
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
from alchemist_ray.training.schema import Experiment, RunnerKeys, ServerKeys
from alchemist_ray.transport.credentials import read_token

Config = dict[str, Any]

VECTOR_KEYS = ("num_envs", "num_groups", "workers_per_simulation")
"""Keys for vector environments only."""

NUM_WORKERS = "ALCHEMIST_NUM_WORKERS"
"""Environment variable with the number of workers of a server that a process starts for itself."""

_SETTINGS = (
    "num_workers", "cluster", "wait", "placement", "labels",
    "on_failure", "max_restarts", "step_timeout", "reset_timeout", "dtype",
)  # fmt: skip


def env_config(experiment: Experiment) -> Config:
    """Return the configuration for :func:`make_environment`, without the token.

    Raises
    ------
    ExperimentError
        If gymnasium does not know the environment; the text has the nearest name.
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
    """Return how many workers an experiment takes of each server that it starts; 0 if it starts none."""
    runners, environment = experiment.runners, experiment.environment
    if not experiment.server.embedded or not environment.is_ours or environment.cluster is not None:
        return 0
    return environment.num_workers * (_groups(runners) + 1)  # one more for an evaluation


def ranks_on_ray(experiment: Experiment) -> int:
    """Return how many ranks of a training take CPUs of Ray; 0 if they are elsewhere, or in a cluster that is there."""
    runners, environment = experiment.runners, experiment.environment
    if environment.cluster != "ray":
        return 0
    evaluating = 1 if experiment.evaluation.interval is not None else 0  # beside the training's own environments
    return environment.num_workers * (max(1, runners.num_env_runners) * _groups(runners) + evaluating)


def _groups(runners: RunnerKeys) -> int:
    """Return the number of worker groups of each process that samples."""
    return runners.num_groups if runners.vectorize == "hpc" else runners.num_envs_per_env_runner


def offer_workers(wanted: int) -> None:
    """Make sure that a server which this process starts for itself has at least as many workers."""
    offered = int(os.environ.get(NUM_WORKERS) or max(MIN_DEFAULT_WORKERS, os.cpu_count() or 1))
    if wanted > offered:
        os.environ[NUM_WORKERS] = str(wanted)


def server_token(server: ServerKeys) -> str | None:
    """Return the token that the experiment names; None if it names none, and sessions look for one.

    Raises
    ------
    AuthenticationError
        If its file cannot be read, or others can read it.
    """
    return server.token if server.token_file is None else read_token(Path(server.token_file))


def make_environment(
    config: Mapping[str, Any], *, token: str | None = None, render: bool = False
) -> gymnasium.Env[Any, Any]:
    """Return one environment; with `render` it gives pictures."""
    mode = "rgb_array" if render else None
    if "lib_name" in config:
        from alchemist_ray.envs import HPCSimulator

        own = {name: value for name, value in config.items() if name not in VECTOR_KEYS}
        return HPCSimulator(own, token=token, render_mode=mode)
    return gymnasium.make(
        config["id"], max_episode_steps=config["max_episode_steps"], render_mode=mode, **config["kwargs"]
    )


def raising(config: Mapping[str, Any]) -> Config:
    """Return the same configuration with failures raised instead of restarted: an evaluation counts failures."""
    return {**config, "on_failure": "raise"} if "lib_name" in config else dict(config)


def make_for_rllib(context: Mapping[str, Any], token: str | None = None, workers: int = 0) -> Any:
    """Return the environment of one of RLlib's processes; a vector environment if RLlib gives `num_envs`.

    A server that the process starts for it has at least `workers` workers.
    """
    offer_workers(workers)
    if "num_envs" not in context:
        return make_environment(context, token=token)
    from alchemist_ray.envs import HPCVectorEnv

    return HPCVectorEnv(dict(context), token=token)
