"""The command ``alchemist``: start a server, look at one, run an experiment."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alchemist_ray._version import __version__
from alchemist_ray.client.annotations import signature_of
from alchemist_ray.client.driver import DriverConnection
from alchemist_ray.client.libraries import catalogue, find_task
from alchemist_ray.client.session import AlchemistSession
from alchemist_ray.client.stubs import class_name, stub_of
from alchemist_ray.client.workers import DEFAULT_PORT
from alchemist_ray.errors import AlchemistError, ExperimentError, NotEnoughWorkersError, ServerStartError
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.descriptions import LibraryDescription
from alchemist_ray.protocol.handshake import new_token
from alchemist_ray.transport.credentials import TOKEN, TOKEN_FILE, read_token, token_path, write_token

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except AlchemistError as failure:
        print("\n".join([f"alchemist: {failure}", *getattr(failure, "__notes__", [])]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alchemist", description="Run MPI libraries from Ray and Python.")
    parser.add_argument("--version", action="version", version=f"alchemist-ray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run a server until Ctrl-C", description="Run a server until Ctrl-C.")
    serve.set_defaults(run=_serve)
    serve.add_argument("--workers", type=_count, default=os.cpu_count() or 1, metavar="N", help="MPI ranks to offer")
    serve.add_argument("--hostname", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port to listen on (default: %(default)s)")
    serve.add_argument("--advertise", default="", metavar="ADDRESS", help="address that clients reach the workers at")
    serve.add_argument("--worker-ports", type=_port_range, metavar="A-B", help="ports of the workers (default: any)")
    serve.add_argument("--token-file", type=Path, metavar="F", help="file with the token (mode 0600); made if missing")
    serve.add_argument(
        "--library", type=_library, action="extend", nargs="+", default=[], metavar="NAME=MODULE_OR_PATH",
        help="a library to offer beside the installed ones",
    )  # fmt: skip
    serve.add_argument("--allow-library-paths", action="store_true", help="let clients load libraries from any path")
    serve.add_argument(
        "--data-dir", action="append", default=[], metavar="D", help="let workers read and write files under D"
    )
    serve.add_argument("--memory-per-worker", type=_size, metavar="SIZE", help="for matrices, e.g. 4GiB")
    serve.add_argument("--log-dir", metavar="D", help="where to keep logs (default: nowhere)")
    status = commands.add_parser(
        "status", help="show the workers, sessions, matrices and tasks of a server", description=_status.__doc__
    )
    status.set_defaults(run=_status)
    libraries = commands.add_parser(
        "libraries",
        help="show the libraries that a server offers, and what is in them",
        description=_libraries.__doc__,
    )
    libraries.set_defaults(run=_libraries, refuse=libraries.error)
    libraries.add_argument("library", nargs="?", metavar="NAME", help="the library to look into")
    libraries.add_argument("task", nargs="?", metavar="TASK", help="the task to document")
    libraries.add_argument("--pyi", metavar="FILE", help="write a stub of the library to FILE; - is standard output")
    for command in (status, libraries):
        command.add_argument("--hostname", default="127.0.0.1", help="where the server is (default: %(default)s)")
        command.add_argument("--port", type=_port, default=DEFAULT_PORT, help="its port (default: %(default)s)")
        command.add_argument("--token-file", type=Path, metavar="F", help="file with its token")
    _add_run(commands.add_parser("run", help="run a reinforcement learning experiment", description=_run.__doc__))
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.set_defaults(run=_run, refuse=run.error)
    run.add_argument(
        "file", nargs="?", metavar="EXPERIMENT.yaml", help="what is trained, on what, and what is measured"
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="in place of what the file says: stop.seconds=60",
    )
    run.add_argument("--results", metavar="DIR", help="where results go (default: what the file says, results/NAME)")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with a run that was stopped or killed")
    how.add_argument("--evaluate-only", action="store_true", help="evaluate the checkpoints of a run; do not train")
    how.add_argument("--dry-run", action="store_true", help="check the experiment, and print it with all defaults")
    how.add_argument("--describe", action="store_true", help="print the keys of an experiment with their defaults")
    run.add_argument("--report", type=Path, metavar="DIR", help="copy what is small of the results to DIR")


# --- serve ------------------------------------------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from alchemist_ray.mpi_backend.driver.driver import Driver, DriverConfig
        from alchemist_ray.mpi_backend.driver.serve import serve
        from alchemist_ray.mpi_backend.logs import configure_logging
    except ImportError as missing:
        raise ServerStartError(f"{missing}: pip install 'alchemist-ray[server]'") from missing
    token, written = _server_token(arguments)
    config = DriverConfig(
        num_workers=arguments.workers,
        token=token,
        hostname=arguments.hostname,
        port=arguments.port,
        advertise=arguments.advertise,
        worker_ports=arguments.worker_ports,
        memory_per_worker=arguments.memory_per_worker,
        libraries=dict(arguments.library),
        allow_library_paths=arguments.allow_library_paths,
        data_directories=arguments.data_dir,
        log_dir=arguments.log_dir,
    )
    made: list[Path] = []

    def on_ready(driver: Driver) -> None:
        if not written:
            made.append(token_path(driver.port))
            write_token(made[0], token)
            print(f"Clients of this user on this machine find the token in {made[0]}", flush=True)

    if arguments.log_dir:
        Path(arguments.log_dir).mkdir(parents=True, exist_ok=True)
    configure_logging("driver", sys.stdout, Path(arguments.log_dir) / "driver.log" if arguments.log_dir else None)
    try:
        asyncio.run(serve(config, on_ready))
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    return 0


def _server_token(arguments: argparse.Namespace) -> tuple[str, bool]:
    """Return the server's token, and whether its owner keeps it somewhere already."""
    file = arguments.token_file or os.environ.get(TOKEN_FILE)
    if not file:
        token = os.environ.get(TOKEN)
        return (token, True) if token else (new_token(), False)
    if not Path(file).exists():
        write_token(Path(file), new_token())
    return read_token(Path(file)), True


# --- looking at a server ----------------------------------------------------------------------------------------------


def _ask(arguments: argparse.Namespace, request: Callable[[int], m.Message]) -> Any:
    driver = DriverConnection(arguments.hostname, arguments.port, _token(arguments), Purpose.MONITOR)
    try:
        return driver.ask(request)
    finally:
        driver.close()


def _token(arguments: argparse.Namespace) -> str | None:
    return read_token(arguments.token_file) if arguments.token_file else None


def _status(arguments: argparse.Namespace) -> int:
    """Show the workers, sessions, matrices and tasks of a server."""
    status = _ask(arguments, m.AskStatus)
    free = sum(row["session"] is None for row in status["workers"])
    print(f"Alchemist {status['version']} on {status['host']} ({status['hostname']}:{status['port']})")
    print(f"{len(status['workers'])} workers, {free} free; {len(status['sessions'])} sessions\n")
    _print_table(
        ("Worker", "Host", "Address", "Process", "State", "Session"),
        [
            (row["name"], row["host"], _address(row), row["pid"] or "", row["state"], row["session"] or "")
            for row in status["workers"]
        ],
    )
    for session in status["sessions"]:
        _print_session(session)
    return 0


def _address(row: dict[str, Any]) -> str:
    return f"{row['address']}:{row['port']}" if row["port"] else ""


def _print_session(session: dict[str, Any]) -> None:
    print(
        f"\nSession {session['id']}, {session['software']} at {session['client']}, for {session['age_seconds']:.0f} s"
    )
    workers = session["workers"]
    _print_table(
        ("Rank", "Memory in use", "of", "Running task", "for"),
        [
            (
                row["rank"],
                _bytes(row["memory_in_use"]),
                _bytes(row["memory"]),
                row["task"] or "-",
                f"{row['task_seconds']:.1f} s" if row["task"] else "",
            )
            for row in workers
        ],
    )
    if workers and workers[0]["matrices"]:
        print()
        _print_table(
            ("Matrix", "Shape", "Type", "Layout", "Grid", "On rank 0"),
            [
                (
                    matrix["id"],
                    "{} x {}".format(*matrix["shape"]),
                    matrix["dtype"],
                    matrix.get("pair", "sparse rows"),
                    "{}x{}".format(*matrix["grid"]) if "grid" in matrix else "",
                    _bytes(matrix["local_bytes"]) + ("" if matrix["complete"] else ", incomplete"),
                )
                for matrix in workers[0]["matrices"]
            ],
        )


def _libraries(arguments: argparse.Namespace) -> int:
    """Show the libraries that a server offers; the tasks of one of them; the documentation of one task."""
    if arguments.library is not None:
        return _look_into(arguments)
    if arguments.pyi is not None:
        arguments.refuse("--pyi writes the stub of one library: name it")
    rows = _ask(arguments, m.ListLibraries)
    _print_table(
        ("Library", "Loaded from", "Version", "Provided by"),
        [(row["name"], row["source"], row["version"], row["provider"]) for row in rows],
    )
    return 0


def _look_into(arguments: argparse.Namespace) -> int:
    """Print what a library says about itself, or write a stub of it."""
    if arguments.task is not None and arguments.pyi is not None:
        arguments.refuse("--pyi writes the stub of a whole library: leave the task away")
    description = _describe(arguments)
    if arguments.pyi == "-":
        print(stub_of(description), end="")
    elif arguments.pyi is not None:
        try:
            Path(arguments.pyi).write_text(stub_of(description), encoding="utf-8")
        except OSError as failure:
            arguments.refuse(f"the stub could not be written: {failure}")
        print(f"{arguments.pyi} has the class {class_name(description.name)}")
    elif arguments.task is not None:
        task = find_task(description, arguments.task)
        print(f"{task.name}{signature_of(task)}\n\n{task.doc}".rstrip())
    else:
        print(f"{description.name} {description.version}".rstrip() + f"\n\n{catalogue(description)}")
    return 0


def _describe(arguments: argparse.Namespace) -> LibraryDescription:
    """Return what a library says about itself; a worker of a session of our own loads it to find out."""
    with AlchemistSession(verbose=False) as session:
        session.connect(arguments.hostname, arguments.port, _token(arguments))
        try:
            session.request_workers(1)
        except NotEnoughWorkersError as busy:
            busy.add_note("What is in a library only a worker can tell, which loads it: it takes a free one.")
            raise
        return session.load_library(arguments.library).description


# --- run --------------------------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    """Run a reinforcement learning experiment: train, evaluate beside baselines, and keep curves and pictures."""
    try:
        from alchemist_ray.training.command import describe, dry_run, run
    except ModuleNotFoundError as missing:
        raise ExperimentError("alchemist run", [f"{missing}: pip install 'alchemist-ray[all]'"]) from missing
    if arguments.describe:
        print(describe())
        return 0
    if arguments.file is None:
        arguments.refuse("name the experiment's file")
    if arguments.dry_run:
        print(dry_run(arguments.file, arguments.set, arguments.results), end="")
        return 0
    how = {name: getattr(arguments, name) for name in ("results", "resume", "evaluate_only", "report")}
    return run(arguments.file, arguments.set, say=functools.partial(print, flush=True), **how)


def _print_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


# --- argument types ---------------------------------------------------------------------------------------------------


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers: give 1 or more")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give 0 to 65535")
    return int(text)


def _port_range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if _port(low) > _port(high) or int(low) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of ports: give LOW-HIGH, e.g. 24961-24999")
    return int(low), int(high)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give bytes, or e.g. 512MiB, 4GiB, 2GB")
    return int(float(match[1]) * _UNITS[match[2]])


def _library(text: str) -> tuple[str, str]:
    name, separator, source = text.partition("=")
    if not (separator and name and source):
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=MODULE or NAME=PATH")
    path = Path(source)
    return name, str(path.resolve()) if source.endswith(".py") or path.is_file() else source
