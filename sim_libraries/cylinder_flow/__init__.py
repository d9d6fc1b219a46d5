"""Flow past a cylinder in a channel, by lattice Boltzmann; see docs/simulations/cylinder_flow.md."""

from alchemist_ray.sim_libraries.cylinder_flow.simulation import CylinderFlow

__all__ = ["CylinderFlow"]
__version__ = "1.0"
