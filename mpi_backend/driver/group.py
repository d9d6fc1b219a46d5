"""The driver's view of a worker group: an MPI job and a link to each of its ranks."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alchemist_ray.errors import GroupStartError, ProtocolError
from alchemist_ray.host.temporary_directories import name_scratch
from alchemist_ray.mpi_backend.logs import tail
from alchemist_ray.mpi_backend.node.launchers import Job, Launcher, RunningJob
from alchemist_ray.mpi_backend.node.slots import Slot
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.handshake import new_token
from alchemist_ray.protocol.server_options import WorkerOptions
from alchemist_ray.protocol.worker_config import ENVIRONMENT, WorkerConfig
from alchemist_ray.transport.async_channel import AsyncChannel

START_SECONDS = 60.0
"""Time for the ranks to start and connect to the driver."""
SHUTDOWN_SECONDS = 2.0
"""Time for the ranks to end by themselves after they were told to."""
LOSS_SECONDS = 1.0
"""Time for the launcher to end the job after a rank has died."""
LAST_WORDS = 30
"""The session gets this many lines from the log of a lost rank."""
STATUS_SECONDS = 2.0
"""Time for a worker to send its status."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_SHORT_SPIN = {"OPENBLAS_THREAD_TIMEOUT": os.environ.get("OPENBLAS_THREAD_TIMEOUT", "20")}
"""OpenBLAS's threads spin for 2^20 cycles after a call, less than a millisecond, then they sleep. By default they spin
for 2^26 cycles on the cores that other ranks need: to deal the factors of order 400 took 8 ms instead of 3. With 2^16
cycles `eigvals`, which makes many short calls, was a quarter slower."""

log = logging.getLogger("alchemist")


@dataclass(frozen=True)
class GroupSettings:
    """The settings that all worker groups of a server share; see ``WorkerConfig``."""

    driver: tuple[str, int]
    bind: str
    advertise: str
    memory: int
    options: WorkerOptions
    log_dir: Path
    threads: int


class WorkerGroup:
    """The workers of one session.

    Parameters
    ----------
    group_id : int
        Number of the group on the server.
    slots : list of Slot
        The slot of each rank.
    settings : GroupSettings
        The settings that all groups of the server share.
    """

    def __init__(self, group_id: int, slots: list[Slot], settings: GroupSettings) -> None:
        self.group_id = group_id
        self.slots = slots
        self.ticket = new_token()
        self.end_was_asked_for = False
        self._settings = settings
        self._scratch = name_scratch()
        self._job: RunningJob | None = None
        self._job_end: asyncio.Future[str] | None = None
        self._links: dict[int, AsyncChannel] = {}
        self._ready: dict[int, m.WorkerReady] = {}
        self._all_ready = asyncio.Event()
        self._loss = ""
        self._lost_rank: int | None = None
        self._requests = itertools.count(1)
        self._answers: dict[tuple[int, int], asyncio.Future[Any]] = {}

    # --- life and death -----------------------------------------------------------------------------------------------

    async def start(self, launcher: Launcher) -> None:
        """Start the job and wait until every rank has connected to the driver.

        Raises
        ------
        GroupStartError
            If the job does not start, or takes too long.
        """
        settings = self._settings
        config = WorkerConfig(
            driver=settings.driver,
            group_id=self.group_id,
            ticket=self.ticket,
            worker_ids=[slot.worker_id for slot in self.slots],
            bind=settings.bind,
            advertise=settings.advertise,
            memory=settings.memory,
            options=settings.options,
            log_dir=str(settings.log_dir),
            scratch=str(self._scratch),
        )
        job = Job(
            slots=self.slots,
            # -P: a file in the current directory, which may belong to anybody, must not replace a module.
            command=[sys.executable, "-P", "-m", "alchemist_ray.mpi_backend.worker.rank"],
            environment={
                ENVIRONMENT: config.to_json(),
                **dict.fromkeys(_THREAD_VARIABLES, str(settings.threads)),
                **_SHORT_SPIN,
            },
            log=settings.log_dir / "mpiexec.log",
        )
        self._job = await launcher.launch(job)
        self._job_end = asyncio.ensure_future(self._job.wait())
        ready = asyncio.ensure_future(self._all_ready.wait())
        try:
            await asyncio.wait({self._job_end, ready}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not self._all_ready.is_set():
            reason = self._job_end.result() if self._job_end.done() else f"not ready within {START_SECONDS:g} s"
            raise GroupStartError(reason, self._log_tail())

    def _log_tail(self) -> str:
        logs = sorted(self._settings.log_dir.glob("*.log"))
        return "\n".join(text for path in logs if (text := tail(path, 10)))

    def last_words(self) -> str:
        """Return the end of the log of the first rank that was lost."""
        if self._lost_rank is None:
            return ""
        return tail(self._settings.log_dir / f"worker-{self.slots[self._lost_rank].worker_id:03d}.log", LAST_WORDS)

    async def ended(self) -> str:
        """Wait until the job has ended; return the reason."""
        if self._job_end is None:
            return "it never started"
        how = await asyncio.shield(self._job_end)
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        return f"{self._loss}; {how}" if self._loss else how

    async def end(self, reason: str, at_once: bool = False) -> None:
        """End the job: ask the workers to end, and kill those that do not. With `at_once` they are not asked."""
        self.end_was_asked_for = True
        if self._job is None or self._job_end is None:
            return
        log.info("Ending group %d: %s", self.group_id, reason)
        if not at_once:
            for link in list(self._links.values()):
                await link.send_or_ignore(m.Shutdown())
            await asyncio.wait({self._job_end}, timeout=SHUTDOWN_SECONDS)
        self._job.kill()
        for link in list(self._links.values()):
            link.close()  # if the launcher left a worker behind, it ends itself when its link breaks
        await asyncio.wait({self._job_end}, timeout=SHUTDOWN_SECONDS)

    # --- links to the workers -----------------------------------------------------------------------------------------

    async def serve_link(self, channel: AsyncChannel) -> None:
        """Listen to one worker until its link ends."""
        ready = await channel.receive()
        if not isinstance(ready, m.WorkerReady) or not 0 <= ready.rank < len(self.slots):
            return
        rank = ready.rank
        if rank in self._links:
            log.warning("Refused a second link of rank %d", rank)
            return
        self._links[rank], self._ready[rank] = channel, ready
        if len(self._ready) == len(self.slots):
            self._all_ready.set()
        try:
            while True:
                answer = await channel.receive()
                if not isinstance(answer, (m.Done, m.Failure)):
                    continue
                waiting = self._answers.pop((rank, answer.request), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except (OSError, EOFError, ProtocolError):
            await self._lost(rank, ready)
        finally:
            self._links.pop(rank, None)

    async def _lost(self, rank: int, ready: m.WorkerReady) -> None:
        """Record the first rank that dies, and make sure that the whole job ends."""
        if self.end_was_asked_for or self._loss or self._job is None or self._job_end is None:
            return
        name = self.slots[rank].name
        self._lost_rank = rank
        self._loss = f"{name} (rank {rank}, process {ready.pid} on {ready.host}) is gone"
        log.error("%s", self._loss)
        await asyncio.wait({self._job_end}, timeout=LOSS_SECONDS)
        self._job.kill()

    # --- status -------------------------------------------------------------------------------------------------------

    def endpoints(self) -> list[dict[str, Any]]:
        """Return the address of each worker, by rank."""
        return [
            {
                "id": slot.worker_id,
                "rank": rank,
                "host": ready.host,
                "address": ready.address,
                "port": ready.port,
                "socket_name": ready.socket_name,
                "pid": ready.pid,
                "memory": ready.memory,
            }
            for rank, slot in enumerate(self.slots)
            if (ready := self._ready.get(rank)) is not None
        ]

    def endpoint_of(self, slot: Slot) -> dict[str, Any] | None:
        """Return the address of the worker in `slot`, or None if it has not connected yet."""
        return next((row for row in self.endpoints() if row["id"] == slot.worker_id), None)

    async def status(self) -> list[dict[str, Any]]:
        """Return the status of every worker that answers in time."""
        loop = asyncio.get_running_loop()
        waiting, keys = [], []
        for rank, link in list(self._links.items()):
            number = next(self._requests)
            answer = self._answers[rank, number] = loop.create_future()
            keys.append((rank, number))
            await link.send_or_ignore(m.AskStatus(number))
            waiting.append(answer)
        if not waiting:
            return []
        done, _ = await asyncio.wait(waiting, timeout=STATUS_SECONDS)
        for key in keys:
            self._answers.pop(key, None)
        replies = [answer.result() for answer in done]
        return sorted((r.result for r in replies if isinstance(r, m.Done)), key=lambda row: row["rank"])
