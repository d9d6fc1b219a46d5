"""The sessions that wait for workers: first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from alchemist_ray.errors import NotEnoughWorkersError
from alchemist_ray.mpi_backend.driver.inventory import Inventory, Placement
from alchemist_ray.mpi_backend.node.slots import Slot


@dataclass(eq=False)
class _Waiter:
    placement: Placement
    session_id: int
    granted: asyncio.Future[list[Slot]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class WaitingLine:
    """Gives the slots of an inventory to sessions in the order in which they ask.

    A session that wants more than the server's nodes have, free or not, holds nobody up: nodes may join, and until
    then those behind it are served. A session that waits for nodes with some labels keeps only those nodes from the
    sessions behind it.

    Parameters
    ----------
    inventory : Inventory
        The slots.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._waiters: deque[_Waiter] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    @contextlib.asynccontextmanager
    async def taken(self, placement: Placement, session_id: int, seconds: float) -> AsyncIterator[list[Slot]]:
        """Take slots for what the block starts; if the block fails in any way, they are given back.

        If the block succeeds, its caller calls :meth:`give_back` once what has started is gone.

        Parameters
        ----------
        placement : Placement
            Which slots.
        session_id : int
            The session that gets them.
        seconds : float
            How long it waits for them.

        Raises
        ------
        NotEnoughWorkersError
            If too few slots are free by then.
        """
        slots = await self._take(placement, session_id, seconds)
        try:  # nothing may stand between the line above and this one
            yield slots
        except BaseException:
            self.give_back(session_id)
            raise

    def give_back(self, session_id: int) -> None:
        """Take all slots of a session back, and give them to those who wait."""
        self._inventory.release(session_id)
        self.serve()

    async def _take(self, placement: Placement, session_id: int, seconds: float) -> list[Slot]:
        waiter = _Waiter(placement, session_id)
        self._waiters.append(waiter)
        try:
            self.serve()
            if not waiter.granted.done() and seconds > 0:
                # Unlike asyncio.timeout, this wait does not interrupt a grant that comes in the same moment.
                await asyncio.wait({waiter.granted}, timeout=seconds)
            if not waiter.granted.done():
                raise self._refusal(waiter, seconds)
            return waiter.granted.result()
        except BaseException:
            if waiter.granted.done():
                self.give_back(session_id)  # granted in the moment in which the session gave up
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self.serve()

    def serve(self) -> None:
        """Give slots to those who wait; to be called when slots have become free or nodes have joined."""
        kept: set[str] = set()  # nodes for which somebody waits who came earlier
        for waiter in list(self._waiters):
            if not self._inventory.could(waiter.placement):
                continue
            try:
                slots = self._inventory.take(waiter.placement, waiter.session_id, kept)
            except NotEnoughWorkersError:
                if not waiter.placement.labels:
                    return  # it waits for all nodes
                kept |= self._inventory.suitable(waiter.placement)
            else:
                self._waiters.remove(waiter)
                waiter.granted.set_result(slots)

    def _refusal(self, waiter: _Waiter, seconds: float) -> NotEnoughWorkersError:
        refusal = self._inventory.refusal(waiter.placement)
        ahead = self._ahead_of(waiter)
        if ahead:
            refusal.condition += f" (other sessions wait already: {ahead})"
        if seconds > 0:
            refusal.condition += f" with a wait of {seconds:g} s"
        return refusal

    def _ahead_of(self, waiter: _Waiter) -> int:
        """Return how many of those who came earlier wait for nodes that this one could use."""
        nodes = self._inventory.suitable(waiter.placement)
        earlier = itertools.takewhile(lambda other: other is not waiter, self._waiters)
        placements = [other.placement for other in earlier if self._inventory.could(other.placement)]
        return sum(not nodes.isdisjoint(self._inventory.suitable(placement)) for placement in placements)
