"""The driver's end of its node agents."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from alchemist_ray.errors import DeadlineError, NodeError, ProtocolError, RemoteProtocolError
from alchemist_ray.protocol import messages as m
from alchemist_ray.transport.async_channel import AsyncChannel

SILENCE_SECONDS = 8.0
"""A node that has sent no sign of life for so long is lost; it sends one every two seconds."""

log = logging.getLogger("alchemist")


class RanksOfNode(Protocol):
    """A worker group, as its nodes report to it."""

    def rank_ended(self, message: m.RankEnded, node: NodeConnection) -> None:
        """Note that a rank has ended, and nobody had asked for it."""

    def barrier_reached(self, values: dict[str, str], node: NodeConnection) -> None:
        """Note that all ranks of a node are in the barrier of their MPI world."""

    def node_lost(self, node: NodeConnection, reason: str) -> None:
        """Note that a node is gone, and its ranks with it."""

    def ranks_stopped(self, node: NodeConnection, ranks: list[int]) -> None:
        """Note which ranks of a node are stopped now."""


class NodeConnection:
    """One node, from when it joins until it leaves.

    Parameters
    ----------
    channel : AsyncChannel
        The connection that its agent has opened.
    offer : JoinServer
        What the agent has said of itself.
    """

    def __init__(self, channel: AsyncChannel, offer: m.JoinServer) -> None:
        self.name = offer.name
        self.slots = offer.slots
        self.labels: dict[str, str] = offer.labels
        self.facts = offer.facts
        self.groups: dict[int, RanksOfNode] = {}
        self.reason = ""
        self._channel = channel
        self._requests = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._heard = time.monotonic()

    @property
    def address(self) -> str:
        """The address at which clients and other nodes reach its ranks."""
        return str(self.facts.get("address", ""))

    @property
    def bound(self) -> str:
        """The address at which its ranks listen, and from which they reach other nodes; or a wildcard."""
        return str(self.facts.get("bound", ""))

    @property
    def host(self) -> str:
        """The name of its host."""
        return str(self.facts.get("host", self.name))

    # --- to the agent -------------------------------------------------------------------------------------------------

    async def ask(self, make: Callable[[int], m.Message], seconds: float) -> Any:
        """Send the request ``make(number)``; return the result of the answer.

        Raises
        ------
        NodeError
            If the node is gone, or leaves before it answers.
        DeadlineError
            If it does not answer in time.
        AlchemistError
            The error in its answer.
        """
        if self.reason:
            raise NodeError(self.reason)
        number = next(self._requests)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._channel.post(make(number))
        try:
            async with asyncio.timeout(seconds):
                reply = await answer
        except TimeoutError:
            raise DeadlineError(f"the answer of node {self.name}", seconds) from None
        finally:
            self._answers.pop(number, None)
        if isinstance(reply, m.Failure):
            raise reply.to_error()
        return reply.result

    def post(self, message: m.Message) -> None:
        """Send a message that has no answer."""
        self._channel.post(message)

    # --- from the agent -----------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Listen to the agent until it leaves or is lost."""
        try:
            while True:
                self._act_on(await self._channel.receive())
                self._heard = time.monotonic()
        except (OSError, EOFError) as gone:
            self.lose(f"node {self.name} has left ({gone})")
        except ProtocolError as broken:
            self.lose(f"node {self.name} broke the protocol: {broken}")
        except asyncio.CancelledError:
            self.lose("the server is shutting down")
            raise
        except Exception as failure:  # its groups must hear that nobody listens to it any more
            log.exception("A message of node %s could not be understood", self.name)
            self.lose(f"node {self.name} was given up: the server failed: {failure!r}")

    def _act_on(self, message: Any) -> None:
        match message:
            case m.Heartbeat():
                self._note_stopped(message.stopped)
            case m.Done() | m.Failure():
                waiting = self._answers.get(message.request)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case m.RankEnded() | m.EnterBarrier():
                group = self.groups.get(message.group_id)
                if group is None:
                    return  # it has just been ended
                if isinstance(message, m.RankEnded):
                    group.rank_ended(message, self)
                else:
                    group.barrier_reached(message.values, self)
            case _:
                raise RemoteProtocolError(f"a {type(message).__name__} from a node that has joined")

    def _note_stopped(self, stopped: list[Any]) -> None:
        by_group: dict[int, list[int]] = {}
        for group_id, rank in stopped:
            by_group.setdefault(group_id, []).append(rank)
        for group_id, group in self.groups.items():
            group.ranks_stopped(self, by_group.get(group_id, []))

    # --- its loss -----------------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Lose the node if it has been silent for too long."""
        silence = time.monotonic() - self._heard
        if silence > SILENCE_SECONDS and not self.reason:
            self.lose(f"node {self.name} ({self.address}) has not been heard of for {silence:.0f} s: the network or "
                      "its host failed, or its agent was stopped")  # fmt: skip

    def lose(self, reason: str) -> None:
        """Give up the node: its groups and those who wait for its answers learn why."""
        if self.reason:
            return
        self.reason = reason
        log.warning("%s%s", reason[0].upper(), reason[1:])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NodeError(reason))
        for group in list(self.groups.values()):
            group.node_lost(self, reason)
        self._channel.abort()
