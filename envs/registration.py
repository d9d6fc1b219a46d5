"""The simulations that come along, as gymnasium knows them: ``gymnasium.make("alchemist_ray/Heat-v0")``.

They are registered when :mod:`alchemist_ray.envs` is imported. Where nobody has, as in the processes of Ray,
``gymnasium.make("alchemist_ray.envs:alchemist_ray/Heat-v0")`` does.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

NAMESPACE = "alchemist_ray"

ENVIRONMENTS = {
    "Acoustics": ("acoustics", 200),
    "CylinderFlow": ("cylinder_flow", 200),
    "Heat": ("heat", 40),
    "KuramotoSivashinsky": ("kuramoto_sivashinsky", 400),
    "LammpsMD": ("lammps_md", 40),
    "ShallowWater": ("shallow_water", 200),
}
"""For each environment its library, and after how many steps an episode is truncated."""


def register_environments() -> None:
    """Register all environments with gymnasium; those that are registered stay as they are."""
    for name, (library, steps) in ENVIRONMENTS.items():
        environment = f"{NAMESPACE}/{name}-v0"
        if environment not in registry:
            register(
                environment,
                entry_point="alchemist_ray.envs.hpc_simulator:HPCSimulator",
                vector_entry_point="alchemist_ray.envs.hpc_vector_env:HPCVectorEnv",
                max_episode_steps=steps,
                kwargs={"lib_name": library},
            )
