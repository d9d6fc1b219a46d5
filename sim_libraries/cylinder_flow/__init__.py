"""Flow past a cylinder in a channel, by lattice Boltzmann; see docs/simulations/cylinder_flow.md."""

ENVIRONMENT = {"lib_name": "cylinder_flow", "max_episode_steps": 200}
"""The gymnasium environment that the package registers for this simulation."""
