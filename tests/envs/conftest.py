"""What the tests of environments share: a server with simulations to test with."""

from __future__ import annotations

import pytest
from conftest import LIBRARIES

import alchemist_ray as alchemist
from alchemist_ray.envs import HPCVectorEnv

SIMULATIONS = ("fragile", "half_simulator", "nothing", "odd_values", "ring", "walks")


@pytest.fixture(scope="session")
def env_server():
    with alchemist.start_server(
        num_workers=8, memory_per_worker=2**26, libraries={name: str(LIBRARIES / f"{name}.py") for name in SIMULATIONS}
    ) as running:
        yield running


@pytest.fixture(scope="session")
def env_config(env_server):
    """Return a function that makes an `env_config` for the server."""

    def make(lib_name="fragile", **settings):
        address = {"hostname": env_server.hostname, "port": env_server.port, "token": env_server.token}
        return {**address, "lib_name": lib_name, "num_workers": 2, **settings}

    return make


@pytest.fixture
def make_env(env_config):
    """Return a function that makes environments, which are closed after the test."""
    made = []

    def make(lib_name="fragile", **settings):
        made.append(alchemist.HPCSimulator(env_config(lib_name, **settings)))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture
def make_envs(env_config):
    """Return a function that makes vector environments, which are closed after the test."""
    made = []

    def make(num_envs=4, lib_name="walks", **settings):
        made.append(HPCVectorEnv(env_config(lib_name, **settings), num_envs=num_envs))
        return made[-1]

    yield make
    for envs in made:
        envs.close()
