"""Controllers for the walk of tests/libraries/fragile.py."""

import numpy as np


def make_return(env, gain=1.0):
    """Go back to where it began, as fast as the actions allow."""
    low, high = env.action_space.low, env.action_space.high
    return lambda observation, step: np.clip(-gain * observation[:2], low, high)


SETTING = 3
