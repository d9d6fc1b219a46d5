"""The environment variable ``ALCHEMIST_SERVER``: the server of sessions that name none."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.client import local_server
from alchemist_ray.client.workers import server_in_environment


@pytest.fixture
def variable(server, monkeypatch, tmp_path):
    """Set the variable to the server of the tests, and its token by a file. A server of this process is a failure."""
    token = tmp_path / "token"
    token.write_text(server.token)
    token.chmod(0o600)
    monkeypatch.delenv("ALCHEMIST_TOKEN", raising=False)
    monkeypatch.setenv("ALCHEMIST_TOKEN_FILE", str(token))
    monkeypatch.setenv("ALCHEMIST_SERVER", f"{server.hostname}:{server.port}")
    monkeypatch.setattr(local_server, "_default", None)
    monkeypatch.setattr(local_server, "start_server", lambda *_: pytest.fail("it started a server"))


def test_a_session_without_a_name_uses_it(variable, server):
    with alchemist.AlchemistSession() as session:
        session.request_workers(2)
        assert session.name.endswith(f"@{server.hostname}:{server.port}")
        assert not session.shares_directory
        np.testing.assert_array_equal(np.asarray(session.send_matrix(np.eye(9))), np.eye(9))


def test_a_server_that_is_named_goes_first(variable, server, monkeypatch):
    monkeypatch.setenv("ALCHEMIST_SERVER", "192.0.2.1:1")
    with alchemist.AlchemistSession() as session:
        session.connect(port=server.port)
        session.connect(server.hostname, server.port)


def test_an_environment_uses_it(variable, server):
    from alchemist_ray.envs import HPCSimulator

    env = HPCSimulator(lib_name="heat", num_workers=1)
    env.reset(seed=1)
    with alchemist.AlchemistSession() as session:
        assert [row for row in session.server_status()["sessions"] if row["workers"]]
    env.close()


def test_a_routine_for_ray_uses_it(variable, server):
    """Also where Ray's own processes do not have the variable."""
    program = """
import json, os, sys
import numpy as np
address, file = os.environ.pop("ALCHEMIST_SERVER"), os.environ.pop("ALCHEMIST_TOKEN_FILE")
import ray
import alchemist_ray as alchemist
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
os.environ.update(ALCHEMIST_SERVER=address, ALCHEMIST_TOKEN_FILE=file)
for start in (lambda: alchemist.init(num_workers=2), lambda: alchemist.on_ray.sessions.default_session(2).actor):
    actor = start()
    print(json.dumps(ray.get(actor.call.remote("list_assigned_workers"))), flush=True)
    assert ray.get(alchemist.norm.remote(np.eye(4))) == 2.0
    alchemist.shutdown()
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    ).stdout.splitlines()
    with alchemist.AlchemistSession() as session:
        known = {row["id"] for row in session.list_all_workers()}
    assert len(printed) == 2
    for line in printed:
        rows = json.loads(line)
        assert len(rows) == 2
        assert {row["host"] for row in rows} == {os.uname().nodename}
        assert {row["id"] for row in rows} <= known


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "address"),
    [("h1:24960", ("h1", 24960)), ("[fd00::7]:1", ("fd00::7", 1)), ("fd00::7:1", ("fd00::7", 1)), ("", None)],
)
def test_addresses(monkeypatch, text, address):
    monkeypatch.setenv("ALCHEMIST_SERVER", text)
    assert server_in_environment() == address


@pytest.mark.quick
@pytest.mark.parametrize("text", ["h1", ":24960", "h1:", "h1:0", "h1:65536", "h1:port", "h1:²", "24960"])
def test_what_is_not_an_address_is_an_error_that_names_the_variable(monkeypatch, text):
    monkeypatch.setenv("ALCHEMIST_SERVER", text)
    with pytest.raises(errors.ArgumentValueError) as raised:
        server_in_environment()
    assert f"ALCHEMIST_SERVER is {text!r}, which is not a valid address: set it to HOST:PORT" in str(raised.value)
