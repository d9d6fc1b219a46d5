"""The ranks of one group on this node, as the node agent sees them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alchemist_ray.errors import GroupStartError, ProtocolError
from alchemist_ray.mpi_backend.logs import tail
from alchemist_ray.mpi_backend.node.silent_peers import silent_peers
from alchemist_ray.mpi_backend.node.warm_process import WarmProcess
from alchemist_ray.protocol import Side, pmi
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.worker_config import WorkerConfig
from alchemist_ray.transport.async_channel import AsyncChannel
from alchemist_ray.transport.pairs import MAX_DESCRIPTORS, PacketSocket, stream_pair

START_SECONDS = 60.0
"""Time for the ranks to start."""
ABORT_SECONDS = 0.1
"""Time for a rank to tell that it has called MPI_Abort, after other ranks have ended because of it."""
KILL_SECONDS = 1.0
"""Time for the starter to kill its ranks, before it is killed itself."""
STATUS_SECONDS = 2.0
"""Time for a rank to send its status."""
LAST_WORDS = 30
"""Lines of the log of a rank that has ended."""

_CHUNK = 2**16

log = logging.getLogger("alchemist")


@dataclass
class _Rank:
    """One rank: its process, its PMI socket and its link."""

    rank: int
    pmi: socket.socket
    link: AsyncChannel
    pid: int = 0
    ready: m.WorkerReady | None = None
    status: int | None = None
    answers: dict[int, asyncio.Future[Any]] = field(default_factory=dict)


class LocalGroup:
    """The ranks of a group on this node.

    Parameters
    ----------
    config : WorkerConfig
        The configuration of the ranks.
    world : pmi.World
        The ranks of this node in their MPI world.
    report : callable
        Sends a message to the driver.
    """

    def __init__(self, config: WorkerConfig, world: pmi.World, report: Callable[[m.Message], None]) -> None:
        self.config = config
        self._world = world
        self._report = report
        self._ranks: dict[int, _Rank] = {}
        self._starter: PacketSocket | None = None
        self._starter_end: int | None = None  # a descriptor of the starter's process
        self._gone = asyncio.Event()
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # all are ready, or one failed
        self._is_ending = self._is_blamed = False
        self._first_end: tuple[_Rank, str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = itertools.count(1)

    # --- starting -----------------------------------------------------------------------------------------------------

    async def start(self, warm: WarmProcess) -> list[dict[str, Any]]:
        """Start the ranks; return their addresses, by rank, once all of them are ready.

        Raises
        ------
        GroupStartError
            If a rank does not start, or takes too long; the ranks that have started are still there.
        """
        try:
            Path(self.config.log_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._starter = warm.fork_starter()
            await self._send_order(self._starter)
        except OSError as failure:
            self._gone.set()
            raise GroupStartError(f"its first process could not be started: {failure}") from failure
        self._spawn(self._listen_to_starter(self._starter))
        try:
            await asyncio.wait_for(asyncio.shield(self._settled), START_SECONDS)
        except TimeoutError:
            late = [rank.rank for rank in self._ranks.values() if rank.ready is None]
            names = ", ".join(map(str, late))
            words = self._last_words(late[0])
            raise GroupStartError(f"rank {names} was not ready within {START_SECONDS:g} s", words) from None
        return [_endpoint(rank.ready) for rank in self._ranks.values() if rank.ready is not None]

    async def _send_order(self, starter: PacketSocket) -> None:
        """Make the sockets of each rank, and give the other ends to the starter, with its order."""
        theirs: list[socket.socket] = []
        try:
            for rank in self.config.local_ranks:
                (pmi_here, pmi_there), (link_here, link_there) = stream_pair(), stream_pair()
                theirs += pmi_there, link_there
                pmi_here.setblocking(False)
                link = await AsyncChannel.inherited(link_here, Side.ACCEPTOR, Purpose.LINK)
                self._ranks[rank] = _Rank(rank, pmi_here, link)
            packet = self.config.to_json().encode()
            for first in range(0, len(theirs), MAX_DESCRIPTORS):
                starter.send(packet, [end.fileno() for end in theirs[first : first + MAX_DESCRIPTORS]])
                packet = b"more"
        finally:
            for end in theirs:
                end.close()
        for each in self._ranks.values():
            asyncio.get_running_loop().add_reader(each.pmi, self._hear_pmi, each)
            self._spawn(self._serve_link(each))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _settle(self, failure: GroupStartError | None = None) -> None:
        if self._settled.done():
            return
        if failure is None:
            self._settled.set_result(None)
        else:
            self._settled.set_exception(failure)
            self._settled.exception()  # nobody may be waiting any more

    # --- what the starter says ----------------------------------------------------------------------------------------

    async def _listen_to_starter(self, starter: PacketSocket) -> None:
        try:
            while packet := await starter.receive_soon():
                match json.loads(packet):
                    case {"starter": pid}:
                        with contextlib.suppress(ProcessLookupError):
                            self._starter_end = os.pidfd_open(pid)
                    case {"started": rank, "pid": pid}:
                        self._ranks[rank].pid = pid
                    case {"ended": rank, "status": status}:
                        self._rank_ended(self._ranks[rank], status)
                    case {"failed": reason}:
                        self._settle(GroupStartError(reason))
        except ConnectionError:
            pass
        if self._ranks:
            lost = self._ranks[self.config.first_rank], "was ended together with its parent process"
            self._blame(*(self._first_end or lost))
        self._settle(GroupStartError("the process that starts its ranks has ended: see the log of the node"))
        self._close()
        self._gone.set()

    def _rank_ended(self, rank: _Rank, status: int) -> None:
        rank.status = status
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        # A rank that aborts may make others end before it has told its process manager: let it come first.
        if self._first_end is None:
            self._first_end = rank, how
            seconds = ABORT_SECONDS if status > 0 else 0.0
            asyncio.get_running_loop().call_later(seconds, self._blame, rank, how)

    def _blame(self, rank: _Rank, reason: str) -> None:
        """Report the first rank that has ended, and nobody had asked for it."""
        if self._is_ending or self._is_blamed:
            return
        self._is_blamed = True
        words = self._last_words(rank.rank)
        self._settle(GroupStartError(f"rank {rank.rank} {reason}", words))
        self._report(m.RankEnded(self.config.group_id, rank.rank, rank.pid, reason, words))

    def _last_words(self, rank: int) -> str:
        return tail(Path(self.config.log_of(rank)), LAST_WORDS)

    # --- PMI ----------------------------------------------------------------------------------------------------------

    def _hear_pmi(self, rank: _Rank) -> None:
        """Take what a rank says to its process manager; called when its socket is readable."""
        try:
            octets = rank.pmi.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:  # the rank has ended; the starter tells how
            asyncio.get_running_loop().remove_reader(rank.pmi)
            return
        try:
            self._act_on(self._world.receive(rank.rank, octets))
        except (ProtocolError, OSError) as failure:
            asyncio.get_running_loop().remove_reader(rank.pmi)
            self._blame(rank, f"broke the protocol between MPI and its process manager: {failure}")

    def release(self, values: Mapping[str, str]) -> None:
        """Let the ranks leave the barrier: all ranks of the world are in it, and have published these values."""
        self._act_on(self._world.release(values))

    def _act_on(self, events: list[pmi.Event]) -> None:
        for event in events:
            match event:
                case pmi.Reply():
                    with contextlib.suppress(OSError):  # the rank has ended; the starter tells how
                        self._ranks[event.rank].pmi.send(event.octets)  # short, and the only one under way
                case pmi.BarrierReached():
                    self._report(m.EnterBarrier(self.config.group_id, dict(event.values)))
                case pmi.Aborted():
                    self._blame(self._ranks[event.rank], f"called MPI_Abort with code {event.code}")

    # --- links --------------------------------------------------------------------------------------------------------

    async def _serve_link(self, rank: _Rank) -> None:
        with contextlib.suppress(OSError, EOFError, ProtocolError):
            while True:
                match await rank.link.receive():
                    case m.WorkerReady() as ready:
                        rank.ready = ready
                        if all(each.ready for each in self._ranks.values()):
                            self._settle()
                    case (m.Done() | m.Failure()) as answer:
                        waiting = rank.answers.pop(answer.request, None)
                        if waiting is not None and not waiting.done():
                            waiting.set_result(answer)
                    case _:
                        pass

    async def status(self) -> list[dict[str, Any]]:
        """Return the status of every rank that answers in time."""
        loop = asyncio.get_running_loop()
        number = next(self._requests)
        waiting = []
        for rank in self._ranks.values():
            if rank.ready is not None and rank.status is None:
                answer = rank.answers[number] = loop.create_future()
                rank.link.post(m.AskStatus(number))
                waiting.append(answer)
        if not waiting:
            return []
        done, _ = await asyncio.wait(waiting, timeout=STATUS_SECONDS)
        for rank in self._ranks.values():
            rank.answers.pop(number, None)
        replies = [answer.result() for answer in done]
        return sorted((r.result for r in replies if isinstance(r, m.Done)), key=lambda row: row["rank"])

    def stopped(self) -> list[int]:
        """Return the ranks that are stopped, as by SIGSTOP or a debugger."""
        return [
            rank.rank for rank in self._ranks.values() if rank.pid and rank.status is None and _is_stopped(rank.pid)
        ]

    def look_for_silence(self) -> None:
        """End the group if another of its hosts does not answer; the driver may reach both."""
        if len(self._ranks) == self.config.size:
            return
        by_process = {rank.pid: rank for rank in self._ranks.values()}
        for pid, address in silent_peers(by_process).items():
            self._blame(by_process[pid], f"gets no answer from {address}: the network between the two hosts failed")

    # --- the end ------------------------------------------------------------------------------------------------------

    async def end(self, seconds: float) -> None:
        """End the ranks: ask them to, and kill them after so many seconds. Return when they are gone."""
        self._is_ending = True
        if seconds > 0:
            for rank in self._ranks.values():
                rank.link.post(m.Shutdown())
            await self._wait_gone(seconds)
        if not self._gone.is_set() and self._starter is not None:
            with contextlib.suppress(OSError):
                self._starter.end_writing()  # the starter kills its ranks
            await self._wait_gone(KILL_SECONDS)
        if not self._gone.is_set() and self._starter_end is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._starter_end, signal.SIGKILL)  # the kernel kills its ranks
        await self._gone.wait()

    async def _wait_gone(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), seconds)

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for rank in self._ranks.values():
            loop.remove_reader(rank.pmi)
            rank.pmi.close()
            rank.link.abort()
        if self._starter is not None:
            self._starter.close()
        if self._starter_end is not None:
            os.close(self._starter_end)
            self._starter_end = None


def _endpoint(ready: m.WorkerReady) -> dict[str, Any]:
    return dict(ready.__dict__)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_stopped(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return text.rpartition(b")")[2].split()[0] in (b"T", b"t")
