"""Run a driver until it is told to stop: from the command line, or for a process that owns it (:mod:`.program`)."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alchemist_ray.errors import ServerStartError
from alchemist_ray.mpi_backend.driver.driver import Driver
from alchemist_ray.mpi_backend.driver.local_node import LocalNode
from alchemist_ray.mpi_backend.logs import configure_logging
from alchemist_ray.protocol.node_settings import NodeSettings
from alchemist_ray.protocol.server_options import ServerOptions

STDIN = 0
OWNER_SECONDS = 0.5
"""Time between two checks whether the owner is alive."""

GC_THRESHOLD = (50_000, 20, 100)
"""A full collection walks all slots: 70 ms with 64,000 of them. With Python's own thresholds one came with every
large group."""

log = logging.getLogger("alchemist")


async def serve(
    options: ServerOptions,
    on_ready: Callable[[Driver], None],
    until: Callable[[asyncio.Event], None] | None = None,
    node: LocalNode | None = None,
) -> None:
    """Run a server until SIGTERM, SIGINT or SIGHUP, or until the event that is passed to `until` is set.

    Parameters
    ----------
    options : ServerOptions
        The options of the server.
    on_ready : callable
        Called with the driver when the server is ready.
    until : callable, optional
        Called before that with an event that ends the server.
    node : LocalNode, optional
        The node agent beside the driver, if it has been started already.

    Raises
    ------
    ServerStartError
        If the server cannot listen.
    """
    gc.set_threshold(*GC_THRESHOLD)
    if node is None and options.num_workers:
        node = LocalNode(options.mpi, options.mpiexec, options.python)
    driver = Driver(options)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup ignores SIGHUP on purpose; a shell ignores SIGINT for any job in the background
        loop.add_signal_handler(number, stop.set)
    try:
        await driver.start()
        if node is not None:
            await node.join(_settings_of(driver))
        if until is not None:
            until(stop)  # first: the owner may go away as soon as it knows that the server is ready
        on_ready(driver)
        driver.announce()
        await stop.wait()
    finally:
        await driver.stop()
        if node is not None:
            await asyncio.to_thread(node.stop)


def _settings_of(driver: Driver) -> NodeSettings:
    """Return the settings of the node agent beside a driver."""
    options = driver.options
    loopback = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - the owner's choice
    return NodeSettings(
        driver=(loopback.get(options.hostname, options.hostname), driver.port),
        token=options.token,
        slots=options.num_workers,
        name=socket.gethostname(),
        address=options.advertise or options.hostname,
        bind=options.hostname,
        log_dir=str(driver.log_dir),
        wait=0.0,
        mpi=options.mpi,
        mpiexec=options.mpiexec,
        python=options.python,
    )


def _stop_with_stdin(stop: asyncio.Event) -> None:
    """Set `stop` once stdin has ended."""

    def readable() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)
            stop.set()

    def watch_owner() -> None:
        # A forked child of the owner may keep our stdin open, so the parent process is checked, too.
        if os.getppid() != owner:
            stop.set()
        loop.call_later(OWNER_SECONDS, watch_owner)

    loop, owner = asyncio.get_running_loop(), os.getppid()
    loop.add_reader(STDIN, readable)
    watch_owner()


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def serve_owner(fields: dict[str, Any], node: LocalNode | None) -> int:
    """Serve the process that has started this one; return the exit status.

    Parameters
    ----------
    fields : dict
        Those of :class:`.ServerOptions`, and whether the directory of the logs is removed at the end.
    node : LocalNode or None
        The node agent beside the driver, which has been started already.
    """
    log_dir, temporary = Path(fields["log_dir"]), fields.pop("temporary_logs")
    configure_logging("driver", sys.stderr, log_dir / "driver.log")
    try:
        options = ServerOptions.of(fields)
        asyncio.run(serve(options, lambda driver: _say(port=driver.port), _stop_with_stdin, node))
    except ServerStartError as failure:
        _say(error=failure.reason)
        return 1
    finally:
        if temporary:  # here and not in the owner, which may be dead
            shutil.rmtree(log_dir, ignore_errors=True)
    return 0
