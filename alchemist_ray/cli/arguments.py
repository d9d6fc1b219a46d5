"""Values of options: text from the command line, checked and converted."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alchemist_ray.client.driver import DriverConnection
from alchemist_ray.client.workers import DEFAULT_PORT
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.protocol.server_options import LIBRARY_FILES
from alchemist_ray.transport.credentials import read_token

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def add_server(command: argparse.ArgumentParser) -> None:
    """Add the options that name a running server."""
    command.add_argument("--hostname", default="127.0.0.1", help="where the server is (default: %(default)s)")
    command.add_argument("--port", type=port, default=DEFAULT_PORT, help="its port (default: %(default)s)")
    command.add_argument("--token-file", type=Path, metavar="F", help="file with its token")


def token_in(arguments: argparse.Namespace) -> str | None:
    """Return the token in the file that the options name; None: they name none, and the client looks for it."""
    return read_token(arguments.token_file, "--token-file") if arguments.token_file else None


def ask(arguments: argparse.Namespace, request: Callable[[int], m.Message]) -> Any:
    """Send a request to the driver of the server that the options name; return the result."""
    driver = DriverConnection(arguments.hostname, arguments.port, token_in(arguments), Purpose.MONITOR)
    try:
        return driver.ask(request)
    finally:
        driver.close()


def count(text: str) -> int:
    """Return a number of workers, 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid number of workers: give 0 or more")
    return int(text)


def slots(text: str) -> int:
    """Return a number of slots, 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid number of slots: give 1 or more")
    return int(text)


def nodes(text: str) -> int:
    """Return a number of nodes, 1 or more."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid number of nodes: give 1 or more")
    return int(text)


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid number of seconds: give 0 or more")
    return value


def address(text: str) -> tuple[str, int]:
    """Return a host and a port."""
    host, separator, number = text.rpartition(":")
    if not (separator and host):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid address: give HOST:PORT, e.g. 10.0.0.1:24960")
    return host.removeprefix("[").removesuffix("]"), port(number)


def label(text: str) -> tuple[str, str]:
    """Return the key and the value of a label."""
    key, separator, value = text.partition("=")
    if not (separator and key):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid label: give KEY=VALUE")
    return key, value


def port(text: str) -> int:
    """Return a port."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid port: give 0 to 65535")
    return int(text)


def port_range(text: str) -> tuple[int, int]:
    """Return the ends of a range of ports."""
    low, _, high = text.partition("-")
    if port(low) > port(high) or int(low) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid range of ports: give LOW-HIGH, e.g. 24961-24999")
    return int(low), int(high)


def size(text: str) -> int:
    """Return a number of bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid size: give bytes, or e.g. 512MiB, 4GiB, 2GB")
    return int(float(match[1]) * _UNITS[match[2]])


def library(text: str) -> tuple[str, str]:
    """Return the name of a library, and its module or absolute path."""
    name, separator, source = text.partition("=")
    if not (separator and name and source):
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=MODULE or NAME=PATH")
    path = Path(source)
    return name, str(path.resolve()) if source.endswith(LIBRARY_FILES) or path.is_file() else source
