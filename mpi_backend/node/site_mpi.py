"""Ranks that the site's own ``mpiexec`` or ``srun`` starts: of Open MPI, Cray MPICH, Intel MPI, MPICH or Slurm.

The ranks are new interpreters (:mod:`..worker.site_rank`), and not children of the agent. An environment variable
tells them their configuration, which is secret, and the agent's address. There the agent listens for this group
only, and each rank proves the ticket of the group. A rank ends when this link breaks, so no rank outlives the agent.

A group is one MPI job on one node. The site's launcher may spread it over hosts, if the given command says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from alchemist_ray.errors import AlchemistError, NodeError, RemoteProtocolError
from alchemist_ray.mpi_backend.logs import tail
from alchemist_ray.mpi_backend.node.interpreter import Interpreter
from alchemist_ray.mpi_backend.node.job_output import find_error, find_saying
from alchemist_ray.mpi_backend.node.local_group import LAST_WORDS, START_SECONDS, LocalGroup, LocalRank
from alchemist_ray.mpi_backend.node.node_address import WILDCARDS
from alchemist_ray.mpi_backend.node.signals import end_in_words
from alchemist_ray.mpi_backend.worker.parent_death import die_with_parent
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.worker_config import ENVIRONMENT, WorkerConfig
from alchemist_ray.transport.async_channel import AsyncChannel

PATIENCE = 3.0
"""Time for mpiexec to notice that a rank has ended, and to say how."""
TERM_SECONDS = 2.5
"""Time for mpiexec to end its job after SIGTERM, before all of it is killed. Open MPI takes one second."""
OUTPUT_SECONDS = 0.05
"""Time for the last output of the ranks to reach their logs."""
VERSION_SECONDS = 20.0
"""Time for mpiexec to tell its version."""

_PROGRAM = "alchemist_ray.mpi_backend.worker.site_rank"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_OUTER_JOB = re.compile(r"PMI_|PMIX_(?!MCA_)|OMPI_COMM_WORLD_")
"""Variables by which the ranks of an MPI job know themselves: the agent may be one, and its own ranks are others."""
_OPEN_MPI = re.compile(r"Open ?MPI|OpenRTE|PRRTE", re.IGNORECASE)


class SiteLauncher:
    """Starts groups with the site's own MPI.

    Parameters
    ----------
    command : sequence of str
        The program that starts MPI jobs, with its options.
    python : Interpreter
        Runs the ranks.
    environment : mapping
        Environment variables of the ranks.
    """

    mpi = "site"

    def __init__(self, command: Sequence[str], python: Interpreter, environment: Mapping[str, str]) -> None:
        self._python = python
        self._environment = {name: value for name, value in environment.items() if not _OUTER_JOB.match(name)}
        self._command = [*command, *_options(command, _version(command, self._environment))]
        self.name = Path(command[0]).name

    @classmethod
    def find(cls, mpiexec: str, python: Interpreter, environment: Mapping[str, str]) -> SiteLauncher:
        """Return the launcher for a command; empty: ``mpiexec``.

        A bare name is looked for beside the interpreter, where the MPI of its mpi4py is, and then on PATH.

        Raises
        ------
        NodeError
            If the program was not found, or does not run.
        """
        words = shlex.split(mpiexec) or ["mpiexec"]
        beside = Path(python.path).parent
        program = shutil.which(words[0], path=str(beside)) or shutil.which(words[0])
        if program is None:
            raise NodeError(
                f"{words[0]} was not found: give the command that starts MPI jobs at this site, such as --mpiexec srun"
            )
        return cls([program, *words[1:]], python, environment)

    def environment(self, interface: str) -> dict[str, str]:
        """Return no settings of an MPI library: those of the site hold."""
        return {}

    def processes(self, config: WorkerConfig, mapping: str) -> SiteRanks:
        """Return the processes of a new group."""
        return SiteRanks(self, config)

    def stop(self) -> None:
        """Do nothing: each group ends its own job."""

    def start(self, config: WorkerConfig, output: int) -> subprocess.Popen[bytes]:
        """Start the MPI job of a group, which prints to the descriptor `output`; raise OSError if it cannot start."""
        threads = dict.fromkeys(_THREADS, str(config.threads))
        # Not by asyncio, which would wait for it in a thread. When an agent with two threads is killed, the kernel
        # sends the signal twice, and the second one makes Open MPI leave its files behind.
        return subprocess.Popen(
            [*self._command, "-n", str(config.size), *self._python.command(_PROGRAM)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**self._environment, **threads, **config.environment, ENVIRONMENT: config.to_json()},
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # it then ends its ranks itself
        )  # fmt: skip


def _version(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return what mpiexec says of its version; raise NodeError if it does not run."""
    try:
        asked = subprocess.run(
            [command[0], "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(environment),
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise NodeError(f"{command[0]} does not run: {failure}") from failure
    return asked.stdout + asked.stderr


def _options(given: Sequence[str], version: str) -> list[str]:
    """Return the options that this implementation needs, beside those that its user has given."""
    if version.startswith("slurm"):
        return _slurm_options(given)
    if not _OPEN_MPI.search(version):
        return []
    options = ["--oversubscribe"]  # the node's slots count, and not the cores that Open MPI sees
    if "--bind-to" not in given and "-bind-to" not in given:
        options += ["--bind-to", "none"]  # each job would bind its ranks to the same first cores
    for name in (ENVIRONMENT, *_THREADS):
        options += ["-x", name]  # to other hosts too, if there are any
    return options


def _slurm_options(given: Sequence[str]) -> list[str]:
    """Return the options of srun inside a job, where it would use all nodes, and wait for the cores of others."""
    if not (node := os.environ.get("SLURMD_NODENAME")):
        return []
    wanted = {
        ("--nodes", "-N"): "--nodes=1",
        ("--nodelist", "-w"): f"--nodelist={node}",
        ("--overlap", "--overlap"): "--overlap",
        ("--cpu-bind", "--cpu-bind"): "--cpu-bind=none",  # each job would bind its ranks to the same first cores
    }
    return [option for names, option in wanted.items() if not any(word.startswith(names) for word in given)]


class SiteRanks:
    """The ranks of a group: an MPI job.

    Parameters
    ----------
    launcher : SiteLauncher
        Starts the job.
    config : WorkerConfig
        The configuration of the ranks.
    """

    def __init__(self, launcher: SiteLauncher, config: WorkerConfig) -> None:
        self._launcher = launcher
        self._config = config
        self._key = Key.of(config.ticket)
        self._log = Path(config.log_dir) / "mpiexec.log"
        self._logs = dict.fromkeys((self._log, *map(Path, map(config.log_of, config.local_ranks))), 0)
        self._listener: asyncio.Server | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._first_lost: LocalRank | None = None

    async def start(self, group: LocalGroup) -> None:
        """Listen for the ranks, and start them."""
        config = self._config
        self._group = group
        self._logs = {path: path.stat().st_size if path.exists() else 0 for path in self._logs}  # of earlier groups
        try:
            os.mkdir(config.scratch, 0o700)
            self._listener = await asyncio.start_server(self._connected, config.bind or None, 0)
            address, port = self._listener.sockets[0].getsockname()[:2]
            if config.bind in WILDCARDS:
                address = config.advertise
            config = replace(config, agent=(address, port), agent_host=socket.gethostname())
            with self._log.open("ab") as output:
                self._process = self._launcher.start(config, output.fileno())
        except OSError:
            self._close()
            raise
        group.run(self._wait(self._process))

    # --- links --------------------------------------------------------------------------------------------------------

    def _find_key(self, hello: m.Hello) -> Key | None:
        is_ours = hello.purpose == Purpose.LINK and hello.group_id == self._config.group_id
        return self._key if is_ours else None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = AsyncChannel.accepted(reader, writer, self._find_key)
        try:
            await channel.shake_hands()
            await channel.welcome({})
            async with asyncio.timeout(START_SECONDS):
                self._admit(await channel.receive(), channel)
        except (AlchemistError, OSError, EOFError):
            channel.close()

    def _admit(self, ready: m.Message, channel: AsyncChannel) -> None:
        """Take the link of a rank that has said which one it is; raise RemoteProtocolError if it cannot be."""
        rank = self._group.ranks.get(ready.rank) if isinstance(ready, m.WorkerReady) else None
        if not isinstance(ready, m.WorkerReady) or rank is None or rank.link is not None:
            raise RemoteProtocolError("not a rank of the group")
        rank.pid = ready.pid if _is_here(ready) else 0
        self._group.linked(rank, channel)
        self._group.note_ready(rank, ready)
        if self._listener is not None and all(each.link for each in self._group.ranks.values()):
            self._listener.close()

    def link_lost(self, rank: LocalRank) -> None:
        """Note that a rank has ended; mpiexec tells how."""
        rank.has_ended = True
        if self._first_lost is None:
            self._first_lost = rank
            asyncio.get_running_loop().call_later(PATIENCE, self._blame, "ended, or lost its connection to the node")

    def release(self, values: Mapping[str, str]) -> None:
        """Do nothing: the agent is not the process manager of these ranks."""

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of the job, and report it if nobody had asked for it."""
        await _until_ended(process.pid)
        how = f"{self._launcher.name} {end_in_words(process.wait())}"
        self._kill_what_is_left()
        if not self._group.is_ending:
            await asyncio.sleep(OUTPUT_SECONDS)
        if self._first_lost is None and not all(rank.ready for rank in self._group.ranks.values()):
            error = find_error(self._new_output())
            self._group.not_started(f"{how}: {error}" if error else how, self.last_words())
        self._blame(f"ended; {how}")
        self._close()
        self._group.gone()

    def _blame(self, reason: str) -> None:
        """Report the rank that mpiexec names; if it names none, the first whose link was lost, and this reason.

        Hydra names a process. It may be one of those that it has killed itself because of another.
        """
        ranks = self._group.ranks
        lost = self._first_lost or ranks[self._config.first_rank]
        saying = find_saying(self._new_output())
        if saying is not None and saying.rank in ranks:
            lost, reason = ranks[saying.rank], saying.reason
        elif saying is not None and saying.pid == lost.pid:
            reason = saying.reason
        self._group.blame(lost, reason)

    def _new_output(self) -> str:
        """Return what mpiexec and the ranks have printed since the group was started."""
        return "\n".join(_text_after(path, start) for path, start in self._logs.items())

    def last_words(self) -> str:
        """Return the last lines of mpiexec's output."""
        return tail(self._log, LAST_WORDS).strip("\0\n")

    async def kill(self) -> None:
        """Have mpiexec end its job; if it does not, kill all of it."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        job = _descendants(process.pid)
        process.terminate()
        if await self._group.wait_gone(TERM_SECONDS):
            return
        for each in job:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.kill()

    def _kill_what_is_left(self) -> None:
        """Kill the ranks on this host with the processes that they have started, which may be left behind."""
        for rank in self._group.ranks.values():
            if rank.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(rank.pid, signal.SIGKILL)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        shutil.rmtree(self._config.scratch, ignore_errors=True)


async def _until_ended(pid: int) -> None:
    """Wait until a child process has ended."""
    ended = asyncio.Event()
    end = os.pidfd_open(pid)
    try:
        asyncio.get_running_loop().add_reader(end, ended.set)
        await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(end)
        os.close(end)


def _is_here(ready: m.WorkerReady) -> bool:
    """Whether the process of a rank is one of this host, so that it can be looked at and killed."""
    try:
        command = Path(f"/proc/{ready.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return ready.host == socket.gethostname() and _PROGRAM.encode() in command


def _descendants(pid: int) -> list[psutil.Process]:
    """Return all processes that descend from a process; some may have left its session and its process group."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _text_after(path: Path, start: int) -> str:
    """Return the end of a file, without its first bytes."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - 2**16))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
