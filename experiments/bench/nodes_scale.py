"""Measure one driver with many nodes, and one with many clients.

1,000 simulated agents (:mod:`nodes_agents`) offer 64,000 slots. The clients that all ask for the status at once do so
on a server with real workers and many sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import Comparison, Findings
from nodes_hosts import ended, program_environment

import alchemist_ray as alchemist
from alchemist_ray.client.driver import DriverConnection
from alchemist_ray.client.local_server import Server
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.transport.async_channel import AsyncChannel

AGENTS, SLOTS = 1_000, 64
RANKS = 10_000
REGISTRATIONS = 3
"""Each takes seconds."""
BEATING_SECONDS = 20.0
"""All windows together in which the driver only hears heartbeats."""
CLIENTS, IDLE_SESSIONS, BUSY_SESSIONS, WORKERS = 400, 60, 4, 2
PERCENT = (100.0, "% of a core")


def bench_nodes(repeats: int) -> Findings:
    """Register simulated agents, hear their heartbeats, and place a large group on them."""
    who = f"{AGENTS:,} agents with {SLOTS} slots each"
    with alchemist.start_server(0) as server:
        registered = []
        for _ in range(min(repeats, REGISTRATIONS)):
            with _agents(server) as seconds:
                registered.append(seconds)
            _wait_until_left(server)
        with _agents(server):
            beating = [_load(server.pid, BEATING_SECONDS / repeats) for _ in range(repeats)]
            rows = [
                _bounded(f"registration of {who}", 20.0, registered),
                _bounded(f"heartbeats of {who}, driver's CPU time", 0.1, beating, PERCENT),
            ]
            for strategy in ("pack", "spread"):
                placed, yielded = zip(*(_placing(server, strategy) for _ in range(repeats)), strict=True)
                group = f"a group of {RANKS:,} ranks, {strategy}, driver's CPU time"
                rows += [
                    _bounded(f"placing {group}", 0.1, placed, (1e3, "ms")),
                    _bounded(f"ending {group}", 0.1, yielded, (1e3, "ms"), asked=""),
                ]
            asked = [_cpu_of(server.pid, partial(_ask, server, Purpose.MONITOR, m.AskStatus)) for _ in range(repeats)]
            rows.append(_bounded(f"a status of {who}, driver's CPU time", 0.1, asked, (1e3, "ms"), asked=""))
    return Findings(rows)


def _bounded(
    what: str, limit: float, values: Sequence[float], unit: tuple[float, str] = (1.0, "s"), asked: str = "<= 1"
) -> Comparison:
    """Return a comparison of values with a fixed limit in the same unit."""
    text = f"{limit * unit[0]:g} {unit[1]}"
    return Comparison(what, text, values, [limit] * len(values), asked, unit)


@contextlib.contextmanager
def _agents(server: Server) -> Iterator[float]:
    """Run the simulated agents; yield the seconds until all had joined."""
    program = Path(__file__).with_name("nodes_agents.py")
    command = [sys.executable, program, server.hostname, str(server.port), str(AGENTS), str(SLOTS)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=program_environment(), text=True
    )
    with ended(process):
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        process.stdin.write(f"{server.token}\n")
        process.stdin.flush()
        yield float(process.stdout.readline())


def _wait_until_left(server: Server) -> None:
    while _ask(server, Purpose.MONITOR, m.AskStatus)["nodes"]:
        time.sleep(0.1)


def _ask(server: Server, purpose: Purpose, *requests: Callable[[int], m.Message]) -> Any:
    """Ask the driver over a connection of its own; return its last answer."""
    with contextlib.closing(DriverConnection(server.hostname, server.port, server.token, purpose)) as driver:
        answers = [driver.ask(request) for request in requests]
    return answers[-1]


def _placing(server: Server, strategy: str) -> tuple[float, float]:
    """Return the CPU seconds of the driver to start a group without real ranks, and to end it."""
    with contextlib.closing(DriverConnection(server.hostname, server.port, server.token)) as driver:
        placed = _cpu_of(server.pid, lambda: driver.ask(lambda n: m.RequestWorkers(n, RANKS, placement=strategy)))
        return placed, _cpu_of(server.pid, lambda: driver.ask(m.YieldWorkers))


def _load(pid: int, seconds: float) -> float:
    """Return the cores that a process uses on average during some seconds."""
    started = time.perf_counter()
    used = _cpu_of(pid, lambda: time.sleep(seconds))
    return used / (time.perf_counter() - started)


def _cpu_of(pid: int, action: Callable[[], object]) -> float:
    """Return the CPU seconds of a process during an action."""
    before = _cpu_seconds(pid)
    action()
    return _cpu_seconds(pid) - before


def _cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of all threads of a process; /proc/PID/stat would count them in hundredths."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) * 1e-9


# --- many clients -----------------------------------------------------------------------------------------------------


def bench_status(repeats: int) -> Findings:
    """Let many clients ask for the status at once, on a server with many sessions."""
    with contextlib.ExitStack() as opened:
        slots = BUSY_SESSIONS * WORKERS
        server = opened.enter_context(alchemist.start_server(slots, memory_per_worker=2**26))
        for number in range(IDLE_SESSIONS + BUSY_SESSIONS):
            session = opened.enter_context(alchemist.AlchemistSession(verbose=False))
            session.connect(server.hostname, server.port, server.token)
            if number >= IDLE_SESSIONS:
                session.request_workers(WORKERS)
        rounds = asyncio.run(_ask_at_once(server, repeats))
    what = f"status for each of {CLIENTS} clients at once, {IDLE_SESSIONS + BUSY_SESSIONS} sessions"
    return Findings(
        [_bounded(f"{what}, p{share}", 1.0, [float(np.percentile(r, share)) for r in rounds]) for share in (50, 99)]
    )


async def _ask_at_once(server: Server, repeats: int) -> list[list[float]]:
    """Return how long each client waited for its answer, in each round."""
    address, key = (server.hostname, server.port), Key.of(server.token)
    channels = [await AsyncChannel.open(address, Purpose.MONITOR, key) for _ in range(CLIENTS)]
    try:
        return [await asyncio.gather(*(_answer_seconds(channel, n) for channel in channels)) for n in range(repeats)]
    finally:
        for channel in channels:
            channel.close()


async def _answer_seconds(channel: AsyncChannel, number: int) -> float:
    started = time.perf_counter()
    channel.post(m.AskStatus(number))
    answer = await channel.receive()
    if not isinstance(answer, m.Done):
        raise TypeError(f"the driver answered with a {type(answer).__name__}")
    return time.perf_counter() - started
