"""Servers with node agents on hosts that are made of network namespaces (``tests/namespace_hosts.py``)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import alchemist_ray as alchemist
from alchemist_ray.client.driver import DriverConnection
from alchemist_ray.client.local_server import Server
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose

TESTS = Path(__file__).parents[2] / "tests"
sys.path.append(str(TESTS))

from namespace_hosts import Host, Hosts, why_impossible  # noqa: E402 - found in the directory of the tests

__all__ = ["SLOTS", "Host", "Hosts", "cluster", "ended", "program_environment", "run_client", "why_impossible"]

SLOTS = 2
"""Slots of each node. As the machine has two cores, each rank computes with one thread."""
MEMORY = 2**30
"""Bytes of each worker for matrices."""
JOIN_SECONDS = 30.0
TUNED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that change the speed of OpenBLAS; programs run without them."""


def program_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a program: that of this process, without the settings that change its speed."""
    return {name: value for name, value in os.environ.items() if name not in TUNED} | dict(more or {})


@contextlib.contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Yield a process, and end it at the end."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def cluster(hosts: Hosts, members: Sequence[Host], **options: Any) -> Iterator[Server]:
    """Start a server outside of the hosts, and a node agent on each of some hosts.

    Parameters
    ----------
    hosts : Hosts
        All hosts.
    members : sequence of Host
        The hosts that run an agent. Each has :data:`SLOTS` slots.
    **options
        Further options of :func:`alchemist_ray.start_server`.
    """
    with contextlib.ExitStack() as opened:
        settings = {"hostname": hosts.outside_address, "memory_per_worker": MEMORY, **options}
        server = opened.enter_context(alchemist.start_server(0, **settings))
        errors = opened.enter_context(tempfile.TemporaryFile("w+"))
        command = [sys.executable, "-m", "alchemist_ray.cli", "node", "--slots", str(SLOTS), "--driver"]
        for host in members:
            agent = host.popen(
                [*command, f"{server.hostname}:{server.port}"],
                env=program_environment({"ALCHEMIST_TOKEN": server.token}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            opened.enter_context(ended(agent))
        if not _have_joined(server, len(members)):
            errors.seek(0)
            raise RuntimeError(f"the node agents did not join the server: {errors.read()}")
        yield server


def _have_joined(server: Server, count: int) -> bool:
    deadline = time.monotonic() + JOIN_SECONDS
    with contextlib.closing(DriverConnection(server.hostname, server.port, server.token, Purpose.MONITOR)) as monitor:
        while time.monotonic() < deadline:
            if len(monitor.ask(m.AskStatus)["nodes"]) == count:
                return True
            time.sleep(0.05)
    return False


def run_client(host: Host, order: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Run ``nodes_client.py`` on a host; return what it has measured.

    Parameters
    ----------
    host : Host
        The host.
    order : mapping
        What to do, as JSON values; see the program.
    seconds : float
        Time limit.
    """
    program = Path(__file__).with_name("nodes_client.py")
    ran = host.python(program, json.dumps(order), env=program_environment(), timeout=seconds)
    measured: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return measured
