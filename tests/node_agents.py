"""Node agents on this host, for tests: beside a server without slots of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import psutil

import alchemist_ray as alchemist

MIB = 2**20


class Agents:
    """A server, and what starts agents of it.

    Parameters
    ----------
    token : str
        The token of the server.
    """

    def __init__(self, token: str = "a token of a test") -> None:
        self.token = token
        self._opened = contextlib.ExitStack()
        self.server = self._opened.enter_context(alchemist.start_server(0, token=token, memory_per_worker=64 * MIB))

    def start(self, name: str, slots: int, *options: str, **popen) -> subprocess.Popen:
        """Start an agent whose node has the label ``kind=NAME``; it is killed at the end."""
        driver = f"{self.server.hostname}:{self.server.port}"
        command = [sys.executable, "-m", "alchemist_ray.cli", "node", "--driver", driver, "--slots", str(slots)]
        environment = {**os.environ, "ALCHEMIST_TOKEN": self.token, **popen.pop("env", {})}
        agent = subprocess.Popen(
            [*command, "--name", name, "--label", f"kind={name}", *options], env=environment, **popen
        )
        self._opened.callback(_end, agent)
        return agent

    def session(self, num_workers: int = 0, kind: str = "", wait: float = 30) -> alchemist.AlchemistSession:
        """Return a session, which is stopped at the end."""
        session = alchemist.AlchemistSession()
        self._opened.callback(session.stop)
        session.connect(self.server.hostname, self.server.port, self.token)
        if num_workers:
            session.request_workers(num_workers, wait=wait, labels={"kind": kind})
        return session

    def close(self) -> None:
        """End everything."""
        self._opened.close()


def _end(agent: subprocess.Popen) -> None:
    agent.kill()
    agent.communicate()


def warm_process_of(agent: int) -> int:
    """Return the process id of an agent's warm process."""
    (found,) = [child.pid for child in psutil.Process(agent).children() if "warm_process" in " ".join(child.cmdline())]
    return found


def starters_of(agent: int) -> list[int]:
    """Return the process ids of the starters of an agent's groups."""
    return [child.pid for child in psutil.Process(warm_process_of(agent)).children()]
