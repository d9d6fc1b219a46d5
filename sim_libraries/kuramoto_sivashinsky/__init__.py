"""The Kuramoto-Sivashinsky equation with local actuators: spatiotemporal chaos to be controlled."""

from alchemist_ray.sim_libraries.kuramoto_sivashinsky.simulation import KuramotoSivashinsky

__all__ = ["KuramotoSivashinsky"]
__version__ = "1.0"
