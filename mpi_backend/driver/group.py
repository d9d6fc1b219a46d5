"""The driver's view of a worker group: an MPI world whose ranks are on one or more nodes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from alchemist_ray.errors import AlchemistError, GroupStartError, LocalProtocolError, NodeError
from alchemist_ray.mpi_backend.driver.nodes import NodeConnection
from alchemist_ray.mpi_backend.node.slots import Slot
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol import pmi
from alchemist_ray.protocol.handshake import new_token

START_SECONDS = 70.0
"""Time for a node to start its ranks; the node itself gives up a little earlier, and knows more."""
SHUTDOWN_SECONDS = 2.0
"""Time for the ranks to end by themselves after they were told to."""
END_SECONDS = 5.0
"""Time for a node to end its ranks, after which it is lost."""
STATUS_SECONDS = 3.0
"""Time for a node to tell the status of its ranks."""

log = logging.getLogger("alchemist")


@dataclass(frozen=True)
class NodeShare:
    """The ranks of a group that are on one node.

    Attributes
    ----------
    node : NodeConnection
        The node.
    first_rank : int
        The first of them; those that follow are there too, one for each of `slots`.
    slots : sequence of Slot
        Their slots.
    """

    node: NodeConnection
    first_rank: int
    slots: Sequence[Slot]

    def order(self, request: int, group: WorkerGroup) -> m.StartRanks:
        """Return the order to start these ranks."""
        others = (share.node.address for share in group.shares if share is not self)
        return m.StartRanks(
            request,
            group_id=group.group_id,
            session_id=group.session_id,
            ticket=group.ticket,
            size=len(group.slots),
            first_rank=self.first_rank,
            worker_ids=[slot.worker_id for slot in self.slots],
            slots=[slot.index for slot in self.slots],
            world=group.world,
            mapping=group.mapping,
            peer=next(others, ""),
        )


class WorkerGroup:
    """The workers of one session.

    Parameters
    ----------
    group_id, session_id : int
        Number of the group and of its session on the server.
    slots : list of Slot
        The slot of each rank; those of one node stand together.
    nodes : mapping
        The nodes by name.
    notify : callable
        Sends a message to the session.

    Raises
    ------
    GroupStartError
        If MPI cannot be told which ranks share a node.
    """

    def __init__(
        self,
        group_id: int,
        session_id: int,
        slots: list[Slot],
        nodes: Mapping[str, NodeConnection],
        notify: Callable[[m.Message], None] = lambda message: None,
    ) -> None:
        self.group_id = group_id
        self.session_id = session_id
        self.slots = slots
        self.ticket = new_token()
        self.world = f"alchemist-{group_id}-{secrets.token_hex(8)}"  # MPICH names its shared memory after it
        self.shares = _shares(slots, nodes)
        self.mapping = _mapping(self.shares)
        self.end_was_asked_for = False
        self.endpoints: list[dict[str, Any]] = []
        self._notify = notify
        self._stopped: dict[str, list[int]] = {}  # by node
        self._loss = ""
        self._last_words = ""
        self._in_barrier: dict[str, dict[str, str]] = {}  # node -> the values that its ranks have published
        self._lost = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        for share in self.shares:
            share.node.groups[group_id] = self

    # --- life and death -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the ranks on all nodes, and wait until they are ready.

        Raises
        ------
        GroupStartError
            If a rank does not start, takes too long, or its node leaves meanwhile.
        """
        asked = [asyncio.ensure_future(self._start_on(share)) for share in self.shares]
        try:
            rows = await asyncio.gather(*asked)
        except GroupStartError:
            raise
        except AlchemistError as failure:
            raise GroupStartError(self._loss or str(failure)) from failure
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        self.endpoints = [
            {**row, "id": slot.worker_id} for slot, row in zip(self.slots, itertools.chain(*rows), strict=True)
        ]
        if self._loss:
            raise GroupStartError(self._loss, self._last_words)

    async def _start_on(self, share: NodeShare) -> list[dict[str, Any]]:
        """Start the ranks of one node; return where they are."""
        try:
            rows: list[dict[str, Any]] = await share.node.ask(partial(share.order, group=self), START_SECONDS)
        except GroupStartError as failure:
            raise GroupStartError(f"on {share.node.host}, {failure.reason}", failure.log) from failure
        return rows

    def last_words(self) -> str:
        """Return the end of the log of the first rank that was lost."""
        return self._last_words

    async def lost(self) -> str:
        """Wait until a rank is lost or the group has ended; return the reason."""
        await self._lost.wait()
        return self._loss

    async def end(self, reason: str, at_once: bool = False) -> None:
        """End the ranks: ask them to, and kill those that do not. With `at_once` they are not asked."""
        self.end_was_asked_for = True
        if self._ending is None:
            log.info("Ending group %d: %s", self.group_id, reason)
            self._ending = asyncio.ensure_future(self._end_everywhere(0.0 if at_once else SHUTDOWN_SECONDS))
        await asyncio.shield(self._ending)
        self._lost.set()

    async def _end_everywhere(self, seconds: float) -> None:
        await asyncio.gather(*(self._end_on(share.node, seconds) for share in self.shares))

    async def _end_on(self, node: NodeConnection, seconds: float) -> None:
        try:
            await node.ask(lambda n: m.EndRanks(n, self.group_id, seconds), seconds + END_SECONDS)
        except NodeError:  # it is gone, and ends its ranks by itself
            pass
        except AlchemistError as failure:
            node.lose(f"node {node.name} could not end its ranks: {failure}")
        except Exception as failure:  # the slots of the group are used again, so its ranks must not stay
            log.exception("The ranks of group %d on node %s could not be ended", self.group_id, node.name)
            node.lose(f"node {node.name} was not told to end its ranks: the server failed: {failure!r}")
        finally:
            node.groups.pop(self.group_id, None)

    # --- what the nodes report ----------------------------------------------------------------------------------------

    def rank_ended(self, message: m.RankEnded, node: NodeConnection) -> None:
        """Note that a rank has ended, and nobody had asked for it."""
        if 0 <= message.rank < len(self.slots):
            name = self.slots[message.rank].name
            process = f"process {message.pid} " if message.pid else ""
            reason = message.reason
            if message.silent_peer:
                reason = reason.replace(message.silent_peer, self._name_of(message.silent_peer), 1)
            self._lose(f"{name} (rank {message.rank}, {process}on {node.host}) {reason}", message.log)

    def _name_of(self, address: str) -> str:
        """Return the host name of the node with an address, and the address."""
        nodes = (share.node for share in self.shares)
        hosts = (node.host for node in nodes if address in (node.address, node.bound))
        host = next(hosts, "")
        return f"{host} ({address})" if host else address

    def node_lost(self, node: NodeConnection, reason: str) -> None:
        """Note that a node is gone, and its ranks with it."""
        ranks = [rank for share in self.shares if share.node is node for rank in _ranks(share)]
        self._lose(f"{reason}; rank {_text(ranks)} ran there", "")

    def _lose(self, loss: str, words: str) -> None:
        if self._loss or self.end_was_asked_for:
            return
        self._loss, self._last_words = loss, words
        log.error("%s", loss)
        self._lost.set()

    def ranks_stopped(self, node: NodeConnection, ranks: list[int]) -> None:
        """Note which ranks of a node are stopped now; tell the session what is new."""
        before = self._stopped.get(node.name, [])
        if ranks != before:
            self._stopped[node.name] = ranks
            word = "stopped" if ranks else "going on"
            log.warning("Session %d: rank %s on %s is %s", self.session_id, _text(ranks or before), node.host, word)
            self._notify(m.RanksStopped(self.group_id, sorted(itertools.chain(*self._stopped.values())), node.host))

    def barrier_reached(self, values: dict[str, str], node: NodeConnection) -> None:
        """Note that all ranks of a node are in the barrier; let them go on once all nodes are."""
        self._in_barrier[node.name] = values
        if len(self._in_barrier) < len(self.shares):
            return
        together = {key: value for each in self._in_barrier.values() for key, value in each.items()}
        self._in_barrier.clear()
        for share in self.shares:
            share.node.post(m.LeaveBarrier(self.group_id, together))

    # --- status -------------------------------------------------------------------------------------------------------

    async def status(self) -> list[dict[str, Any]]:
        """Return the status of every worker that answers in time, by rank."""
        rows = await asyncio.gather(*(self._status_on(share.node) for share in self.shares))
        return sorted(itertools.chain(*rows), key=lambda row: int(row["rank"]))

    async def _status_on(self, node: NodeConnection) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        with contextlib.suppress(AlchemistError):
            rows = await node.ask(lambda n: m.AskGroupStatus(n, self.group_id), STATUS_SECONDS)
        return rows


def _shares(slots: list[Slot], nodes: Mapping[str, NodeConnection]) -> list[NodeShare]:
    shares, rank = [], 0
    for name, group in itertools.groupby(slots, key=lambda slot: slot.node):
        of_node = list(group)
        shares.append(NodeShare(nodes[name], rank, of_node))
        rank += len(of_node)
    return shares


def _mapping(shares: list[NodeShare]) -> str:
    try:
        return pmi.process_mapping([len(share.slots) for share in shares])
    except LocalProtocolError as misfit:
        advice = "Request fewer workers, or use placement='spread', or give the nodes equal numbers of slots"
        raise GroupStartError(f"{misfit.reason}. {advice}") from misfit


def _text(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _ranks(share: NodeShare) -> range:
    return range(share.first_rank, share.first_rank + len(share.slots))
