"""The node agent: it offers a host's slots to a driver, and starts, watches and ends ranks there.

The agent connects to the driver. Nothing connects to the agent, except ranks that the site's own MPI has started. The
agent is an asyncio program. Its ranks are forks of a warm process (:mod:`.warm_process`), or the site's MPI starts them
(:mod:`.site_mpi`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from alchemist_ray._version import __version__
from alchemist_ray.errors import (
    AlchemistError,
    GroupStartError,
    NodeError,
    ProtocolError,
    ServerUnreachableError,
)
from alchemist_ray.host.cores import allowed_cores
from alchemist_ray.host.memory import physical_memory
from alchemist_ray.host.temporary_directories import make_log_dir, name_scratch, remove_stale
from alchemist_ray.mpi_backend.logs import tail
from alchemist_ray.mpi_backend.node.descriptors import allow_all_descriptors
from alchemist_ray.mpi_backend.node.local_group import LocalGroup, RankLauncher
from alchemist_ray.mpi_backend.node.node_address import NodeAddress
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.node_settings import NodeSettings
from alchemist_ray.protocol.server_options import MPI_LABEL, SITE, WorkerOptions
from alchemist_ray.protocol.worker_config import WorkerConfig
from alchemist_ray.transport.async_channel import AsyncChannel
from alchemist_ray.transport.channel import HANDSHAKE_SECONDS, describe_loss

HEARTBEAT_SECONDS = 2.0
"""Time between two signs of life."""
RETRY_SECONDS = 0.5
"""Time between two tries to reach the driver."""
MAX_LOG_LINES = 10_000
"""A client gets at most this many lines of each log."""

log = logging.getLogger("alchemist")


class NodeAgent:
    """A node agent.

    Parameters
    ----------
    settings : NodeSettings
        Its settings.
    launcher : RankLauncher
        Starts the ranks; the agent stops it.
    """

    def __init__(self, settings: NodeSettings, launcher: RankLauncher) -> None:
        self.settings = settings
        self._launcher = launcher
        remove_stale()
        self._log_dir = Path(settings.log_dir or make_log_dir())
        self._address = NodeAddress(settings.address, settings.bind)
        self._options = WorkerOptions()
        self._groups: dict[int, LocalGroup] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._channel: AsyncChannel | None = None

    async def run(self, on_joined: Callable[[], None] = lambda: None) -> None:
        """Serve the driver until it says that it ends; one that was lost is looked for again.

        Who cancels this ends the agent. It ends its ranks first, and nothing interrupts that.

        Parameters
        ----------
        on_joined : callable
            Called when the node has joined the server.

        Raises
        ------
        ServerUnreachableError
            If the driver cannot be reached, or was lost and has not come back.
        AuthenticationError, NodeError
            If the driver does not know the token, or refuses the node.
        """
        allow_all_descriptors()
        try:
            await self._enter()
            on_joined()
            while not await self._serve_until_lost():
                ending = asyncio.ensure_future(self._end_after(self.settings.driver_grace))
                try:
                    await self._enter_again()
                finally:
                    ending.cancel()
        finally:
            await _undisturbed(self._leave())

    async def _leave(self) -> None:
        """End the ranks, and remove what the agent has made."""
        if self._channel is not None:
            self._channel.close()
        await self._end_all()
        self._launcher.stop()
        if not self.settings.log_dir:
            shutil.rmtree(self._log_dir, ignore_errors=True)

    # --- the driver ---------------------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        """Connect to the driver and join it."""
        await self._try(self._connect_and_join, self.settings.wait, ServerUnreachableError)

    async def _enter_again(self) -> None:
        """Look for a driver that was lost, as long as ranks may go on without it, or longer.

        It may take a moment until it has noticed that the node was gone; until then it refuses a node of that name.
        """
        seconds = max(self.settings.wait, self.settings.driver_grace)
        await self._try(self._connect_and_join, seconds, ServerUnreachableError, NodeError)

    async def _try(self, act: Callable[[], Awaitable[None]], seconds: float, *expected: type[AlchemistError]) -> None:
        """Do something again and again for so many seconds, until it works; raise the last error if it does not."""
        deadline = time.monotonic() + seconds
        said = False
        while True:
            try:
                return await act()
            except expected as failure:
                if time.monotonic() >= deadline:
                    raise
                if not said:
                    log.info("%s. Trying for %g s", failure, seconds)
                    said = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect_and_join(self) -> None:
        settings = self.settings
        channel = await AsyncChannel.open(settings.driver, Purpose.NODE, Key.of(settings.token))
        try:
            await self._end_all()  # a driver knows nothing of the ranks that are left from before
            await self._join(channel)
        except BaseException:
            channel.close()
            raise
        self._channel = channel

    async def _join(self, channel: AsyncChannel) -> None:
        settings = self.settings
        self._address = NodeAddress.find(settings.address, settings.bind, channel.own_address)
        cores = allowed_cores()
        facts = {
            "cores": cores,
            "memory": physical_memory(),
            "address": self._address.advertised,
            "bound": self._address.bound,
            "host": socket.gethostname(),
            "version": __version__,
            "pid": os.getpid(),
            "python": sys.version.partition(" ")[0],
            "mpi": self._launcher.mpi,
        }
        labels = {**settings.labels, MPI_LABEL: SITE} if self._launcher.mpi == SITE else dict(settings.labels)
        answer = await self._ask(channel, m.JoinServer(1, settings.name, settings.slots, labels, facts))
        if isinstance(answer, m.Failure):
            raise answer.to_error()
        self._options = WorkerOptions.from_json(answer.result)
        for directory in self._options.data_directories:
            if not os.path.isdir(directory):
                raise NodeError(f"the server's data directory {directory} does not exist on node {settings.name}")
        log.info("Joined the server at %s:%d as %s: %d slots", *settings.driver, settings.name, settings.slots)
        if settings.slots > cores:
            log.info("The %d slots are more than the %d cores that this process may use", settings.slots, cores)

    async def _ask(self, channel: AsyncChannel, request: m.Message) -> Any:
        """Send a request to a driver that may end, or be stopped, just now; return its answer."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await channel.send(request)
                return await channel.receive()
        except TimeoutError:
            reason = f"it has not let the node join within {HANDSHAKE_SECONDS:g} s"
        except (OSError, EOFError) as lost:
            reason = describe_loss(lost)
        raise ServerUnreachableError(*self.settings.driver, reason)

    async def _serve_until_lost(self) -> bool:
        """Serve the driver; return True once it has said that it ends, False when it is lost."""
        channel = self._channel
        assert channel is not None  # the node has joined
        beating = asyncio.ensure_future(self._beat(channel))
        try:
            while not isinstance(message := await channel.receive(), m.Shutdown):
                self._act_on(message)
        except (OSError, EOFError, ProtocolError) as lost:
            log.warning("Lost the server at %s:%d (%s)", *self.settings.driver, lost)
            if max(self.settings.wait, self.settings.driver_grace) == 0:
                raise ServerUnreachableError(*self.settings.driver, f"lost: {lost}") from lost
            return False
        finally:
            beating.cancel()
            channel.close()
        log.info("The server has ended, and so does this node")
        return True

    async def _end_after(self, seconds: float) -> None:
        """End the ranks, which the driver can no longer end, after so many seconds."""
        await asyncio.sleep(seconds)
        await self._end_all()

    async def _beat(self, channel: AsyncChannel) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            groups = list(self._groups.items())
            stopped = [[number, rank] for number, group in groups for rank in group.stopped()]
            channel.post(m.Heartbeat(stopped))
            for _, group in groups:
                group.look_for_silence()

    def _report(self, message: m.Message) -> None:
        if self._channel is not None:
            self._channel.post(message)

    def _act_on(self, message: Any) -> None:
        match message:
            case m.LeaveBarrier():
                group = self._groups.get(message.group_id)
                if group is not None:
                    group.release(message.values)
            case _:
                task = asyncio.ensure_future(self._answer(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Any) -> None:
        try:
            answer: m.Message = m.Done(message.request, await self._result(message))
        except AlchemistError as failure:
            answer = m.Failure.of(message.request, failure)
        except Exception as failure:
            log.exception("A request of the driver failed")
            answer = m.Failure.of(message.request, NodeError(f"node {self.settings.name}: {failure!r}"))
        self._report(answer)

    async def _result(self, message: Any) -> Any:
        match message:
            case m.StartRanks():
                return await self._start_ranks(message)
            case m.EndRanks():
                group = self._groups.get(message.group_id)
                if group is not None:
                    await group.end(message.seconds)
                    self._groups.pop(message.group_id, None)
            case m.AskGroupStatus():
                group = self._groups.get(message.group_id)
                return await group.status() if group is not None else []
            case m.AskNodeLogs():
                return await asyncio.to_thread(self._logs, message.session_id, message.lines)
        return None

    # --- groups -------------------------------------------------------------------------------------------------------

    async def _start_ranks(self, order: m.StartRanks) -> list[dict[str, Any]]:
        try:
            environment = self._launcher.environment(self._address.interface_towards(order.peer) if order.peer else "")
        except OSError as failure:
            raise GroupStartError(f"it cannot talk to the group's node at {order.peer}: {failure}") from failure
        config = WorkerConfig(
            group_id=order.group_id,
            ticket=order.ticket,
            world=order.world,
            size=order.size,
            first_rank=order.first_rank,
            worker_ids=order.worker_ids,
            slots=order.slots,
            bind=self._address.bound,
            advertise=self._address.advertised,
            memory=self._memory(),
            threads=max(1, allowed_cores() // self._shares),
            environment=environment,
            options=self._options,
            log_dir=str(self._log_dir / f"session-{order.session_id:03d}"),
            scratch=str(name_scratch()),
        )
        processes = self._launcher.processes(config, order.mapping)
        group = self._groups[order.group_id] = LocalGroup(config, processes, self._report)
        return await group.start()

    def _memory(self) -> int:
        """Return the bytes that each rank has for matrices."""
        given = self._options.memory_per_worker
        return int(0.8 * physical_memory()) // self._shares if given is None else given

    @property
    def _shares(self) -> int:
        """In how many equal shares the node's memory and cores are divided. Each rank gets one share."""
        return max(self.settings.slots, self.settings.shares)

    def _logs(self, session_id: int, lines: int) -> dict[str, str]:
        logs = sorted((self._log_dir / f"session-{session_id:03d}").glob("worker-*.log"))
        return {path.stem: tail(path, min(max(lines, 1), MAX_LOG_LINES)) for path in logs}

    async def _end_all(self) -> None:
        await asyncio.gather(*(group.end(0) for group in self._groups.values()))
        self._groups.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Do something to its end, also if this task is cancelled meanwhile, as by a second Ctrl-C."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()
