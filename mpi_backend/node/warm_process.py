"""The warm process of a node: it has imported all that a rank needs, and forks the ranks of each group from itself.

A rank that is forked starts in a tenth of the time of a new interpreter. The warm process has one thread, so that a
fork is safe: its BLAS is loaded with one thread, and MPI is loaded but not started. For each group it forks one rank
starter (:mod:`.rank_starter`), whose children the ranks are. The kernel kills each of these processes when its parent
dies. So no rank outlives the agent, the warm process or its starter.

This module has both ends: :class:`WarmProcess` for the agent, and the program. They share a socket pair. The agent
sends one packet for each group, with the socket that the group's starter shall use. If there can be no starter, the
warm process itself says so there (``failed``). One that cannot load what ranks need says so, and ends; the next group
gets a new one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from alchemist_ray.host.loading import loading_modules
from alchemist_ray.mpi_backend.node.descriptors import allow_all_descriptors
from alchemist_ray.mpi_backend.node.interpreter import Interpreter
from alchemist_ray.mpi_backend.node.process_state import is_stopped
from alchemist_ray.mpi_backend.node.signals import end_in_words
from alchemist_ray.mpi_backend.worker.parent_death import die_with_parent
from alchemist_ray.transport.pairs import PacketSocket

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_SHORT_SPIN = {"OPENBLAS_THREAD_TIMEOUT": "20"}
"""OpenBLAS's threads spin for 2^20 cycles after a call, less than a millisecond, then they sleep. By default they spin
for 2^26 cycles on the cores that other ranks need: to deal the factors of order 400 took 8 ms instead of 3. With 2^16
cycles `eigvals`, which makes many short calls, was a quarter slower."""

_LONGEST_REASON = 2000
END_SECONDS = 0.5
"""Time between the end of a process's sockets and that of the process."""
KILL_SECONDS = 2.0
"""Time for the process to be gone after it was killed."""


@dataclass(frozen=True)
class _Running:
    """A warm process, and the socket that takes its orders."""

    process: subprocess.Popen[bytes]
    orders: PacketSocket

    def kill(self) -> None:
        self.orders.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a device, and dies when it answers
            self.process.wait(KILL_SECONDS)


class WarmProcess:
    """The agent's end of the warm process.

    Parameters
    ----------
    python : Interpreter
        The Python to run.
    environment : mapping
        Environment variables of the ranks.
    """

    def __init__(self, python: Interpreter, environment: Mapping[str, str]) -> None:
        self._python = python
        self._environment = {**_SHORT_SPIN, **environment, **_ONE_THREAD}
        self._retired: list[_Running] = []
        self._running = self._start()

    def _start(self) -> _Running:
        orders, theirs = PacketSocket.pair()
        with contextlib.closing(theirs):
            process = subprocess.Popen(
                self._python.command(__name__, str(theirs.fileno()), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=2,  # the agent's stdout may be a channel to its parent
                env=self._environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return _Running(process, orders)

    def _replace(self) -> None:
        """Start another process in the place of one that has ended or is stopped.

        A stopped one stays as it is, since the kernel would kill its groups with it.
        """
        self._retired = [each for each in (*self._retired, self._running) if each.process.poll() is None]
        if self._running not in self._retired:
            self._running.kill()
        self._running = self._start()

    def fork_starter(self) -> PacketSocket:
        """Fork the starter of a group; return the socket to it, which takes its order (:mod:`.rank_starter`).

        Raises
        ------
        OSError
            If the warm process cannot be started.
        """
        process = self._running.process
        if process.poll() is not None or is_stopped(process.pid):
            self._replace()
        ours, theirs = PacketSocket.pair()
        try:
            with contextlib.closing(theirs):
                self._order(theirs)
        except BaseException:
            ours.close()
            raise
        return ours

    def _order(self, channel: PacketSocket) -> None:
        """Have a starter forked that gets this socket."""
        try:
            self._running.orders.send(b"fork", [channel.fileno()])
        except ConnectionError:  # it has just ended
            self._running.kill()
            self._replace()
            self._running.orders.send(b"fork", [channel.fileno()])

    async def end_in_words(self) -> str:
        """Return how the process has ended, or that its child has; called when the socket of a starter has ended."""
        import asyncio  # late, since the warm process is started before all else

        deadline = time.monotonic() + END_SECONDS
        while (status := self._running.process.poll()) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return "has ended" if status is None else end_in_words(status)

    def stop(self) -> None:
        """End the process, and with it all ranks that were forked from it."""
        for each in (*self._retired, self._running):
            each.kill()


def main(orders: PacketSocket, agent: int) -> None:
    """Fork a starter for each packet of the agent, until the agent is gone."""
    die_with_parent(agent)
    allow_all_descriptors()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the agent decides when it ends
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # starters need not be waited for
    try:
        with loading_modules():
            from alchemist_ray.mpi_backend.node import rank_starter
            from alchemist_ray.mpi_backend.worker import worker  # noqa: F401 - loaded here, so that ranks have it
    except Exception as failure:  # noqa: BLE001 - whatever the libraries of this host raise
        traceback.print_exc()
        _refuse_all(orders, f"{sys.executable} cannot load what ranks need: {failure}. See the log of the node")
        return

    gc.collect()
    gc.freeze()  # the garbage collectors of the ranks must not write to these pages, which all of them share
    parent = os.getpid()
    while (descriptor := _next_order(orders)) is not None:
        try:
            is_child = os.fork() == 0
        except OSError as failure:
            _refuse(descriptor, f"the process that starts its ranks could not be forked: {failure}")
            continue
        if is_child:
            rank_starter.run(PacketSocket(descriptor), parent)
        os.close(descriptor)


def _next_order(orders: PacketSocket) -> int | None:
    """Return the descriptor in the next packet of the agent; None if the agent is gone."""
    while True:
        try:
            packet, descriptors = orders.receive()
        except ConnectionError:
            raise
        except OSError:  # this packet is lost, and its group ends; all others shall live
            traceback.print_exc()
            continue
        return descriptors[0] if packet else None


def _refuse(descriptor: int, reason: str) -> None:
    """Tell the agent that there will be no starter at the other end of its socket, and close this end."""
    with contextlib.closing(PacketSocket(descriptor)) as channel, contextlib.suppress(OSError):  # it may be gone
        channel.send(json.dumps({"failed": reason[:_LONGEST_REASON]}).encode())


def _refuse_all(orders: PacketSocket, reason: str) -> None:
    """Refuse the next order, and those that have come meanwhile; the agent can send no more then."""
    descriptor = _next_order(orders)
    orders.end_reading()
    while descriptor is not None:
        _refuse(descriptor, reason)
        descriptor = _next_order(orders)


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):
        main(PacketSocket(int(sys.argv[1])), int(sys.argv[2]))
