"""The sessions that wait for workers: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
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
    then those behind it are served.

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

    async def take(self, placement: Placement, session_id: int, seconds: float) -> list[Slot]:
        """Give slots to a session, which waits up to so many seconds for them.

        Raises
        ------
        NotEnoughWorkersError
            If too few slots are free then.
        """
        waiter = _Waiter(placement, session_id)
        self._waiters.append(waiter)
        self.serve()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await waiter.granted
        except TimeoutError:
            raise self._refusal(waiter, seconds) from None
        except BaseException:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self._inventory.release(session_id)  # granted in the moment in which the session gave up
                self.serve()
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self.serve()

    def serve(self) -> None:
        """Give slots to those who wait; to be called when slots have become free or nodes have joined."""
        for waiter in list(self._waiters):
            if not self._inventory.could(waiter.placement):
                continue
            try:
                slots = self._inventory.take(waiter.placement, waiter.session_id)
            except NotEnoughWorkersError:
                return
            self._waiters.remove(waiter)
            if waiter.granted.done():
                self._inventory.release(waiter.session_id)  # it has just given up
            else:
                waiter.granted.set_result(slots)

    def _refusal(self, waiter: _Waiter, seconds: float) -> NotEnoughWorkersError:
        refusal = self._inventory.refusal(waiter.placement)
        ahead = self._waiters.index(waiter) if waiter in self._waiters else 0
        if ahead:
            refusal.condition += f" (other sessions wait already: {ahead})"
        if seconds > 0:
            refusal.condition += f" with a wait of {seconds:g} s"
        return refusal
