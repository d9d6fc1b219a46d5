"""The ranks of one group on this node, as the node agent sees them.

How their processes start and end is the matter of a :class:`RankProcesses`: ranks are forks of a warm process
(:mod:`.forked_ranks`), or the site's own MPI starts them (:mod:`.site_mpi`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from alchemist_ray.errors import GroupStartError, ProtocolError
from alchemist_ray.mpi_backend.logs import tail
from alchemist_ray.mpi_backend.node.process_state import is_stopped
from alchemist_ray.mpi_backend.node.silent_peers import silent_peers
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.worker_config import WorkerConfig
from alchemist_ray.transport.async_channel import AsyncChannel

START_SECONDS = 60.0
"""Time for the ranks to start."""
STATUS_SECONDS = 2.0
"""Time for a rank to send its status."""
GONE_SECONDS = 1.5
"""Time for processes that were killed to be gone. The driver gives up a node that needs 5 s to end a group."""
LAST_WORDS = 30
"""Lines of the log of a rank that has ended."""

log = logging.getLogger("alchemist")


@dataclass
class LocalRank:
    """One rank: its process, and its link to this agent.

    Attributes
    ----------
    rank : int
        The rank.
    pid : int
        Its process on this host; 0 as long as it is not known, or on another host.
    link : AsyncChannel or None
        The link, once there is one.
    ready : WorkerReady or None
        What it has said of itself.
    has_ended : bool
        Whether its process is known to have ended.
    answers : dict
        Those who wait for its answers, by request.
    """

    rank: int
    pid: int = 0
    link: AsyncChannel | None = None
    ready: m.WorkerReady | None = None
    has_ended: bool = False
    answers: dict[int, asyncio.Future[Any]] = field(default_factory=dict)


class RankProcesses(Protocol):
    """The processes of a group's ranks. It reports to its group what becomes of them."""

    async def start(self, group: LocalGroup) -> None:
        """Start them. Raise OSError if that fails."""

    def release(self, values: Mapping[str, str]) -> None:
        """Let the ranks leave the barrier of their MPI world, which have published these values."""

    def link_lost(self, rank: LocalRank) -> None:
        """Note that the link to a rank has ended."""

    async def kill(self) -> None:
        """End all of them now, within a few seconds. The group hears it when they are gone."""

    def last_words(self) -> str:
        """Return what the program that starts them has said; empty if nothing."""


class RankLauncher(Protocol):
    """What starts the ranks of this node's groups."""

    mpi: str

    def environment(self, interface: str) -> dict[str, str]:
        """Return environment variables for the ranks of a group.

        Parameters
        ----------
        interface : str
            Name of the network interface for messages between hosts; empty: the group is on this host only.
        """

    def processes(self, config: WorkerConfig, mapping: str) -> RankProcesses:
        """Return the processes of a new group; `mapping` is that of :class:`.pmi.World`."""

    def stop(self) -> None:
        """End what it needs itself."""


class LocalGroup:
    """The ranks of a group on this node.

    Parameters
    ----------
    config : WorkerConfig
        The configuration of the ranks.
    processes : RankProcesses
        Their processes.
    report : callable
        Sends a message to the driver.
    """

    def __init__(self, config: WorkerConfig, processes: RankProcesses, report: Callable[[m.Message], None]) -> None:
        self.config = config
        self.ranks = {rank: LocalRank(rank) for rank in config.local_ranks}
        self.is_ending = False
        self._processes = processes
        self._report = report
        self._gone = asyncio.Event()
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # all are ready, or one failed
        self._is_blamed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = itertools.count(1)

    # --- starting -----------------------------------------------------------------------------------------------------

    async def start(self) -> list[dict[str, Any]]:
        """Start the ranks; return their addresses, by rank, once all of them are ready.

        Raises
        ------
        GroupStartError
            If a rank does not start, or takes too long; the ranks that have started are still there.
        """
        try:
            Path(self.config.log_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._processes.start(self)
        except OSError as failure:
            self._gone.set()
            raise GroupStartError(f"its first process could not be started: {failure}") from failure
        try:
            await asyncio.wait_for(asyncio.shield(self._settled), START_SECONDS)
        except TimeoutError:
            late = [rank.rank for rank in self.ranks.values() if rank.ready is None]
            names = ", ".join(map(str, late))
            words = self._last_words(late[0])
            raise GroupStartError(f"rank {names} was not ready within {START_SECONDS:g} s", words) from None
        return [dict(rank.ready.__dict__) for rank in self.ranks.values() if rank.ready is not None]

    def run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task of the group."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _settle(self, failure: GroupStartError | None = None) -> None:
        if self._settled.done():
            return
        if failure is None:
            self._settled.set_result(None)
        else:
            self._settled.set_exception(failure)
            self._settled.exception()  # nobody may be waiting any more

    # --- what the processes report ------------------------------------------------------------------------------------

    def post(self, message: m.Message) -> None:
        """Send a message to the driver."""
        self._report(message)

    def linked(self, rank: LocalRank, link: AsyncChannel) -> None:
        """Serve the link of a rank."""
        rank.link = link
        self.run(self._serve_link(rank, link))

    def note_ready(self, rank: LocalRank, ready: m.WorkerReady) -> None:
        """Note that a rank is ready."""
        rank.ready = ready
        if all(each.ready for each in self.ranks.values()):
            self._settle()

    @property
    def is_settled(self) -> bool:
        """Whether it is known that the ranks are ready, or why they will never be."""
        return self._settled.done()

    def not_started(self, reason: str, words: str = "") -> None:
        """Note that the group cannot start; nothing happens if it has."""
        self._settle(GroupStartError(reason, words))

    def blame(self, rank: LocalRank, reason: str, silent_peer: str = "") -> None:
        """Report the first rank that has ended or is cut off, and nobody had asked for it."""
        if self.is_ending or self._is_blamed:
            return
        self._is_blamed = True
        words = self._last_words(rank.rank)
        self._settle(GroupStartError(f"rank {rank.rank} {reason}", words))
        self._report(m.RankEnded(self.config.group_id, rank.rank, rank.pid, reason, words, silent_peer))

    def gone(self) -> None:
        """Note that no process is left."""
        for rank in self.ranks.values():
            if rank.link is not None:
                rank.link.abort()
        self._gone.set()

    def _last_words(self, rank: int) -> str:
        words = tail(Path(self.config.log_of(rank)), LAST_WORDS), self._processes.last_words()
        return "\n".join(filter(None, words))

    # --- PMI ----------------------------------------------------------------------------------------------------------

    def release(self, values: Mapping[str, str]) -> None:
        """Let the ranks leave the barrier: all ranks of the world are in it, and have published these values."""
        self._processes.release(values)

    # --- links --------------------------------------------------------------------------------------------------------

    async def _serve_link(self, rank: LocalRank, link: AsyncChannel) -> None:
        with contextlib.suppress(OSError, EOFError, ProtocolError):
            while True:
                match await link.receive():
                    case m.WorkerReady() as ready:
                        self.note_ready(rank, ready)
                    case (m.Done() | m.Failure()) as answer:
                        waiting = rank.answers.pop(answer.request, None)
                        if waiting is not None and not waiting.done():
                            waiting.set_result(answer)
                    case _:
                        pass
        self._processes.link_lost(rank)

    async def status(self) -> list[dict[str, Any]]:
        """Return the status of every rank that answers in time."""
        loop = asyncio.get_running_loop()
        number = next(self._requests)
        waiting = []
        for rank in self.ranks.values():
            if rank.link is not None and rank.ready is not None and not rank.has_ended:
                answer = rank.answers[number] = loop.create_future()
                rank.link.post(m.AskStatus(number))
                waiting.append(answer)
        if not waiting:
            return []
        done, _ = await asyncio.wait(waiting, timeout=STATUS_SECONDS)
        for rank in self.ranks.values():
            rank.answers.pop(number, None)
        replies = [answer.result() for answer in done]
        return sorted((r.result for r in replies if isinstance(r, m.Done)), key=lambda row: row["rank"])

    def stopped(self) -> list[int]:
        """Return the ranks that are stopped, as by SIGSTOP or a debugger."""
        running = (rank for rank in self.ranks.values() if rank.pid and not rank.has_ended)
        return [rank.rank for rank in running if is_stopped(rank.pid)]

    def look_for_silence(self) -> None:
        """End the group if another of its hosts does not answer; the driver may reach both."""
        if len(self.ranks) == self.config.size:
            return
        by_process = {rank.pid: rank for rank in self.ranks.values()}
        for pid, address in silent_peers(by_process).items():
            reason = f"gets no answer from {address}: the network between the two hosts failed"
            self.blame(by_process[pid], reason, silent_peer=address)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def end(self, seconds: float) -> None:
        """End the ranks: ask them to, and kill them after so many seconds. Return when they are gone.

        Processes that wait for a device or a file server in the kernel die when it answers. Nobody waits for that.
        """
        self.is_ending = True
        if seconds > 0:
            for rank in self.ranks.values():
                if rank.link is not None:
                    rank.link.post(m.Shutdown())
            await self.wait_gone(seconds)
        if not self._gone.is_set():
            await self._processes.kill()
        if not await self.wait_gone(GONE_SECONDS):
            log.error("Group %d: its processes were killed and are not gone; they are given up", self.config.group_id)
            self.gone()

    async def wait_gone(self, seconds: float) -> bool:
        """Wait up to so many seconds until no process is left; return whether this is so."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), seconds)
        return self._gone.is_set()
