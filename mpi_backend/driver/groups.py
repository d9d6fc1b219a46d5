"""The worker groups of a server: each takes slots when it starts, and gives them back when it has ended.

Slots and group belong together. While a group starts, one block owns its slots (:meth:`.WaitingLine.taken`): whatever
fails in it, the ranks are ended first and the slots given back then. Once the group has started, a task watches it,
and :meth:`Groups.end` or the loss of a rank gives its slots back.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any

from alchemist_ray.errors import AlchemistError, ArgumentValueError, GroupStartError, NoWorkersError
from alchemist_ray.mpi_backend.driver.group import WorkerGroup
from alchemist_ray.mpi_backend.driver.inventory import Inventory, Placement
from alchemist_ray.mpi_backend.driver.nodes import NodeConnection
from alchemist_ray.mpi_backend.driver.session import Session
from alchemist_ray.mpi_backend.driver.waiting import WaitingLine
from alchemist_ray.mpi_backend.node.slots import Slot
from alchemist_ray.protocol import messages as m

log = logging.getLogger("alchemist")


class Groups:
    """The worker groups of all sessions.

    Parameters
    ----------
    inventory : Inventory
        The slots.
    line : WaitingLine
        Gives and takes them.
    nodes : mapping
        The nodes by name.
    keep : callable
        Runs a coroutine as a task of the driver.
    """

    def __init__(
        self,
        inventory: Inventory,
        line: WaitingLine,
        nodes: Mapping[str, NodeConnection],
        keep: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._inventory = inventory
        self._line = line
        self._nodes = nodes
        self._keep = keep
        self._numbers = itertools.count(1)
        self._groups: dict[int, WorkerGroup] = {}

    def __iter__(self) -> Iterator[WorkerGroup]:
        return iter(list(self._groups.values()))

    async def start(self, session: Session, request: m.RequestWorkers) -> dict[str, Any]:
        """Start a group for a session, which may have to wait for slots; return what the session must know of it.

        If this fails or is cancelled, no rank, no group and no taken slot is left.

        Raises
        ------
        ArgumentValueError
            If the session has a group, or the request makes no sense.
        NotEnoughWorkersError
            If too few slots are free in time.
        GroupStartError
            If the group does not start, for whatever reason. The reason is also in the log.
        """
        if session.group is not None:
            held = len(session.group.slots)
            raise ArgumentValueError(
                "request_workers", f"the session already has {held} workers: call yield_workers() first"
            )
        placement = Placement(request.count, request.placement, request.labels)
        async with (
            self._line.taken(placement, session.session_id, request.wait) as slots,
            _failures_are_told(session),
            self._registered(session, slots) as group,
        ):
            await group.start()
        self._keep(self._watch(session, group))
        return {"group_id": group.group_id, "ticket": group.ticket, "workers": group.endpoints}

    @contextlib.asynccontextmanager
    async def _registered(self, session: Session, slots: list[Slot]) -> AsyncIterator[WorkerGroup]:
        """Make the group of a session; if the block fails, end the group and forget it."""
        left = sorted({slot.node for slot in slots if not self._inventory.is_here(slot)})
        if left:
            raise GroupStartError(f"node {', '.join(left)} left the server before the workers could start there")
        group = WorkerGroup(next(self._numbers), session.session_id, slots, self._nodes, session.channel.post)
        self._groups[group.group_id] = session.group = group
        try:
            session.nodes |= {share.node.name for share in group.shares}
            log.info("Session %d: starting %s", session.session_id, ", ".join(slot.name for slot in slots))
            yield group
        except BaseException:
            await to_its_end(group.end("it did not start", at_once=True))
            session.group = None
            del self._groups[group.group_id]
            raise

    async def end(self, session: Session, reason: str, at_once: bool = False) -> None:
        """End the group of a session; with `at_once` its ranks are not asked to end by themselves.

        Raises
        ------
        NoWorkersError
            If the session has none.
        """
        group = session.group
        if group is None:
            raise NoWorkersError
        await group.end(reason, at_once)
        self._forget(session, group)

    async def _watch(self, session: Session, group: WorkerGroup) -> None:
        """Wait for the loss of a group; end the rest of it, and tell the session."""
        reason = await group.lost()
        if group.end_was_asked_for:
            return
        await group.end(reason, at_once=True)
        self._forget(session, group)
        log.error("Session %d lost its workers: %s", session.session_id, reason)
        session.channel.post(m.GroupDied(group.group_id, reason, group.last_words()))

    def _forget(self, session: Session, group: WorkerGroup) -> None:
        """Give back the slots of a group that has started and has ended."""
        if session.group is group:
            session.group = None
        if self._groups.pop(group.group_id, None) is not None:
            self._line.give_back(session.session_id)

    async def end_all(self, reason: str) -> None:
        """End all groups, those that are starting too."""
        await asyncio.gather(*(group.end(reason) for group in self))

    def endpoints(self) -> dict[int, dict[str, Any]]:
        """Return where the workers of all groups are, by number of the worker."""
        return {row["id"]: row for group in self for row in group.endpoints}


@contextlib.asynccontextmanager
async def _failures_are_told(session: Session) -> AsyncIterator[None]:
    """Log why a group does not start, and turn every failure into an error that the client understands."""
    try:
        yield
    except AlchemistError as failure:
        log.error("Session %d: %s", session.session_id, failure)
        raise
    except Exception as failure:
        log.exception("Session %d: its workers could not be started", session.session_id)
        reason = f"the server failed ({type(failure).__name__}: {failure}); its log says where"
        raise GroupStartError(reason) from failure


async def to_its_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, also if the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(coroutine)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()
