"""Every environment that comes along, small and on two ranks: gymnasium's rules, snapshots, pictures."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, check_reset_seed_determinism, check_step_determinism
from stable_baselines3.common.env_checker import check_env as check_for_stable_baselines

from alchemist_ray import envs  # noqa: F401 - registers the environments

SMALL = {
    "Acoustics": {"nx": 60},
    "CylinderFlow": {"resolution": 20, "start_time": 1.0, "action_time": 0.05},
    "Heat": {"n": 32},
    "KuramotoSivashinsky": {"burn_in": 5.0},
    "LammpsMD": {"atoms": 256, "steps_per_action": 10, "melt_steps": 20, "actions": 200},
    "ShallowWater": {"nx": 64, "ny": 32},
}
STEPS = 100


def test_all_are_here():
    registered = {name for name in gymnasium.registry if name.startswith("alchemist_ray/")}
    assert registered == {f"alchemist_ray/{name}-v0" for name in SMALL}


@pytest.fixture(params=SMALL)
def env(request, env_config):
    name = f"alchemist_ray/{request.param}-v0"
    config = env_config(gymnasium.spec(name).kwargs["lib_name"], params=SMALL[request.param])
    made = gymnasium.make(name, render_mode="rgb_array", **config)
    yield made
    made.close()


def rollout(env, steps, seed):
    """Return what random actions, the same for the same seed, lead to."""
    env.action_space.seed(seed)
    return [env.step(env.action_space.sample()) for _ in range(steps)]


@pytest.mark.filterwarnings("ignore::UserWarning")  # that spaces are unbounded, or not symmetric
def test_an_environment_keeps_the_rules_and_its_snapshots_are_exact(env):
    check_env(env.unwrapped, skip_render_check=True)
    check_reset_seed_determinism(env.unwrapped)
    check_step_determinism(env.unwrapped)
    check_for_stable_baselines(env.unwrapped, warn=False)

    inner = env.unwrapped
    inner.reset(seed=11)
    rollout(inner, 3, 0)
    taken = inner.snapshot()
    first = rollout(inner, STEPS, 1)
    inner.restore(taken)
    for (state, *rest), (state2, *rest2) in zip(first, rollout(inner, STEPS, 1), strict=True):
        np.testing.assert_array_equal(state, state2)
        assert rest == rest2

    assert all(part.name and isinstance(part.unit, str) for part in inner.action_components)
    assert all(part.name for part in inner.observation_components)
    picture = inner.render()
    assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
    assert np.ptp(picture) > 0
