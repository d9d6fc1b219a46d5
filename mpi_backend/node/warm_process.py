"""The warm process of a node: it has imported all that a rank needs, and forks the ranks of each group from itself.

A rank that is forked starts in a tenth of the time of a new interpreter. The warm process has one thread, so that a
fork is safe: its BLAS is loaded with one thread, and MPI is loaded but not started. For each group it forks one rank
starter (:mod:`.rank_starter`), whose children the ranks are. The kernel kills each of these processes when its parent
dies. So no rank outlives the agent, the warm process or its starter.

This module has both ends: :class:`WarmProcess` for the agent, and the program. They share a socket pair. The agent
sends one packet for each group, with the socket that the group's starter shall use.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from alchemist_ray.mpi_backend.node.interpreter import Interpreter
from alchemist_ray.mpi_backend.worker.parent_death import die_with_parent
from alchemist_ray.transport.pairs import PacketSocket

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_SHORT_SPIN = {"OPENBLAS_THREAD_TIMEOUT": "20"}
"""OpenBLAS's threads spin for 2^20 cycles after a call, less than a millisecond, then they sleep. By default they spin
for 2^26 cycles on the cores that other ranks need: to deal the factors of order 400 took 8 ms instead of 3. With 2^16
cycles `eigvals`, which makes many short calls, was a quarter slower."""


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
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: PacketSocket | None = None
        self.start()

    def start(self) -> None:
        """Start the process, if it does not run."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        self._orders, theirs = PacketSocket.pair()
        with contextlib.closing(theirs):
            self._process = subprocess.Popen(
                self._python.command(__name__, str(theirs.fileno()), str(os.getpid())),
                stdin=subprocess.DEVNULL,
                stdout=2,  # the agent's stdout may be a channel to its parent
                env=self._environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def fork_starter(self) -> PacketSocket:
        """Fork the starter of a group; return the socket to it, which takes its order (:mod:`.rank_starter`).

        Raises
        ------
        OSError
            If the warm process cannot be started.
        """
        self.start()
        assert self._orders is not None  # start() has set it
        ours, theirs = PacketSocket.pair()
        try:
            with contextlib.closing(theirs):
                self._orders.send(b"fork", [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        return ours

    def stop(self) -> None:
        """End the process, and with it all ranks that were forked from it."""
        if self._orders is not None:
            self._orders.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def main(orders: PacketSocket, agent: int) -> None:
    """Fork a starter for each packet of the agent, until the agent is gone."""
    die_with_parent(agent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the agent decides when it ends
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # starters need not be waited for
    from alchemist_ray.mpi_backend.node import rank_starter
    from alchemist_ray.mpi_backend.worker import worker  # noqa: F401 - loaded here, so that ranks have it at once

    gc.collect()
    gc.freeze()  # the garbage collectors of the ranks must not write to these pages, which all of them share
    while True:
        _, descriptors = orders.receive()
        if not descriptors:
            return
        parent = os.getpid()
        if os.fork() == 0:
            rank_starter.run(PacketSocket(descriptors[0]), parent)
        os.close(descriptors[0])


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError):
        main(PacketSocket(int(sys.argv[1])), int(sys.argv[2]))
