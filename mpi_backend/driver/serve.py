"""Run a driver until it is told to stop, from the command line or for a client process that owns it.

A client process runs ``python -m alchemist_ray.mpi_backend.driver.serve``. The program reads its configuration, one
line of JSON, from stdin (a token must not appear in argv), and answers with one line of JSON on stdout. It ends when
stdin ends: when its owner calls ``stop()``, or when the owner has died in any way.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from alchemist_ray.errors import ServerStartError
from alchemist_ray.mpi_backend.driver.driver import Driver
from alchemist_ray.mpi_backend.driver.local_node import LocalNode
from alchemist_ray.mpi_backend.logs import configure_logging
from alchemist_ray.mpi_backend.node.settings import NodeSettings
from alchemist_ray.protocol.server_options import ServerOptions

STDIN = 0
OWNER_SECONDS = 0.5
"""Time between two checks whether the owner is alive."""

GC_THRESHOLD = (50_000, 20, 100)
"""A full collection walks all slots: 70 ms with 64,000 of them. With Python's own thresholds one came with every
large group."""

log = logging.getLogger("alchemist")


async def serve(
    options: ServerOptions, on_ready: Callable[[Driver], None], until: Callable[[asyncio.Event], None] | None = None
) -> None:
    """Run a server until SIGTERM, SIGINT or SIGHUP, or until the event that is passed to `until` is set.

    Raises
    ------
    ServerStartError
        If the server cannot listen.
    """
    gc.set_threshold(*GC_THRESHOLD)
    node = LocalNode(options.mpi, options.mpiexec, options.python) if options.num_workers else None
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


def _read_line() -> bytes:
    """Read one line of stdin and nothing after it."""
    line = b""
    while not line.endswith(b"\n") and (octet := os.read(STDIN, 1)):
        line += octet
    return line


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Serve a client process; return the exit status."""
    fields = json.loads(_read_line())
    log_dir, temporary = Path(fields["log_dir"]), fields.pop("temporary_logs")
    configure_logging("driver", sys.stderr, log_dir / "driver.log")
    try:
        options = ServerOptions.of(fields)
        asyncio.run(serve(options, lambda driver: _say(port=driver.port), _stop_with_stdin))
    except ServerStartError as failure:
        _say(error=failure.reason)
        return 1
    finally:
        if temporary:  # here and not in the owner, which may be dead
            shutil.rmtree(log_dir, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
