"""Run a driver until it is told to stop, from the command line or for a client process that owns it.

``python -m alchemist_ray.mpi_backend.driver.serve`` is the second. It reads its configuration, a line of JSON, from
stdin (a token must not stand in argv), answers with one line of JSON on stdout, and ends when stdin does, which is when
its owner calls ``stop()`` or is no more, however it died.
"""

from __future__ import annotations

import asyncio
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
from alchemist_ray.mpi_backend.logs import configure_logging
from alchemist_ray.protocol.server_options import ServerOptions

STDIN = 0
OWNER_SECONDS = 0.5
"""How often to look whether the owner is alive."""

log = logging.getLogger("alchemist")


async def serve(
    options: ServerOptions, on_ready: Callable[[Driver], None], until: Callable[[asyncio.Event], None] | None = None
) -> None:
    """Run a server until SIGTERM, SIGINT, or the event that `until` is given.

    Raises
    ------
    ServerStartError
        If it cannot listen.
    """
    driver = Driver(options)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup means it; that a shell ignores SIGINT for what it runs in the background does not
        loop.add_signal_handler(number, stop.set)
    await driver.start()
    try:
        if until is not None:
            until(stop)  # before anybody who is told that the server is ready can go away
        on_ready(driver)
        driver.announce()
        await stop.wait()
    finally:
        await driver.stop()


def _stop_with_stdin(stop: asyncio.Event) -> None:
    """Set `stop` once stdin has ended."""

    def readable() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)
            stop.set()

    def watch_owner() -> None:
        # A child that the owner has forked holds our stdin open; the owner itself is our parent.
        if os.getppid() != owner:
            stop.set()
        loop.call_later(OWNER_SECONDS, watch_owner)

    loop, owner = asyncio.get_running_loop(), os.getppid()
    loop.add_reader(STDIN, readable)
    watch_owner()


def _read_line() -> bytes:
    """Read one line of stdin, and nothing of what follows it."""
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
        if temporary:  # here, and not in the owner, which may be no more
            shutil.rmtree(log_dir, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
