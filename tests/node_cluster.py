"""A server with workers on several hosts, for tests: a node agent on each of some hosts (:mod:`namespace_hosts`)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from namespace_hosts import Host, Hosts
from tests_support import end_process, wait_until

import alchemist_ray as alchemist

TOKEN = "the token of a test"
MIB = 2**20


class Cluster:
    """A server outside of the hosts, with an agent on each host.

    Parameters
    ----------
    hosts : Hosts
        The hosts.
    slots : int
        Slots of each agent, whose node has the label ``host`` with the name of its host.
    **options
        Further options of :func:`alchemist_ray.start_server`.
    """

    def __init__(self, hosts: Hosts, slots: int = 2, **options: Any) -> None:
        self.hosts = hosts
        self._opened = contextlib.ExitStack()
        settings = {"memory_per_worker": 256 * MIB, **options}
        self.server = self._opened.enter_context(
            alchemist.start_server(0, hostname=hosts.outside_address, token=TOKEN, **settings)
        )
        self.agents = [self.start_agent(host, "--slots", str(slots), "--label", f"host={host.name}") for host in hosts]
        self._monitor = self.session()
        assert wait_until(lambda: len(self.nodes()) == len(hosts), 30), "the agents did not join"

    def start_agent(self, host: Host, *options: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Start a node agent on a host."""
        agent = host.popen(self.agent_command(*options), env={**os.environ, "ALCHEMIST_TOKEN": TOKEN}, **popen)
        self._opened.callback(end_process, agent)
        return agent

    def agent_command(self, *options: str) -> Sequence[str]:
        """Return the command of a node agent."""
        driver = f"{self.server.hostname}:{self.server.port}"
        return [sys.executable, "-m", "alchemist_ray.cli", "node", "--driver", driver, *options]

    def session(self, num_workers: int = 0, **options: Any) -> alchemist.AlchemistSession:
        """Return a session, which is stopped at the end."""
        wishes = {name: options.pop(name) for name in ("wait", "placement", "labels") if name in options}
        session = alchemist.AlchemistSession(**options)
        self._opened.callback(session.stop)
        session.connect(self.server.hostname, self.server.port, TOKEN)
        if num_workers:
            session.request_workers(num_workers, **wishes)
        return session

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return what the server knows of its nodes, by name."""
        return {row["name"]: row for row in self._monitor.server_status()["nodes"]}

    def wait_for_task(self, task: str) -> None:
        """Wait until a worker of some session runs a task, such as ``"faults.nap"``."""

        def is_running() -> bool:
            sessions = self._monitor.server_status()["sessions"]
            return any(worker["task"] == task for session in sessions for worker in session["workers"])

        assert wait_until(is_running, 20), f"{task} was not started"

    def host_of(self, session: alchemist.AlchemistSession, rank: int) -> Host:
        """Return the host of a rank."""
        return next(host for host in self.hosts if host.name == session.address.endpoints[rank].host)

    def close(self) -> None:
        """End the agents and the server."""
        self._opened.close()
