"""Simulated node agents: ``nodes_agents.py HOST PORT COUNT SLOTS``, with the server's token on the first line of stdin.

The program opens the connections of so many agents to one driver, joins it with each, and sends their heartbeats. It
answers the orders of the driver without ranks: the ranks of a group have made-up addresses. When all agents have
joined, it prints the seconds that this took. It ends when stdin ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from typing import Any

from alchemist_ray._version import __version__
from alchemist_ray.errors import ServerUnreachableError
from alchemist_ray.mpi_backend.node.agent import HEARTBEAT_SECONDS, RETRY_SECONDS
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.transport.async_channel import AsyncChannel

FACTS = {"cores": 64, "memory": 2**38, "version": __version__, "pid": 1, "python": "3.11.0"}


class SimulatedAgent:
    """A node agent without ranks.

    Parameters
    ----------
    number, slots : int
        Its number, and the slots that it offers.
    """

    def __init__(self, number: int, slots: int) -> None:
        self.name = f"node{number:04d}"
        self.address = f"10.0.{number // 250}.{number % 250 + 1}"
        self._slots = slots

    async def join(self, driver: tuple[str, int], key: Key) -> AsyncChannel:
        """Join a driver; try again, as an agent does, until it can be reached."""
        while True:
            with contextlib.suppress(ServerUnreachableError):
                channel = await AsyncChannel.open(driver, Purpose.NODE, key)
                break
            await asyncio.sleep(RETRY_SECONDS)
        facts = {**FACTS, "address": self.address, "host": self.name}
        await channel.send(m.JoinServer(1, self.name, self._slots, {}, facts))
        answer: Any = await channel.receive()
        if isinstance(answer, m.Failure):
            raise answer.to_error()
        return channel

    async def serve(self, channel: AsyncChannel) -> None:
        """Answer the driver until it ends."""
        beating = asyncio.ensure_future(self._beat(channel))
        try:
            while True:
                message: Any = await channel.receive()
                if hasattr(message, "request"):
                    channel.post(m.Done(message.request, self._result(message)))
        except (OSError, EOFError):
            pass
        finally:
            beating.cancel()
            channel.close()

    async def _beat(self, channel: AsyncChannel) -> None:
        await asyncio.sleep(random.uniform(0, HEARTBEAT_SECONDS))
        while True:
            channel.post(m.Heartbeat())
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _result(self, message: Any) -> Any:
        if isinstance(message, m.StartRanks):
            ranks = range(message.first_rank, message.first_rank + len(message.worker_ids))
            return [dict(self._endpoint(rank).__dict__) for rank in ranks]
        return [] if isinstance(message, m.AskGroupStatus) else None

    def _endpoint(self, rank: int) -> m.WorkerReady:
        return m.WorkerReady(
            rank=rank,
            pid=10_000 + rank,
            host=self.name,
            address=self.address,
            port=20_000 + rank % 40_000,
            socket_name=f"alchemist-{rank:032x}",
            memory=2**32,
        )


async def main(hostname: str, port: int, token: str, count: int, slots: int) -> None:
    """Join with all agents, and serve until stdin ends."""
    agents = [SimulatedAgent(number, slots) for number in range(count)]
    key = Key.of(token)
    started = time.perf_counter()

    async def join_and_beat(agent: SimulatedAgent) -> asyncio.Task[None]:
        return asyncio.create_task(agent.serve(await agent.join((hostname, port), key)))

    serving = await asyncio.gather(*(join_and_beat(agent) for agent in agents))
    print(time.perf_counter() - started, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in serving:
        task.cancel()


if __name__ == "__main__":
    secret = sys.stdin.readline().strip()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), secret, int(sys.argv[3]), int(sys.argv[4])))
