"""A harbour under long waves, distributed over ranks in two dimensions; see docs/simulations/shallow_water.md."""

ENVIRONMENT = {"lib_name": "shallow_water", "max_episode_steps": 200}
"""The gymnasium environment that the package registers for this simulation."""
