"""Agents and drivers that leave in the middle of a request to join, or do not answer it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import pytest

from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.server_options import WorkerOptions
from alchemist_ray.transport.async_channel import AsyncChannel

TOKEN = "a token of a test"
SECONDS = 40
"""Time for an agent to end."""


class OddDriver:
    """A driver that shakes hands with agents, and then does what it was told: one word for each connection.

    ``close``: it closes the connection when the agent asks to join. ``silence``: it does not answer. ``join``: it lets
    the agent join, and closes the connection. ``end``: it lets the agent join, and tells it that the server ends.
    The last word holds for all further connections.
    """

    def __init__(self, *words: str) -> None:
        self.words = list(words)
        self.asked = 0

    async def run(self, *options: str) -> tuple[int, str]:
        """Run an agent of this driver; return its exit status and what it has printed."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alchemist_ray.cli", "node", "--driver", f"127.0.0.1:{port}", "--slots", "1"),
            *options,
            env={**os.environ, "ALCHEMIST_TOKEN": TOKEN},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(agent.communicate(), SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                agent.kill()
            await agent.wait()
            server.close()
        return agent.returncode, said.decode()

    async def _connected(self, reader, writer):
        channel = AsyncChannel.accepted(reader, writer, lambda hello: Key.of(TOKEN))
        await channel.shake_hands()
        await channel.welcome({})
        request = await channel.receive()
        assert isinstance(request, m.JoinServer)
        self.asked += 1
        word = self.words[0] if len(self.words) == 1 else self.words.pop(0)
        if word in ("join", "end"):
            await channel.send(m.Done(request.request, WorkerOptions().to_json()))
        if word == "end":
            await channel.send(m.Shutdown())
        if word == "silence":
            with contextlib.suppress(EOFError, OSError):
                while True:
                    await channel.receive()
        channel.close()


@pytest.mark.parametrize("word", ["close", "silence"])
def test_a_driver_that_does_not_answer_is_an_error_after_the_wait(word):
    driver = OddDriver(word)
    status, said = asyncio.run(driver.run("--wait", "2"))
    assert status == 1
    assert "no Alchemist server answers at 127.0.0.1" in said
    assert "Traceback" not in said
    assert driver.asked >= (2 if word == "close" else 1)


def test_an_agent_asks_again_at_its_start_and_when_it_has_lost_the_driver():
    driver = OddDriver("close", "join", "close", "end")
    status, said = asyncio.run(driver.run("--wait", "20"))
    assert status == 0, said
    assert said.count("Joined the server") == 2
    assert driver.asked == 4


@pytest.mark.parametrize(("wait", "grace"), [("0", "20"), ("1", "20")])
def test_a_lost_driver_is_looked_for_as_long_as_the_ranks_may_go_on(wait, grace):
    """The driver refuses the agent for longer than its wait."""
    driver = OddDriver("join", *["close"] * 6, "end")
    status, said = asyncio.run(driver.run("--wait", wait, "--driver-grace", grace))
    assert status == 0, said
    assert driver.asked == 8


def test_without_wait_and_grace_a_lost_driver_is_not_looked_for():
    driver = OddDriver("join")
    status, said = asyncio.run(driver.run("--wait", "0"))
    assert status == 1
    assert "lost" in said
    assert driver.asked == 1
