"""The driver: admits clients, owns the worker slots, starts and ends worker groups. It never touches matrix data.

The driver is an asyncio program with one connection to each session and one to each worker. The workers of a session
are an MPI job of their own (:class:`.WorkerGroup`), so a library that kills or blocks its ranks affects no other
session.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alchemist_ray._version import __version__
from alchemist_ray.errors import (
    AlchemistError,
    ArgumentValueError,
    AuthenticationError,
    GroupStartError,
    NoWorkersError,
    ProtocolError,
    ServerStartError,
)
from alchemist_ray.host.memory import physical_memory
from alchemist_ray.host.temporary_directories import make_log_dir
from alchemist_ray.mpi_backend.driver.group import GroupSettings, WorkerGroup
from alchemist_ray.mpi_backend.driver.inventory import Inventory
from alchemist_ray.mpi_backend.logs import tail
from alchemist_ray.mpi_backend.node.launchers import HydraLauncher, Launcher
from alchemist_ray.mpi_backend.node.slots import Slot
from alchemist_ray.mpi_backend.registry import Registry
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.server_options import ServerOptions
from alchemist_ray.transport.async_channel import AsyncChannel

log = logging.getLogger("alchemist")

RULE = "=" * 60
MAX_LOG_LINES = 10_000
"""A client gets at most this many lines of each log."""


@dataclass
class Session:
    """One client application."""

    session_id: int
    software: str
    channel: AsyncChannel
    opened: float = field(default_factory=time.time)
    group: WorkerGroup | None = None


class Driver:
    """A server.

    Parameters
    ----------
    options : ServerOptions
        The configuration.
    launcher : Launcher, optional
        Starts the worker groups; by default with Hydra on this machine.
    """

    def __init__(self, options: ServerOptions, launcher: Launcher | None = None) -> None:
        self.options = options
        self._worker_options = replace(
            options.for_workers(), data_directories=[os.path.abspath(path) for path in options.data_directories]
        )
        self._launcher = launcher or HydraLauncher()
        self._inventory = Inventory([(socket.gethostname(), options.num_workers)])
        self._registry = Registry(options.libraries, options.allow_library_paths)
        self._key = Key.of(options.token)
        self._sessions: dict[int, Session] = {}
        self._session_numbers = itertools.count(1)
        self._group_numbers = itertools.count(1)
        self._groups: dict[int, WorkerGroup] = {}
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._log_dir = Path()
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
        self._launcher.check()
        try:
            self._log_dir = Path(options.log_dir or make_log_dir())
            self._log_dir.mkdir(parents=True, exist_ok=True)
            self._server = await asyncio.start_server(self._connected, options.hostname, options.port)
        except OSError as failure:
            self._remove_temporary_logs()
            raise ServerStartError(f"{options.hostname}:{options.port}: {failure.strerror or failure}") from failure
        self.port = self._server.sockets[0].getsockname()[1]

    def announce(self) -> None:
        """Log that the server is ready, with its configuration."""
        options = self.options
        for line in (
            RULE,
            f"Starting Alchemist {__version__}",
            f"Running on {socket.gethostname()} {options.hostname}:{self.port}",
            f"{options.num_workers} workers, {self._memory() / 2**30:.1f} GiB for matrices each",
            f"Libraries: {', '.join(self._registry.names())}",
            f"Logs in {self._log_dir}",
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
        await asyncio.gather(*(group.end("the server is shutting down") for group in list(self._groups.values())))
        for client in list(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._remove_temporary_logs()
        log.info("Alchemist has stopped")

    def _remove_temporary_logs(self) -> None:
        if self.options.log_dir is None and self._log_dir != Path():
            shutil.rmtree(self._log_dir, ignore_errors=True)

    # --- connections --------------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
        channel = AsyncChannel(reader, writer, self._find_key)
        try:
            await self._serve(channel)
        except (AuthenticationError, ProtocolError) as refused:
            log.warning("Refused %s: %s", channel.peer, refused)
        except (OSError, EOFError, TimeoutError) as ended:
            log.debug("Connection to %s ended: %s", channel.peer, ended)
        except asyncio.CancelledError:
            log.debug("Connection to %s closed", channel.peer)
        finally:
            channel.close()

    def _find_key(self, hello: m.Hello) -> Key | None:
        if hello.purpose in (Purpose.SESSION, Purpose.MONITOR):
            return self._key
        group = self._groups.get(hello.group_id) if hello.purpose == Purpose.LINK else None
        return Key.of(group.ticket) if group else None

    async def _serve(self, channel: AsyncChannel) -> None:
        await channel.shake_hands()
        match channel.connection.purpose:
            case Purpose.SESSION:
                await self._serve_session(channel)
            case Purpose.MONITOR:
                await channel.welcome(self._facts())
                await self._answer_all(channel, None)
            case _:
                await channel.welcome({})
                group = self._groups.get(channel.group_id)
                if group is not None:
                    await group.serve_link(channel)

    def _facts(self) -> dict[str, Any]:
        return {"version": __version__, "host": socket.gethostname(), "pid": os.getpid()}

    async def _serve_session(self, channel: AsyncChannel) -> None:
        session = Session(next(self._session_numbers), channel.software, channel)
        self._sessions[session.session_id] = session
        log.info("Session %d opened from %s", session.session_id, channel.peer)
        try:
            await channel.welcome({**self._facts(), "session_id": session.session_id})
            await self._answer_all(channel, session)
        finally:
            del self._sessions[session.session_id]
            log.info("Session %d closed", session.session_id)
            if session.group is not None:
                await asyncio.shield(session.group.end("the session was closed"))

    async def _answer_all(self, channel: AsyncChannel, session: Session | None) -> None:
        """Answer requests until the client closes the connection, even if it does so during a slow request."""
        while True:
            request: Any = await channel.receive()
            answering = asyncio.ensure_future(self._answer(request, session))
            closed = asyncio.ensure_future(channel.wait_closed_or_readable())
            try:
                await asyncio.wait({answering, closed}, return_when=asyncio.FIRST_COMPLETED)
                if closed.done() and channel.at_eof and not answering.done():
                    answering.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await answering
                    return
                await channel.send(await answering)
            finally:
                closed.cancel()
                await asyncio.wait({closed})  # nothing else may read before it has ended

    async def _answer(self, request: Any, session: Session | None) -> m.Message:
        try:
            return m.Done(request.request, await self._result(request, session))
        except AlchemistError as error:
            return m.Failure.of(request.request, error)

    async def _result(self, request: m.Message, session: Session | None) -> Any:
        match request:
            case m.ListWorkers():
                return self._worker_rows()
            case m.ListLibraries():
                return await asyncio.to_thread(self._registry.rows)  # it reads files
            case m.AskStatus():
                return await self._status()
            case m.RequestWorkers(count=count) if session is not None:
                return await self._start_group(session, count)
            case m.YieldWorkers() if session is not None:
                await self._end_group(session, "the session gave its workers back")
            case m.AskLogs(lines=lines) if session is not None:
                return await asyncio.to_thread(self._logs, session, lines)
            case m.EndGroup(reason=reason) if session is not None:
                await self._end_group(session, reason, at_once=True)
        return None

    # --- worker groups ------------------------------------------------------------------------------------------------

    async def _start_group(self, session: Session, count: int) -> dict[str, Any]:
        if session.group is not None:
            held = len(session.group.slots)
            raise ArgumentValueError(
                "request_workers", f"the session already has {held} workers: call yield_workers() first"
            )
        group_id = next(self._group_numbers)
        slots = self._inventory.take(count, session.session_id)
        group = WorkerGroup(group_id, slots, self._group_settings(session))
        self._groups[group_id] = session.group = group
        log.info("Session %d: starting %s", session.session_id, ", ".join(slot.name for slot in slots))
        try:
            await group.start(self._launcher)
        except BaseException as failure:
            await asyncio.shield(group.end("it did not start"))
            self._forget(session, group)
            if isinstance(failure, GroupStartError):
                log.error("Session %d: %s", session.session_id, failure)
            raise
        watching = asyncio.ensure_future(self._watch(session, group))
        self._clients.add(watching)
        watching.add_done_callback(self._clients.discard)
        return {"group_id": group_id, "ticket": group.ticket, "workers": group.endpoints()}

    def _log_dir_of(self, session: Session) -> Path:
        return self._log_dir / f"session-{session.session_id:03d}"

    def _logs(self, session: Session, lines: int) -> dict[str, str]:
        logs = sorted(self._log_dir_of(session).glob("worker-*.log"))
        return {path.stem: tail(path, min(max(lines, 1), MAX_LOG_LINES)) for path in logs}

    def _memory(self) -> int:
        """Return the bytes that each worker has for matrices."""
        given = self.options.memory_per_worker
        return int(0.8 * physical_memory()) // self.options.num_workers if given is None else given

    def _group_settings(self, session: Session) -> GroupSettings:
        everywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - the owner's choice
        loopback = everywhere.get(self.options.hostname, self.options.hostname)
        log_dir = self._log_dir_of(session)
        log_dir.mkdir(parents=True, exist_ok=True)
        return GroupSettings(
            driver=(loopback, self.port),
            bind=self.options.hostname,
            advertise=self.options.advertise or self.options.hostname,
            memory=self._memory(),
            options=self._worker_options,
            log_dir=log_dir,
            threads=max(1, (os.cpu_count() or 1) // len(self._inventory.slots)),
        )

    async def _watch(self, session: Session, group: WorkerGroup) -> None:
        """Wait for the end of a group; tell the session if it did not ask for that end."""
        reason = await group.ended()
        self._forget(session, group)
        if group.end_was_asked_for:
            log.info("Session %d: workers ended", session.session_id)
            return
        log.error("Session %d lost its workers: %s", session.session_id, reason)
        if session.session_id in self._sessions:
            with contextlib.suppress(OSError):
                await session.channel.send(m.GroupDied(group.group_id, reason, group.last_words()))

    async def _end_group(self, session: Session, reason: str, at_once: bool = False) -> None:
        group = session.group
        if group is None:
            raise NoWorkersError
        await group.end(reason, at_once)
        self._forget(session, group)

    def _forget(self, session: Session, group: WorkerGroup) -> None:
        if session.group is group:
            session.group = None
        if self._groups.pop(group.group_id, None) is not None:
            self._inventory.release(session.session_id)

    # --- status -------------------------------------------------------------------------------------------------------

    def _worker_rows(self) -> list[dict[str, Any]]:
        return [self._worker_row(slot) for slot in self._inventory.slots]

    def _worker_row(self, slot: Slot) -> dict[str, Any]:
        holder = self._inventory.holder(slot)
        session = self._sessions.get(holder) if holder is not None else None
        endpoint = session.group.endpoint_of(slot) if session and session.group else None
        return {
            "id": slot.worker_id,
            "name": slot.name,
            "host": slot.host,
            "address": endpoint["address"] if endpoint else "",
            "port": endpoint["port"] if endpoint else None,
            "pid": endpoint["pid"] if endpoint else None,
            "session": holder,
            "state": "IDLE" if holder is None else "ACTIVE",
        }

    async def _status(self) -> dict[str, Any]:
        sessions = await asyncio.gather(*(_session_row(session) for session in list(self._sessions.values())))
        return {
            **self._facts(),
            "hostname": self.options.hostname,
            "port": self.port,
            "log_dir": str(self._log_dir),
            "workers": self._worker_rows(),
            "sessions": sessions,
        }


async def _session_row(session: Session) -> dict[str, Any]:
    return {
        "id": session.session_id,
        "software": session.software,
        "client": session.channel.peer,
        "age_seconds": time.time() - session.opened,
        "workers": await session.group.status() if session.group else [],
    }
