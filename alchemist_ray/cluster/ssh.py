"""Node agents that ssh starts on other hosts, and that end with it.

Each ssh runs ``alchemist node --token-file - --until-stdin-ends`` on its host and keeps the agent's stdin open. The
token is the first line there, so it is in no command line. The agent ends when its stdin ends: when this program closes
it, when this program or ssh is killed, and when the connection is lost. With a terminal on the host (``ssh -tt``) the
agent would end as well, but a terminal echoes the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alchemist_ray.cluster.host_file import HostLine

END_SECONDS = 15.0
"""How long agents may take to end their ranks and themselves, before their ssh is ended."""
SSH_FAILED = 255
"""Exit status of ssh if it fails itself."""


@dataclass(frozen=True, kw_only=True)
class SshCommand:
    """How an agent is started.

    Attributes
    ----------
    ssh : tuple of str
        The ssh to run, with its options.
    remote : str
        What the shell of the host runs as the command ``alchemist``.
    driver : (str, int)
        Where the driver listens, as the hosts reach it.
    token : str
        The server's token.
    node_options : tuple of str
        Options of ``alchemist node``, for all hosts.
    """

    ssh: tuple[str, ...]
    remote: str
    driver: tuple[str, int]
    token: str = field(repr=False)
    node_options: tuple[str, ...] = ()

    def argv(self, line: HostLine) -> list[str]:
        """Return the command for a host. Its last word is one text, for the shell of the host."""
        options = ["--driver", "{}:{}".format(*self.driver), *self.node_options]
        if line.slots is not None:
            options += ["--slots", str(line.slots)]
        for label in line.labels:
            options += ["--label", label]
        return [
            *self.ssh,
            line.host,
            f"{self.remote} node --token-file - --until-stdin-ends {shlex.join(options)}",
        ]


class SshNodes:
    """Node agents on several hosts.

    Parameters
    ----------
    command : SshCommand
        How they are started.
    say : callable
        ``say(host, line)`` is called with each line that an agent, or its ssh, prints.
    """

    def __init__(self, command: SshCommand, say: Callable[[str, str], None]) -> None:
        self._command = command
        self._say = say
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Let all agents end."""
        self._ending.set()

    async def run(self, lines: Sequence[HostLine]) -> list[str]:
        """Run an agent on each host until all have ended; return the hosts that failed.

        An agent that ends while the server runs has failed if its exit status is not 0. The others go on.
        """
        failed = await asyncio.gather(*(self._run_one(line) for line in lines))
        return [line.host for line, has_failed in zip(lines, failed, strict=True) if has_failed]

    async def _run_one(self, line: HostLine) -> bool:
        """Run the agent of a host; return whether it has failed."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command.argv(line),
                stdin=PIPE,
                stdout=PIPE,
                stderr=STDOUT,
                start_new_session=True,  # Ctrl-C is for this program, which lets the agents end
            )
        except OSError as failure:
            self._say(line.host, f"{shlex.join(self._command.ssh)} cannot be run ({failure})")
            return True
        ending = asyncio.ensure_future(self._end_when_told(process))
        try:
            assert process.stdin is not None  # it is a pipe
            process.stdin.write(self._command.token.encode() + b"\n")
            with contextlib.suppress(ConnectionError):  # ssh has ended already, and its status says more
                await process.stdin.drain()
            await self._pass_output(line.host, process)
            status = await process.wait()
        finally:
            ending.cancel()
        if self._ending.is_set():
            return False
        if status:
            whose = "ssh" if status == SSH_FAILED else "its node agent"
            self._say(line.host, f"{whose} failed (exit status {status})")
        return bool(status)

    async def _pass_output(self, host: str, process: Process) -> None:
        assert process.stdout is not None  # it is a pipe
        while octets := await _read_line(process.stdout):
            self._say(host, octets.decode(errors="replace").rstrip("\r\n"))

    async def _end_when_told(self, process: Process) -> None:
        """Close the stdin of an agent when all shall end; end its ssh if that does not help."""
        await self._ending.wait()
        assert process.stdin is not None  # it is a pipe
        process.stdin.close()
        await asyncio.sleep(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, or what fits into the buffer of a longer one; nothing at the end."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as long:
        return await stream.readexactly(long.consumed)
