"""The Kuramoto-Sivashinsky equation with local actuators; see docs/simulations/kuramoto_sivashinsky.md."""

ENVIRONMENT = {"lib_name": "kuramoto_sivashinsky", "max_episode_steps": 400}
"""The gymnasium environment that the package registers for this simulation."""
