"""The picture of the README: the wake of a cylinder, free and stilled by turning the cylinder.

    python experiments/pictures/cylinder_wake.py            writes docs/pictures/cylinder_wake.gif

The controller is the proportional one of the library, so nothing is trained. To show a trained policy, give a
checkpoint of experiments/ppo_cylinder.yaml: ``--checkpoint results/ppo_cylinder/tune/training_000/checkpoint_...``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from alchemist_ray import HPCSimulator
from alchemist_ray.sim_libraries.cylinder_flow import controller
from alchemist_ray.training.evaluation import evaluate
from alchemist_ray.training.fields import write_animation
from alchemist_ray.training.policies import PolicyMaker, TrainedPolicy
from alchemist_ray.training.recording import Recording

TARGET = Path(__file__).parents[2] / "docs" / "pictures" / "cylinder_wake.gif"

ENVIRONMENT = {"lib_name": "cylinder_flow", "num_workers": 2, "params": {"length": 14.0}, "max_episode_steps": 200}
"""As in experiments/ppo_cylinder.yaml."""

SEED = 1001
FRAMES = 40
WIDTH = 480
MAX_BYTES = 950_000


def main() -> None:
    """Play the episode twice, and write the animation."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--checkpoint", type=Path, help="a trained policy instead of the proportional controller")
    arguments.add_argument("--target", type=Path, default=TARGET, help="the file to write (default: %(default)s)")
    given = arguments.parse_args()
    makers: dict[str, PolicyMaker] = {
        "no control": lambda environment, seed: lambda observation, step: still(environment)
    }
    if given.checkpoint is None:
        makers["opposition control"] = lambda environment, seed: controller.make(environment)
    else:
        makers["trained by PPO"] = TrainedPolicy.from_checkpoint(given.checkpoint).episode
    recordings = {name: Recording(FRAMES, WIDTH) for name in makers}
    environment = HPCSimulator(ENVIRONMENT, render_mode="rgb_array")
    try:
        for name, maker in makers.items():
            (episode,) = evaluate(environment, maker, [SEED], skip_steps=80, watch=recordings[name]).episodes
            print(f"{name}: mean drag coefficient after 20 D/U {episode.info['drag']:.3f}")
    finally:
        environment.close()
    given.target.parent.mkdir(parents=True, exist_ok=True)
    write_animation(given.target, recordings, frames=FRAMES, frames_per_second=10, max_bytes=MAX_BYTES)
    print(f"{given.target}: {given.target.stat().st_size:,} bytes")


def still(environment: HPCSimulator) -> object:
    """Return the action of a cylinder that does not turn."""
    return 0 * environment.action_space.sample()


if __name__ == "__main__":
    main()
