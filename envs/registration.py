"""Register the environments of installed packages with gymnasium: ``gymnasium.make("alchemist_ray/Heat-v0")``.

They are registered when :mod:`alchemist_ray.envs` is imported. Processes that have not imported it, such as Ray's,
call ``gymnasium.make("alchemist_ray.envs:alchemist_ray/Heat-v0")``.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import Any

from gymnasium.envs.registration import register, registry

ENTRY_POINTS = "alchemist_ray.environments"
"""Entry-point group under which a package registers environments over its simulations."""


def register_environments() -> None:
    """Register the environments of all installed packages with gymnasium.

    The name of an entry point is the name and version of the environment. Its value is a mapping with the keys of
    :class:`~.EnvSettings`, where ``max_episode_steps`` is gymnasium's limit. The namespace is the name of the package.
    An environment that is already registered stays as it is; one that does not load gives a warning.
    """
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        namespace = point.dist.name.replace("-", "_") if point.dist else "alchemist_ray"
        environment = f"{namespace}/{point.name}"
        if environment in registry:
            continue
        try:
            settings: dict[str, Any] = dict(point.load())
        except Exception as failure:  # noqa: BLE001 - the package of another author may raise anything
            warnings.warn(f"the environment {environment} does not load: {failure!r}", stacklevel=2)
            continue
        register(
            environment,
            entry_point="alchemist_ray.envs.hpc_simulator:HPCSimulator",
            vector_entry_point="alchemist_ray.envs.hpc_vector_env:HPCVectorEnv",
            max_episode_steps=settings.pop("max_episode_steps", None),
            kwargs=settings,
        )
