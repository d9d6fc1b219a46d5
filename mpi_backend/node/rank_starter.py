"""The parent of a group's ranks on one host: it forks them, writes what they print to logs, and reports their ends.

It stands between the warm process and the ranks. The agent talks to it over a socket of packets, each one JSON object:

==========  ==========================  ================================================================
from        packet                      meaning
==========  ==========================  ================================================================
agent       ``order`` + descriptors     fork these ranks; a PMI socket and a link socket for each of them
agent       ``descriptors`` + ...       more descriptors, where one packet does not take all
starter     ``starter``                 its own process id
starter     ``started``, ``pid``        a rank runs
starter     ``failed``                  the ranks could not be started
starter     ``ended``, ``status``       a rank has ended, with its exit status or minus its signal
==========  ==========================  ================================================================

The socket ends when all ranks have ended and their output is written. If the agent ends it, all ranks are killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from alchemist_ray.mpi_backend.node import shared_memory
from alchemist_ray.mpi_backend.worker import worker
from alchemist_ray.mpi_backend.worker.output import RotatingLog, close_all_but
from alchemist_ray.mpi_backend.worker.parent_death import die_with_parent
from alchemist_ray.protocol.worker_config import WorkerConfig
from alchemist_ray.transport.pairs import PacketSocket, inherited_stream

LAST_OUTPUT_SECONDS = 0.5
"""How long the output of ended ranks is awaited, if other processes hold their pipes."""

_CHUNK = 2**16


@dataclass(frozen=True)
class _Child:
    """A rank as its parent sees it: its process, and the pipe that it prints to."""

    rank: int
    pid: int
    pipe: int


def run(channel: PacketSocket, parent: int) -> NoReturn:
    """Be the starter of one group, as a child of the warm process `parent`. Does not return."""
    status = 1
    try:
        os.setsid()
        die_with_parent(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        close_all_but(0, 1, 2, channel.fileno())
        _Starter(channel).run()
        status = 0
    except (EOFError, ConnectionError):  # the agent is gone
        pass
    except BaseException:  # noqa: BLE001 - this is a process of its own: nobody else can tell
        traceback.print_exc()
    finally:
        os._exit(status)


class _Starter:
    def __init__(self, channel: PacketSocket) -> None:
        self._channel = channel
        self._poller = select.poll()
        self._poller.register(channel, select.POLLIN)
        self._ranks: dict[int, _Child] = {}  # by the descriptor that tells of its end
        self._logs: dict[int, RotatingLog] = {}  # by the pipe that leads there

    def run(self) -> None:
        """Start the ranks, and watch them until all have ended."""
        self._channel.send(_packet(starter=os.getpid()))  # fails if the agent has given the group up meanwhile
        try:
            config, descriptors = self._receive_order()
        except ConnectionError:
            raise
        except OSError as failure:
            self._say(failed=str(failure))
            return
        try:
            self._fork_all(config, descriptors)
            self._watch()
        finally:
            shared_memory.remove_of_world(config.world)
            shutil.rmtree(config.scratch, ignore_errors=True)

    def _receive_order(self) -> tuple[WorkerConfig, list[int]]:
        octets, descriptors = self._channel.receive()
        if not octets:
            raise EOFError
        config = WorkerConfig.from_json(octets)
        while len(descriptors) < 2 * len(config.local_ranks):
            packet, more = self._channel.receive()
            if not packet:
                raise EOFError
            descriptors += more
        return config, descriptors

    def _say(self, **facts: object) -> None:
        with contextlib.suppress(OSError):  # the agent is gone; the next poll tells
            self._channel.send(_packet(**facts))

    # --- ranks --------------------------------------------------------------------------------------------------------

    def _fork_all(self, config: WorkerConfig, descriptors: list[int]) -> None:
        """Fork the ranks; kill those that there are if one cannot be forked."""
        try:
            os.mkdir(config.scratch, 0o700)
            for n, rank in enumerate(config.local_ranks):
                pair = descriptors[2 * n : 2 * n + 2]
                self._fork(config, rank, *pair)
                for descriptor in pair:
                    os.close(descriptor)
        except OSError as failure:
            self._say(failed=str(failure))
            self._kill_all()

    def _fork(self, config: WorkerConfig, rank: int, pmi: int, link: int) -> None:
        log = RotatingLog(Path(config.log_of(rank)))
        source, sink = os.pipe()
        os.set_blocking(source, False)
        starter = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_rank(config, rank, pmi, link, sink, starter)
        os.close(sink)
        end = os.pidfd_open(pid)
        self._ranks[end] = _Child(rank, pid, source)
        self._logs[source] = log
        for descriptor in (end, source):
            self._poller.register(descriptor, select.POLLIN)
        self._say(started=rank, pid=pid)

    def _watch(self) -> None:
        deadline: float | None = None
        while self._ranks or self._logs:
            if not self._ranks:
                deadline = deadline or time.monotonic() + LAST_OUTPUT_SECONDS
                if time.monotonic() >= deadline:
                    return
            for descriptor, _ in self._poller.poll(None if self._ranks else 100):
                if descriptor == self._channel.fileno():
                    self._poller.unregister(descriptor)  # the agent sends nothing more: it has closed the socket
                    self._kill_all()
                elif descriptor in self._logs:
                    self._copy(descriptor)
                elif descriptor in self._ranks:
                    self._bury(descriptor)

    def _copy(self, pipe: int) -> None:
        """Write what a rank has printed to its log."""
        while True:
            try:
                octets = os.read(pipe, _CHUNK)
            except BlockingIOError:
                return
            if not octets:
                self._poller.unregister(pipe)
                self._logs.pop(pipe).close()
                os.close(pipe)
                return
            self._logs[pipe].write(octets)
            if len(octets) < _CHUNK:
                return

    def _bury(self, end: int) -> None:
        """Report the end of a rank, after its last output is in its log."""
        rank = self._ranks.pop(end)
        self._poller.unregister(end)
        os.close(end)
        if rank.pipe in self._logs:
            self._copy(rank.pipe)
        _kill(rank.pid)  # what it has started, and left behind
        _, status = os.waitpid(rank.pid, 0)
        self._say(ended=rank.rank, status=os.waitstatus_to_exitcode(status))

    def _kill_all(self) -> None:
        for rank in self._ranks.values():
            _kill(rank.pid)


def _packet(**facts: object) -> bytes:
    return json.dumps(facts).encode()


def _kill(pid: int) -> None:
    """Kill the process group of a rank that was not waited for, and the rank itself if it has no group yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _be_rank(config: WorkerConfig, rank: int, pmi: int, link: int, sink: int, starter: int) -> NoReturn:
    """Be a rank. Does not return."""
    status = 1
    try:
        os.setsid()
        die_with_parent(starter)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (sink, 1), (sink, 2)):
            os.dup2(source, target)
        close_all_but(0, 1, 2, pmi, link)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(PMI_FD=str(pmi), PMI_RANK=str(rank), PMI_SIZE=str(config.size))
        status = worker.run_forked_rank(config, rank, inherited_stream(link))
    except BaseException:  # noqa: BLE001 - the log is the only one to tell
        traceback.print_exc()
    finally:
        os._exit(status)
