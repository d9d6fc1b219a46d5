"""A real driver with node agents and clients that speak the protocol and start no processes, all in one event loop."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from alchemist_ray._version import __version__
from alchemist_ray.mpi_backend.driver.driver import Driver
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.server_options import ServerOptions
from alchemist_ray.transport.async_channel import AsyncChannel

TOKEN = "the token of a test"
SECONDS = 10
"""Time for an answer that comes at once."""


class Peer:
    """One end of a connection to the driver."""

    def __init__(self, channel):
        self.channel = channel
        self.beats = 0
        self._numbers = iter(range(2, 1000))

    def post(self, kind, *fields):
        """Send a request and return its number."""
        number = next(self._numbers)
        self.channel.post(kind(number, *fields))
        return number

    async def hear(self):
        """Return the next message that is not a sign of life."""
        async with asyncio.timeout(SECONDS):
            while isinstance(message := await self.channel.receive(), m.Heartbeat):
                self.beats += 1
        return message

    async def ask(self, kind, *fields):
        """Return the result of a request, or raise its error."""
        number = self.post(kind, *fields)
        answer = await self.hear()
        assert answer.request == number
        if isinstance(answer, m.Failure):
            raise answer.to_error()
        return answer.result

    async def request(self, count, wait=0.0, placement="pack", labels=None):
        """Request workers."""
        return await self.ask(m.RequestWorkers, count, wait, placement, labels or {})


class Agent:
    """A node agent without ranks.

    It does not answer the order to start some if `starts` is false; if it answers, then with `rows` if these are given.
    """

    def __init__(self, channel, name):
        self.name = name
        self.channel = channel
        self.starts = True
        self.rows = None
        self.orders = []

    async def serve(self):
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while not isinstance(order := await self.channel.receive(), m.Shutdown):
                self.orders.append(type(order))
                if isinstance(order, m.StartRanks) and not self.starts:
                    continue
                self.channel.post(m.Done(order.request, self._result(order)))

    def _result(self, order):
        match order:
            case m.StartRanks():
                if self.rows is not None:
                    return self.rows
                ranks = range(order.first_rank, order.first_rank + len(order.slots))
                return [{"rank": rank, "pid": 1, "address": "127.0.0.1", "port": 1} for rank in ranks]
            case m.AskGroupStatus():
                return []
            case m.AskNodeLogs():
                return {f"worker-on-{self.name}": "text"}


class Server:
    """A driver in this event loop."""

    def __init__(self, driver):
        self.driver = driver
        self._opened = []
        self._serving = []

    async def open(self, purpose):
        address = ("127.0.0.1", self.driver.port)
        channel = await AsyncChannel.open(address, purpose, Key.of(TOKEN))
        self._opened.append(channel)
        return channel

    async def agent(self, name, slots):
        """Return an agent that has joined."""
        channel = await self.open(Purpose.NODE)
        await channel.send(m.JoinServer(1, name, slots, {}, {"version": __version__, "address": "127.0.0.1"}))
        assert isinstance(await channel.receive(), m.Done)
        agent = Agent(channel, name)
        self._serving.append(asyncio.ensure_future(agent.serve()))
        return agent

    async def client(self):
        return Peer(await self.open(Purpose.SESSION))

    async def status(self):
        return await Peer(await self.open(Purpose.MONITOR)).ask(m.AskStatus)

    async def until(self, condition):
        """Wait until ``condition(status)`` is true; return the status."""
        async with asyncio.timeout(SECONDS):
            while not condition(status := await self.status()):
                await asyncio.sleep(0.01)
        return status

    async def until_free(self, count):
        """Wait until so many slots are free, all that there are, and nobody waits."""

        def is_free(status):
            free = sum(node["free"] for node in status["nodes"])
            assert free == sum(row["session"] is None for row in status["workers"])
            return free == count and status["waiting"] == 0

        await self.until(is_free)

    async def close(self):
        for channel in self._opened:
            channel.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving)


@pytest.fixture
def with_server(tmp_path):
    """Return a function that runs a coroutine function of a server; no task is left after it."""

    async def run(scenario):
        driver = Driver(ServerOptions(num_workers=0, token=TOKEN, log_dir=str(tmp_path)))
        await driver.start()
        server = Server(driver)
        try:
            await scenario(server)
        finally:
            await server.close()
            await driver.stop()
        async with asyncio.timeout(SECONDS):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)

    return lambda scenario: asyncio.run(run(scenario))
