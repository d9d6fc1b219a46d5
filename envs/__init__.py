"""Gymnasium environments over MPI simulations.

:class:`HPCSimulator` is one simulation, :class:`HPCVectorEnv` many at once. Importing this package registers the
environments of installed packages with gymnasium.
"""

from alchemist_ray.envs.hpc_simulator import HPCSimulator
from alchemist_ray.envs.hpc_vector_env import HPCVectorEnv
from alchemist_ray.envs.registration import register_environments
from alchemist_ray.envs.settings import EnvSettings
from alchemist_ray.envs.snapshot import Snapshot
from alchemist_ray.envs.spaces import Bounds, Component
from alchemist_ray.envs.vector_settings import VectorSettings

register_environments()

__all__ = ["Bounds", "Component", "EnvSettings", "HPCSimulator", "HPCVectorEnv", "Snapshot", "VectorSettings"]
