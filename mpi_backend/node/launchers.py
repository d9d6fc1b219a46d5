"""Start the ranks of a worker group.

The driver gets a launcher. Only the launcher knows an MPI implementation, a scheduler or Ray. A worker group is one MPI
job; a launcher starts it, waits for its end and kills it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from alchemist_ray.errors import GroupStartError, ServerStartError
from alchemist_ray.mpi_backend.node.slots import Slot
from alchemist_ray.transport.credentials import TOKEN, TOKEN_FILE

MPIEXEC = "ALCHEMIST_MPIEXEC"
"""Environment variable that names the site's own ``mpiexec``."""


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """An MPI job to start, with one rank for each slot.

    Attributes
    ----------
    slots : sequence of Slot
        The slot of each rank.
    command : sequence of str
        The command that each rank runs.
    environment : mapping
        Environment variables of the ranks, in addition to the driver's own.
    log : Path
        File for the output of the launcher itself.
    """

    slots: Sequence[Slot]
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path


class RunningJob(Protocol):
    """A running MPI job."""

    async def wait(self) -> str:
        """Wait until the job has ended; return in words how it ended."""

    def kill(self) -> None:
        """End every rank now."""


class Launcher(Protocol):
    """Starts MPI jobs."""

    def check(self) -> None:
        """Raise :class:`~alchemist_ray.errors.ServerStartError` if this machine cannot start MPI jobs."""

    async def launch(self, job: Job) -> RunningJob:
        """Start `job`; raise :class:`~alchemist_ray.errors.GroupStartError` if it cannot be started."""


class HydraLauncher:
    """Starts jobs on this machine with the ``fork`` launcher of Hydra, MPICH's process manager."""

    def check(self) -> None:
        """Look for mpi4py and mpiexec."""
        if importlib.util.find_spec("mpi4py") is None:
            raise ServerStartError("mpi4py is missing: pip install 'alchemist-ray[server]'")
        try:
            find_mpiexec()
        except GroupStartError as missing:
            raise ServerStartError(missing.reason) from None

    async def launch(self, job: Job) -> RunningJob:
        """Start `job`."""
        command = [find_mpiexec(), "-launcher", "fork", "-n", str(len(job.slots)), *job.command]
        with job.log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    env={**_environment(), **job.environment},
                    start_new_session=True,  # Ctrl-C in the driver's terminal must reach the driver only
                    preexec_fn=_die_with_parent,
                )
            except OSError as failure:
                raise GroupStartError(f"{command[0]} did not start: {failure}") from failure
        return _HydraJob(process)


def _environment() -> dict[str, str]:
    """Return the driver's environment without the server's token, which libraries must not see."""
    return {name: value for name, value in os.environ.items() if name not in (TOKEN, TOKEN_FILE)}


def _die_with_parent() -> None:
    """Make the kernel kill this process when its parent dies in any way. Runs between fork and exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _HydraJob:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def wait(self) -> str:
        code = await self._process.wait()
        return f"mpiexec was killed by signal {-code}" if code < 0 else f"mpiexec ended with status {code}"

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def find_mpiexec() -> str:
    """Return the ``mpiexec`` to use: the site's own, the one in this Python environment, or the first on PATH.

    Raises
    ------
    GroupStartError
        If none is found.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    found = os.environ.get(MPIEXEC) or (str(beside) if beside.exists() else shutil.which("mpiexec"))
    if not found:
        raise GroupStartError(
            f"mpiexec was not found: pip install 'alchemist-ray[server]', or set {MPIEXEC} to the mpiexec of your site"
        )
    return found
