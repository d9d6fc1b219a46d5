"""Agents that are told to end remove what they have made, however often they are told."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from node_agents import Agents, starters_of
from tests_support import wait_until

from alchemist_ray.host.child_program import ChildProgram
from alchemist_ray.protocol.node_settings import NodeSettings

END_SECONDS = 10


@pytest.fixture
def agents():
    made = Agents()
    yield made
    made.close()


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Return the directory for temporary files of agents."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_an_agent_beside_a_driver_cleans_up_when_its_stdin_ends(agents, temporary):
    program = ChildProgram("alchemist_ray.mpi_backend.node.program", str(os.getpid()), "fork", "", "")
    try:
        address = agents.server.hostname, agents.server.port
        settings = NodeSettings(driver=address, token=agents.token, slots=1, name="child", labels={"kind": "child"})
        assert program.tell(settings.to_json(), 30) == {"joined": True}
        agents.session(1, "child")
        assert list(temporary.glob("alchemist-logs-*"))
        program.process.stdin.close()
        assert program.process.wait(END_SECONDS) == 0
        assert not list(temporary.iterdir())
    finally:
        program.stop(0)


def test_an_agent_that_is_told_to_end_again_and_again_cleans_up(agents, temporary):
    """One that ssh has started gets SIGHUP, and its stdin ends, and then comes the SIGTERM of an impatient user."""
    agent = agents.start("told", 1, "--until-stdin-ends", stdin=subprocess.PIPE)
    agents.session(1, "told")
    (starter,) = starters_of(agent.pid)
    os.kill(starter, signal.SIGSTOP)  # so that it takes a second to end the ranks
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
        agent.send_signal(number)
        time.sleep(0.1)
    agent.stdin.close()
    assert agent.wait(END_SECONDS) == 0
    assert not list(temporary.iterdir())
    assert wait_until(lambda: not os.path.exists(f"/proc/{starter}"))
