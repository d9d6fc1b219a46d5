"""Gymnasium environments over MPI simulations.

:class:`HPCSimulator` is one simulation. Importing this package registers those that come along with gymnasium.
"""

from alchemist_ray.envs.hpc_simulator import HPCSimulator
from alchemist_ray.envs.registration import register_environments
from alchemist_ray.envs.settings import EnvSettings
from alchemist_ray.envs.snapshot import Snapshot
from alchemist_ray.envs.spaces import Bounds, Component

register_environments()

__all__ = ["Bounds", "Component", "EnvSettings", "HPCSimulator", "Snapshot"]
