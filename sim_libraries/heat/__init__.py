"""The heat equation on a plate with actuators along its edges; see docs/simulations/heat.md."""

ENVIRONMENT = {"lib_name": "heat", "max_episode_steps": 40}
"""The gymnasium environment that the package registers for this simulation."""
