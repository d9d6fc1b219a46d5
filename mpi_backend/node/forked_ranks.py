"""Ranks that are forks of the warm process. The agent is their process manager: it speaks PMI-1 with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Mapping

from alchemist_ray.errors import ProtocolError
from alchemist_ray.mpi_backend.node import shared_memory
from alchemist_ray.mpi_backend.node.local_group import LocalGroup, LocalRank
from alchemist_ray.mpi_backend.node.mpi_settings import mpi_environment
from alchemist_ray.mpi_backend.node.process_state import is_gone
from alchemist_ray.mpi_backend.node.signals import end_in_words
from alchemist_ray.mpi_backend.node.warm_process import WarmProcess
from alchemist_ray.protocol import Side, pmi
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.worker_config import WorkerConfig
from alchemist_ray.transport.async_channel import AsyncChannel
from alchemist_ray.transport.pairs import MAX_DESCRIPTORS, PacketSocket, stream_pair

ABORT_SECONDS = 0.1
"""Time for a rank to tell that it has called MPI_Abort, after other ranks have ended because of it."""
KILL_SECONDS = 1.0
"""Time for the starter to kill its ranks, before it is killed itself."""

_CHUNK = 2**16


class ForkLauncher:
    """Forks the ranks of groups from a warm process.

    Parameters
    ----------
    warm : WarmProcess
        The warm process, which this launcher owns from now on.
    """

    mpi = "fork"

    def __init__(self, warm: WarmProcess) -> None:
        self._warm = warm

    def environment(self, interface: str) -> dict[str, str]:
        """Return MPICH's settings for one host, or for several."""
        return mpi_environment(interface)

    def processes(self, config: WorkerConfig, mapping: str) -> ForkedRanks:
        """Return the processes of a new group."""
        return ForkedRanks(self._warm, pmi.World(config.size, config.local_ranks, config.world, mapping))

    def stop(self) -> None:
        """End the warm process, and with it all ranks."""
        self._warm.stop()


class ForkedRanks:
    """The ranks of a group, forked by a starter of their own (:mod:`.rank_starter`).

    Parameters
    ----------
    warm : WarmProcess
        Forks the starter.
    world : pmi.World
        The ranks of this node in their MPI world.
    """

    def __init__(self, warm: WarmProcess, world: pmi.World) -> None:
        self._warm = warm
        self._world = world
        self._pmi: dict[int, socket.socket] = {}
        self._starter: PacketSocket | None = None
        self._starter_end: int | None = None  # a descriptor of the starter's process
        self._listening: asyncio.Task[None] | None = None
        self._first_end: tuple[LocalRank, str] | None = None

    async def start(self, group: LocalGroup) -> None:
        """Have the starter fork the ranks."""
        self._group = group
        try:
            self._starter = self._warm.fork_starter()
            await self._send_order(self._starter)
        except OSError:
            self._close()
            raise
        self._listening = group.run(self._listen_to_starter(self._starter))

    async def _send_order(self, starter: PacketSocket) -> None:
        """Make the sockets of each rank, and give the other ends to the starter, with its order."""
        theirs: list[socket.socket] = []
        links = {}
        try:
            for rank in self._group.config.local_ranks:
                (pmi_here, pmi_there), (link_here, link_there) = stream_pair(), stream_pair()
                theirs += pmi_there, link_there
                pmi_here.setblocking(False)
                self._pmi[rank] = pmi_here
                links[rank] = await AsyncChannel.inherited(link_here, Side.ACCEPTOR, Purpose.LINK)
            packet = self._group.config.to_json().encode()
            with contextlib.suppress(ConnectionError):  # the starter has ended, and has said why
                for first in range(0, len(theirs), MAX_DESCRIPTORS):
                    starter.send(packet, [end.fileno() for end in theirs[first : first + MAX_DESCRIPTORS]])
                    packet = b"more"
        finally:
            for end in theirs:
                end.close()
        for number, link in links.items():
            local = self._group.ranks[number]
            asyncio.get_running_loop().add_reader(self._pmi[number], self._hear_pmi, local)
            self._group.linked(local, link)

    # --- what the starter says ----------------------------------------------------------------------------------------

    async def _listen_to_starter(self, starter: PacketSocket) -> None:
        group = self._group
        try:
            while packet := await starter.receive_soon():
                match json.loads(packet):
                    case {"starter": pid}:
                        with contextlib.suppress(OSError):  # it has ended already, or there are too many open files
                            self._starter_end = os.pidfd_open(pid)
                    case {"started": rank, "pid": pid}:
                        group.ranks[rank].pid = pid
                    case {"ended": rank, "status": status}:
                        self._rank_ended(group.ranks[rank], status)
                    case {"failed": reason}:
                        group.not_started(reason)
        except ConnectionError:
            pass
        await self._report_end()
        await self._remove_what_is_left()
        self._close()
        group.gone()

    async def _report_end(self) -> None:
        """Report why the starter is gone, if nobody knows it yet."""
        group = self._group
        if not any(rank.pid for rank in group.ranks.values()):
            end = "has ended" if group.is_settled or group.is_ending else await self._warm.end_in_words()
            group.not_started(f"the process that starts its ranks {end}: see the log of the node")
            return
        lost = group.ranks[group.config.first_rank], "was ended together with its parent process"
        group.blame(*(self._first_end or lost))

    async def _remove_what_is_left(self) -> None:
        """Remove what a starter could not that was killed. The kernel kills its ranks, just after its sockets end."""
        ranks, config = self._group.ranks.values(), self._group.config
        deadline = time.monotonic() + KILL_SECONDS
        while not all(rank.has_ended or is_gone(rank.pid) for rank in ranks) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        shared_memory.remove_of_world(config.world)
        if os.path.exists(config.scratch):
            await asyncio.to_thread(shutil.rmtree, config.scratch, ignore_errors=True)

    def _rank_ended(self, rank: LocalRank, status: int) -> None:
        rank.has_ended = True
        # A rank that aborts may make others end before it has told its process manager: let it come first.
        if self._first_end is None:
            self._first_end = rank, end_in_words(status)
            seconds = ABORT_SECONDS if status > 0 else 0.0
            asyncio.get_running_loop().call_later(seconds, self._group.blame, *self._first_end)

    # --- PMI ----------------------------------------------------------------------------------------------------------

    def _hear_pmi(self, rank: LocalRank) -> None:
        """Take what a rank says to its process manager; called when its socket is readable."""
        end = self._pmi[rank.rank]
        try:
            octets = end.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:  # the rank has ended; the starter tells how
            asyncio.get_running_loop().remove_reader(end)
            return
        try:
            self._act_on(self._world.receive(rank.rank, octets))
        except (ProtocolError, OSError) as failure:
            asyncio.get_running_loop().remove_reader(end)
            self._group.blame(rank, f"broke the protocol between MPI and its process manager: {failure}")

    def release(self, values: Mapping[str, str]) -> None:
        """Let the ranks leave the barrier."""
        self._act_on(self._world.release(values))

    def _act_on(self, events: list[pmi.Event]) -> None:
        for event in events:
            match event:
                case pmi.Reply():
                    with contextlib.suppress(OSError):  # the rank has ended; the starter tells how
                        self._pmi[event.rank].send(event.octets)  # short, and the only one under way
                case pmi.BarrierReached():
                    self._group.post(m.EnterBarrier(self._group.config.group_id, dict(event.values)))
                case pmi.Aborted():
                    self._group.blame(self._group.ranks[event.rank], f"called MPI_Abort with code {event.code}")

    # --- the end ------------------------------------------------------------------------------------------------------

    def link_lost(self, rank: LocalRank) -> None:
        """Do nothing: the starter tells how the rank has ended."""

    async def kill(self) -> None:
        """Have the starter kill the ranks; if it does not, kill the starter; if there is none yet, do without it."""
        if self._starter is not None:
            with contextlib.suppress(OSError):
                self._starter.end_writing()
            if await self._group.wait_gone(KILL_SECONDS):
                return
        if self._starter_end is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._starter_end, signal.SIGKILL)  # the kernel kills its ranks
        elif self._listening is not None:
            await self._give_up(self._listening)

    async def _give_up(self, listening: asyncio.Task[None]) -> None:
        """Close the socket of a starter that the warm process has not forked; one that is forked later ends then."""
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)  # the loop must not watch a closed socket
        self._close()
        self._group.not_started("the process that starts its ranks did not answer: is it stopped?")
        self._group.gone()

    def last_words(self) -> str:
        """Return nothing: the starter prints nothing."""
        return ""

    def _close(self) -> None:
        """Close all descriptors. More calls do nothing."""
        loop = asyncio.get_running_loop()
        for end in self._pmi.values():
            if end.fileno() >= 0:
                loop.remove_reader(end)
                end.close()
        if self._starter is not None:
            self._starter.close()
        if self._starter_end is not None:
            os.close(self._starter_end)
            self._starter_end = None
