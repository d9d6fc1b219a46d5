"""Log lines in the original's format: ``[2026-05-07 02:29:25.576] [worker-001] [info] Worker ready``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TextIO


class _Formatter(logging.Formatter):
    def __init__(self, name: str) -> None:
        super().__init__(f"[%(asctime)s.%(msecs)03d] [{name}] [%(level)s] %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return super().format(record)


def configure_logging(name: str, stream: TextIO | None = None, file: Path | None = None) -> None:
    """Send the log messages of ``alchemist`` to `stream` (default: stderr) and `file`; `name` appears in each line."""
    logger = logging.getLogger("alchemist")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    if file is not None:
        handlers.append(logging.FileHandler(file))
    for handler in handlers:
        handler.setFormatter(_Formatter(name))
    logger.handlers = handlers


def tail(path: Path, lines: int = 20, octets: int = 2**20) -> str:
    """Return the last `lines` lines of a log file (of its last `octets` bytes); empty if the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - octets))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
