"""The heat equation on a plate with actuators along its edges: an MPI simulation. See :class:`Heat`."""

from alchemist_ray.sim_libraries.heat.simulator import Heat

__version__ = "1.0"

__all__ = ["Heat"]
