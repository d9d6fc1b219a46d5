"""``alchemist serve``: run a server until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alchemist_ray.cli.arguments import count, library, port, port_range, size
from alchemist_ray.client.workers import DEFAULT_PORT
from alchemist_ray.errors import ServerStartError
from alchemist_ray.host.cores import allowed_cores
from alchemist_ray.protocol.handshake import new_token
from alchemist_ray.protocol.server_options import ServerOptions, WorkerOptions
from alchemist_ray.transport.credentials import TOKEN, TOKEN_FILE, read_token, token_path, write_token

if TYPE_CHECKING:
    from alchemist_ray.mpi_backend.driver.driver import Driver

log = logging.getLogger("alchemist")

_PARSERS: dict[str, Callable[[str], Any]] = {
    "num_workers": count,
    "port": port,
    "worker_ports": port_range,
    "memory_per_worker": size,
    "libraries": library,
}
"""Options whose text is not their value."""

_DEFAULTS = {"num_workers": allowed_cores(), "port": DEFAULT_PORT}
"""Defaults that differ from those of a server that is started from Python."""


def add(commands: Any) -> None:
    """Add the command. Each field of :class:`ServerOptions` whose metadata name a flag becomes that flag."""
    serve = commands.add_parser("serve", help="run a server until Ctrl-C", description="Run a server until Ctrl-C.")
    serve.set_defaults(run=_serve)
    shared = {option.name for option in dataclasses.fields(WorkerOptions)}
    for option in sorted(_with_flags(), key=lambda option: option.name in shared):  # those of the workers come last
        add_flag(serve, option)
    serve.add_argument("--token-file", type=Path, metavar="F", help="file with the token (mode 0600); made if missing")


def _with_flags() -> list[dataclasses.Field[Any]]:
    return [option for option in dataclasses.fields(ServerOptions) if "flag" in option.metadata]


def add_flag(command: argparse.ArgumentParser, option: dataclasses.Field[Any]) -> None:
    """Add the flag of an option to a command."""
    shown: dict[str, Any] = {"dest": option.name, "help": option.metadata["help"]}
    if option.default is False:
        command.add_argument(option.metadata["flag"], action="store_true", **shown)
        return
    shown |= {key: option.metadata[key] for key in ("metavar", "choices") if key in option.metadata}
    if option.name in _PARSERS:
        shown["type"] = _PARSERS[option.name]
    if option.name == "libraries":
        shown |= {"action": "extend", "nargs": "+", "default": []}
    elif option.default == ():
        shown |= {"action": "append", "default": []}
    else:
        shown["default"] = _DEFAULTS.get(option.name, option.default)
    command.add_argument(option.metadata["flag"], **shown)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from alchemist_ray.mpi_backend.driver.serve import serve
        from alchemist_ray.mpi_backend.logs import configure_logging
    except ImportError as missing:
        raise ServerStartError(f"{missing}: pip install 'alchemist-ray[server]'") from missing
    token, written = _server_token(arguments)
    given = {option.name: getattr(arguments, option.name) for option in _with_flags()}
    options = ServerOptions.of({**given, "libraries": dict(arguments.libraries), "token": token})
    made: list[Path] = []

    def on_ready(driver: Driver) -> None:
        if not written:
            made.append(token_path(driver.port))
            write_token(made[0], token)
            print(f"Clients of this user on this machine find the token in {made[0]}", flush=True)

    log_dir = Path(options.log_dir) if options.log_dir else None
    if log_dir is not None:
        log_dir.mkdir(parents=True, exist_ok=True)
    configure_logging("driver", sys.stdout, log_dir / "driver.log" if log_dir else None)
    if options.num_workers > (cores := allowed_cores()):  # its node agent says so too, but only in its log
        log.info("The %d workers are more than the %d cores that this process may use", options.num_workers, cores)
    try:
        asyncio.run(serve(options, on_ready))
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    return 0


def _server_token(arguments: argparse.Namespace) -> tuple[str, bool]:
    """Return the token of the server, and whether its owner already keeps it somewhere."""
    file = arguments.token_file or os.environ.get(TOKEN_FILE)
    if not file:
        token = os.environ.get(TOKEN)
        return (token, True) if token else (new_token(), False)
    if not Path(file).exists():
        write_token(Path(file), new_token())
    return read_token(Path(file), "--token-file" if arguments.token_file else TOKEN_FILE), True
