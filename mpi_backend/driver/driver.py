"""The driver: admits clients, knows the nodes and their slots, starts and ends worker groups. It has no matrix data.

The driver is an asyncio program with one connection to each session and one to each node agent. The workers of a
session are an MPI world of their own (:class:`.WorkerGroup`), so a library that kills or blocks its ranks affects no
other session.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import socket
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from alchemist_ray._version import __version__
from alchemist_ray.errors import (
    AuthenticationError,
    NodeError,
    ProtocolError,
    RemoteProtocolError,
    ServerStartError,
)
from alchemist_ray.host.temporary_directories import make_log_dir
from alchemist_ray.mpi_backend.driver.conversation import Conversation
from alchemist_ray.mpi_backend.driver.groups import Groups, to_its_end
from alchemist_ray.mpi_backend.driver.inventory import Inventory
from alchemist_ray.mpi_backend.driver.nodes import NodeConnection
from alchemist_ray.mpi_backend.driver.session import Session
from alchemist_ray.mpi_backend.driver.shared import Shared
from alchemist_ray.mpi_backend.driver.waiting import WaitingLine
from alchemist_ray.mpi_backend.node.slots import Slot
from alchemist_ray.mpi_backend.registry import Registry
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.server_options import SITE, ServerOptions
from alchemist_ray.transport.async_channel import AsyncChannel
from alchemist_ray.transport.channel import HANDSHAKE_SECONDS

log = logging.getLogger("alchemist")

RULE = "=" * 60
LOG_SECONDS = 10.0
"""Time for a node to send its logs."""
MAX_SLOTS = 10_000
"""Slots of a node at most."""
WATCH_SECONDS = 1.0
"""Time between two looks for nodes that have been silent for too long."""


class Driver:
    """A server.

    Parameters
    ----------
    options : ServerOptions
        The configuration.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._worker_options = replace(
            options.for_workers(), data_directories=[os.path.abspath(path) for path in options.data_directories]
        )
        self._nodes: dict[str, NodeConnection] = {}
        self._inventory = Inventory()
        self._line = WaitingLine(self._inventory)
        self._groups = Groups(self._inventory, self._line, self._nodes, self._keep)
        self._shared_status = Shared(self._status)
        self._registry = Registry(options.libraries, options.allow_library_paths)
        self._key = Key.of(options.token)
        self._sessions: dict[int, Session] = {}
        self._session_numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.log_dir = Path()
        self.port = 0

    # --- starting and stopping ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start to listen.

        Raises
        ------
        ServerStartError
            If the driver cannot listen at the address, or cannot write to the log directory.
        """
        options = self.options
        for directory in options.data_directories:
            if not os.path.isdir(directory):
                raise ServerStartError(f"the data directory {os.path.abspath(directory)} does not exist")
        try:
            self.log_dir = Path(options.log_dir or make_log_dir())
            self.log_dir.mkdir(parents=True, exist_ok=True)
            self._server = await asyncio.start_server(self._connected, options.hostname, options.port)
        except OSError as failure:
            self._remove_temporary_logs()
            raise ServerStartError(f"{options.hostname}:{options.port}: {failure.strerror or failure}") from failure
        self.port = self._server.sockets[0].getsockname()[1]
        self._keep(self._watch_nodes())

    def announce(self) -> None:
        """Log that the server is ready, with its configuration."""
        options = self.options
        for line in (
            RULE,
            f"Starting Alchemist {__version__}",
            f"Running on {socket.gethostname()} {options.hostname}:{self.port}",
            f"{len(self._inventory.slots)} workers on {len(self._nodes)} nodes",
            f"Libraries: {', '.join(self._registry.names())}",
            f"Logs in {self.log_dir}",
            "Alchemist is ready",
            RULE,
            "Accepting connections ...",
        ):
            log.info("%s", line)

    async def stop(self) -> None:
        """End all worker groups and close all connections."""
        log.info("Shutting down")
        if self._server is not None:
            self._server.close()
        await self._groups.end_all("the server is shutting down")
        for node in self._nodes.values():
            node.post(m.Shutdown())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._remove_temporary_logs()
        log.info("Alchemist has stopped")

    def _remove_temporary_logs(self) -> None:
        if self.options.log_dir is None and self.log_dir != Path():
            shutil.rmtree(self.log_dir, ignore_errors=True)

    # --- connections --------------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        channel = AsyncChannel.accepted(reader, writer, self._find_key)
        try:
            await self._serve(channel)
        except (AuthenticationError, ProtocolError) as refused:
            log.warning("Refused %s: %s", channel.peer, refused)
        except (OSError, EOFError, TimeoutError) as ended:
            log.debug("Connection to %s ended: %s", channel.peer, ended)
        except asyncio.CancelledError:
            log.debug("Connection to %s closed", channel.peer)
        except Exception:
            log.exception("The connection to %s is given up: the server failed", channel.peer)
        finally:
            channel.close()

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a task of the driver until it ends or the driver stops."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._kept)

    def _kept(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("The server failed", exc_info=failure)

    def _find_key(self, hello: m.Hello) -> Key | None:
        return self._key if hello.purpose in (Purpose.SESSION, Purpose.MONITOR, Purpose.NODE) else None

    async def _serve(self, channel: AsyncChannel) -> None:
        await channel.shake_hands()
        match channel.connection.purpose:
            case Purpose.SESSION:
                await self._serve_session(channel)
            case Purpose.MONITOR:
                await channel.welcome(self._facts())
                await Conversation(channel, lambda request: self._result(request, None)).hold()
            case _:
                await channel.welcome(self._facts())
                await self._serve_node(channel)

    def _facts(self) -> dict[str, Any]:
        return {"version": __version__, "host": socket.gethostname(), "pid": os.getpid()}

    async def _serve_node(self, channel: AsyncChannel) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            offer = await channel.receive()
        if not isinstance(offer, m.JoinServer):
            raise RemoteProtocolError(f"a {type(offer).__name__} instead of a JoinServer")
        try:
            self._admit(offer)
        except NodeError as refusal:
            log.warning("Refused node %s at %s: %s", offer.name, channel.peer, refusal)
            await channel.send(m.Failure.of(offer.request, refusal))
            return
        try:  # from here on the inventory has its slots
            node = self._nodes[offer.name] = NodeConnection(channel, offer)
            log.info("Node %s joined from %s: %d slots", node.name, channel.peer, node.slots)
            channel.post(m.Done(offer.request, self._worker_options.to_json()))
            self._line.serve()
            await node.serve()
        finally:
            self._nodes.pop(offer.name, None)
            self._inventory.remove(offer.name)
            self._line.serve()  # who waits for more slots than are left holds nobody up

    def _admit(self, offer: m.JoinServer) -> None:
        """Add the slots of a node to the inventory; raise NodeError if it cannot be used."""
        version = offer.facts.get("version")
        if version != __version__:
            raise NodeError(f"the node has version {version} of alchemist-ray, and the server {__version__}: install "
                            "the same on both")  # fmt: skip
        if not 1 <= offer.slots <= MAX_SLOTS:
            raise NodeError(f"the node offers {offer.slots} slots: give 1 to {MAX_SLOTS}")
        self._inventory.add(offer.name, offer.slots, offer.labels, offer.facts.get("mpi") == SITE)

    async def _watch_nodes(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for node in list(self._nodes.values()):
                node.check_alive()

    async def _serve_session(self, channel: AsyncChannel) -> None:
        session = Session(next(self._session_numbers), channel.software, channel)
        self._sessions[session.session_id] = session
        log.info("Session %d opened from %s", session.session_id, channel.peer)
        try:
            await channel.welcome({**self._facts(), "session_id": session.session_id})
            await Conversation(channel, lambda request: self._result(request, session)).hold()
        finally:
            del self._sessions[session.session_id]
            log.info("Session %d closed", session.session_id)
            if session.group is not None:
                await to_its_end(self._groups.end(session, "the session was closed"))

    async def _result(self, request: m.Message, session: Session | None) -> Any:
        match request:
            case m.ListWorkers():
                return self._worker_rows()
            case m.ListLibraries():
                return await asyncio.to_thread(self._registry.rows)  # it reads files
            case m.AskStatus():
                return await self._shared_status()
            case m.RequestWorkers() if session is not None:
                return await self._groups.start(session, request)
            case m.YieldWorkers() if session is not None:
                await self._groups.end(session, "the session gave its workers back")
            case m.AskLogs(lines=lines) if session is not None:
                return await self._logs(session, lines)
            case m.EndGroup(reason=reason) if session is not None:
                await self._groups.end(session, reason, at_once=True)
        return None

    async def _logs(self, session: Session, lines: int) -> dict[str, str]:
        """Return the logs of a session's workers, from all nodes on which it ever had some."""
        nodes = [node for name in session.nodes if (node := self._nodes.get(name)) is not None]
        found = await asyncio.gather(
            *(node.ask(lambda n: m.AskNodeLogs(n, session.session_id, lines), LOG_SECONDS) for node in nodes)
        )
        return dict(sorted((name, text) for of_node in found for name, text in of_node.items()))

    # --- status -------------------------------------------------------------------------------------------------------

    def _worker_rows(self) -> list[dict[str, Any]]:
        endpoints = self._groups.endpoints()
        return [self._worker_row(slot, endpoints.get(slot.worker_id)) for slot in self._inventory.slots]

    def _worker_row(self, slot: Slot, endpoint: dict[str, Any] | None) -> dict[str, Any]:
        holder = self._inventory.holder(slot)
        return {
            "id": slot.worker_id,
            "name": slot.name,
            "host": slot.node,
            "address": endpoint["address"] if endpoint else "",
            "port": endpoint["port"] if endpoint else None,
            "pid": endpoint["pid"] if endpoint else None,
            "session": holder,
            "state": "IDLE" if holder is None else "ACTIVE",
        }

    def _node_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "name": node.name,
                "slots": node.slots,
                "free": len(slots.free),
                "sessions": self._inventory.sessions_on(node.name),
                "labels": node.labels,
                **node.facts,
            }
            for node, slots in zip(self._nodes.values(), self._inventory.nodes(), strict=True)
        ]

    async def _status(self) -> dict[str, Any]:
        sessions = await asyncio.gather(*(session.to_row() for session in list(self._sessions.values())))
        return {
            **self._facts(),
            "hostname": self.options.hostname,
            "port": self.port,
            "log_dir": str(self.log_dir),
            "nodes": self._node_rows(),
            "workers": self._worker_rows(),
            "sessions": sessions,
            "waiting": len(self._line),
        }
